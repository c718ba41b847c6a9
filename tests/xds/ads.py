"""A control plane's end of proxies' streams, over memory, and proxies that speak to it; for tests in virtual time."""

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import trio
from prometheus_client import CollectorRegistry
from trio.testing import memory_stream_pair

from meshd.ca import access, rsa_pem
from meshd.discovery import DeltaRequest, DeltaResponse, Node, StateRequest, StateResponse, state_wire, wire
from meshd.insight.service import ProxyInsights
from meshd.kinds import KINDS
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.proxy_insights import DataplaneInsight
from meshd.kinds.secret import Secret
from meshd.model.codec import decode_document
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.rpc import Channel, GrpcServer, RpcMetrics, channel_over
from meshd.runtime.latest import Latest
from meshd.store.memory import MemoryStore
from meshd.store.store import Put
from meshd.xds.abilities import Abilities
from meshd.xds.auth import Authn
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, Layer, ProxyFeed, XdsResource, resource
from meshd.xds.server import DELTA_AGGREGATED, STREAM_AGGREGATED, ControlPlane, XdsServer
from meshd.xds.service import Settings
from tests.kds.lab import Cable

REGISTRY = Registry(KINDS)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
KEY, ZONE_KEY = rsa_pem.new_private_key(), rsa_pem.new_private_key()
WEB = ResourceKey("Dataplane", "default", "web-1")


def now() -> datetime:
    """The time of the virtual clock."""
    return BEGIN + timedelta(seconds=trio.current_time())


def document(name: str = "web-1", service: str = "web", mesh: str = "default", **more: Any) -> dict[str, Any]:
    """A Dataplane as kuma-dp passes it."""
    inbound = {"port": 80, "servicePort": 8080, "tags": {"kuma.io/service": service}}
    spec = {"networking": {"address": "10.0.0.1", "inbound": [inbound]}}
    return {"type": "Dataplane", "mesh": mesh, "name": name, **spec, **more}


def node(name: str = "web-1", passed: dict[str, Any] | None = None, mesh: str = "default", **metadata: Any) -> Node:
    """The node of a proxy that was started with the resource ``passed``, or without."""
    if passed is not None:
        metadata["dataplane.resource"] = json.dumps(passed)
    return Node(f"{mesh}.{name}", metadata=metadata)


def cluster(name: str, timeout: str = "1s") -> XdsResource:
    eds = {"edsConfig": {"ads": {}, "resourceApiVersion": "V3"}}
    return resource(CLUSTER, {"name": name, "type": "EDS", "edsClusterConfig": eds, "connectTimeout": timeout})


def endpoints(name: str, *ports: int) -> XdsResource:
    found = [{"endpoint": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": p}}}} for p in ports]
    return resource(ENDPOINTS, {"clusterName": name, "endpoints": [{"lbEndpoints": found}]})


def listener(name: str, port: int, cluster_name: str = "a") -> XdsResource:
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "statPrefix": name,
        "cluster": cluster_name,
    }
    return resource(
        LISTENER,
        {
            "name": name,
            "address": {"socketAddress": {"address": "127.0.0.1", "portValue": port}},
            "filterChains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typedConfig": proxy}]}],
        },
    )


@dataclass
class Shelf:
    """The same for every proxy, as a keeper that renders nothing; ``attached`` are the connected ones."""

    layer: Layer = field(default_factory=Layer)
    attached: dict[ProxyFeed, tuple[ResourceKey, Abilities]] = field(default_factory=dict)
    is_ready: bool = True

    def attach(self, key: ResourceKey, abilities: Abilities) -> ProxyFeed:
        feed = ProxyFeed()
        self.attached[feed] = key, abilities
        if self.is_ready:
            feed.show((self.layer,))
        return feed

    def detach(self, feed: ProxyFeed) -> None:
        del self.attached[feed]
        feed.close()


@dataclass
class Lab:
    """See the module. ``runs`` counts the control planes; the store outlives them."""

    store: MemoryStore
    settings: Settings = field(default_factory=lambda: Settings(Authn("zone-1", False, False)))
    shelf: Shelf = field(default_factory=Shelf)
    answers: list[tuple[ResourceKey, str]] = field(default_factory=list)
    runs: int = 0
    connections: int = 0
    cable: Cable | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Lab"]:
        """One run of the control plane."""
        self.runs += 1
        instance, metrics = f"cp-{self.runs}", CollectorRegistry()
        rng = random.Random(self.runs)
        insights = ProxyInsights(self.store, Latest({}), lambda _: None, instance, now, rng)
        here = ControlPlane(self.store, REGISTRY, now, rng, metrics, instance)
        self.xds = XdsServer(
            here, self.shelf, insights, self.settings, lambda key, type_url: self.answers.append((key, type_url))
        )
        self.metrics = metrics
        self.grpc = GrpcServer(self.xds.handlers, None, metrics=RpcMetrics(CollectorRegistry()), raise_bugs=True)
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            await nursery.start(insights.run)
            self.serving = trio.CancelScope()
            await nursery.start(self._serve)
            yield self
            nursery.cancel_scope.cancel()

    async def _serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self.serving:
            await self.xds.run(task_status=task_status)

    @asynccontextmanager
    async def dial(self) -> AsyncIterator[Channel]:
        """A connection of a proxy; ``cable`` is the newest one's."""
        ours, theirs = memory_stream_pair()
        self.connections += 1
        self.cable = Cable(ours)
        self.nursery.start_soon(self.grpc.serve_connection, theirs, f"10.0.0.{self.connections}:1000")
        async with channel_over(self.cable, peer="control plane") as channel:
            yield channel

    @asynccontextmanager
    async def delta(self, who: Node | None = None, *, token: str = "", types: tuple[str, ...] = ()) -> Any:
        """A delta stream of a proxy, having asked for these types as a whole."""
        async with self.dial() as channel, channel.stream(DELTA_AGGREGATED, authorization(token)) as stream:
            proxy = Delta(stream)
            for type_url in types or (CLUSTER,):
                await proxy.ask(DeltaRequest(type_url, node=who))
                who = None
            yield proxy

    @asynccontextmanager
    async def sotw(self, who: Node | None = None, *, token: str = "", types: tuple[str, ...] = ()) -> Any:
        """A state-of-the-world stream."""
        async with self.dial() as channel, channel.stream(STREAM_AGGREGATED, authorization(token)) as stream:
            proxy = State(stream)
            for type_url in types or (CLUSTER,):
                await proxy.ask(StateRequest(type_url, node=who))
                who = None
            yield proxy

    async def put(self, *documents: dict[str, Any]) -> None:
        await self.store.write([Put(decode_document(d, REGISTRY)) for d in documents])

    def counted(self, name: str, label: str) -> dict[str, float]:
        """The sums of a metric by one of its labels."""
        found: dict[str, float] = {}
        for metric in self.metrics.collect():
            for sample in metric.samples:
                if sample.name == name:
                    found[sample.labels[label]] = found.get(sample.labels[label], 0) + sample.value
        return found

    def dataplane(self, key: ResourceKey = WEB) -> Dataplane | None:
        stored = self.store.get(key)
        return None if stored is None else stored.spec

    def insight(self, key: ResourceKey = WEB) -> DataplaneInsight | None:
        stored = self.store.get(ResourceKey(f"{key.kind}Insight", key.mesh, key.name))
        return None if stored is None else stored.spec


def authorization(token: str) -> list[tuple[str, str]]:
    return [("authorization", token)] if token else []


@dataclass
class Delta:
    """A proxy's end of a delta stream."""

    stream: Any

    async def ask(self, request: DeltaRequest) -> None:
        await self.stream.send(wire.encode_request(request))

    async def take(self) -> DeltaResponse:
        data = await self.stream.receive()
        assert data is not None
        return wire.decode_response(data)

    async def ack(self, response: DeltaResponse, **more: Any) -> None:
        await self.ask(DeltaRequest(response.type_url, nonce=response.nonce, **more))

    async def taken(self) -> tuple[str, list[str], list[str]]:
        """The next response, acknowledged: type, names, removed names."""
        response = await self.take()
        await self.ack(response)
        return response.type_url, [e.name for e in response.resources], list(response.removed)

    async def is_silent(self, seconds: float = 5.0) -> bool:
        return await silent(self.stream, seconds)


@dataclass
class State:
    """A proxy's end of a state-of-the-world stream."""

    stream: Any

    async def ask(self, request: StateRequest) -> None:
        await self.stream.send(state_wire.encode_request(request))

    async def take(self) -> StateResponse:
        data = await self.stream.receive()
        assert data is not None
        return state_wire.decode_response(data)

    async def ack(self, response: StateResponse, *names: str, **more: Any) -> None:
        await self.ask(StateRequest(response.type_url, names, response.version, response.nonce, **more))

    async def is_silent(self, seconds: float = 5.0) -> bool:
        return await silent(self.stream, seconds)


async def silent(stream: Any, seconds: float) -> bool:
    with trio.move_on_after(seconds) as scope:
        await stream.receive()
    return scope.cancelled_caught


@asynccontextmanager
async def lab(**options: Any) -> AsyncIterator[Lab]:
    """A lab with a mesh, the keys of tokens, and clusters a and b behind a listener."""
    made = Lab(MemoryStore(now), **options)
    secrets = [
        Resource(ResourceKey("Secret", "default", "dataplane-token-signing-key-default-1"), Secret(data=KEY)),
        Resource(ResourceKey("GlobalSecret", "", "zone-token-signing-key-1"), Secret(data=ZONE_KEY)),
    ]
    await made.put({"type": "Mesh", "name": "default"})
    await made.store.write([Put(s) for s in secrets])
    made.shelf.layer.put([cluster("a"), cluster("b"), endpoints("a", 1), endpoints("b", 2), listener("in", 1000)])
    async with made.running():
        yield made


def dataplane_token(it: Lab, **claims: Any) -> str:
    return access.issue_dataplane_token(it.store, "default", timedelta(hours=1), now(), **claims)


def zone_token(it: Lab, scope: str, zone: str = "zone-1") -> str:
    return access.issue_zone_token(it.store, zone, [scope], timedelta(hours=1), now())
