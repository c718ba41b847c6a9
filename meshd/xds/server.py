"""The control plane's end of a proxy's calls: ADS in both forms, and HDS.

Nothing is answered before the proxy's token was checked; who a stream is is decided by its token and first node, never
by what it sends later.
"""

import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, cast

import trio
from prometheus_client import CollectorRegistry

from meshd.discovery import Answer, Node
from meshd.discovery.fields import peek, text
from meshd.insight.streams import Stream
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.mesh import Mesh
from meshd.model.errors import PeerError, UnavailableError, Violation
from meshd.model.registry import Registry
from meshd.model.resource import ResourceKey
from meshd.rpc import Handler, RpcError, ServerStream, Status
from meshd.rpc.status import as_rpc_error
from meshd.store.store import Store
from meshd.xds import hds
from meshd.xds.abilities import Abilities
from meshd.xds.admin import refusal
from meshd.xds.metadata import ProxyMetadata, abilities, read
from meshd.xds.metrics import Metrics
from meshd.xds.proxies import refused_parts
from meshd.xds.resources import LISTENER, ProxyFeed
from meshd.xds.service import AdminAt, Proxies, Settings
from meshd.xds.session import DELTA, STATE_OF_THE_WORLD, Form, Session, decoded

log = logging.getLogger(__name__)

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
STREAM_AGGREGATED = ADS + "StreamAggregatedResources"
DELTA_AGGREGATED = ADS + "DeltaAggregatedResources"
STREAM_HEALTH_CHECK = "/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck"
FIRST_REQUEST_S = 10.0
"""A call that says nothing for so long is ended."""
APPEAR_S = 30.0
"""Health discovery waits so long for a Dataplane: the stream of the same proxy that stores it may be later."""
REFUSED_S = 10.0
"""Health discovery is refused no sooner: Envoy asks for it again within a second, for ever, without a backoff."""
SHUTDOWN = "the control plane is shutting down"
LOGGED_REFUSALS = 1000
"""Reasons that are remembered so that each is logged once a proxy."""


class Keeper(Protocol):
    """Renders what each proxy is to have (``XdsKeeper``)."""

    def attach(self, key: ResourceKey, abilities: Abilities) -> ProxyFeed:
        """A proxy is connected."""

    def detach(self, feed: ProxyFeed) -> None:
        """It is not any more."""


class Insights(Protocol):
    """Tells operators of proxies (``ProxyInsights``)."""

    def open(self, stream: Stream) -> None:
        """A stream is served."""

    def touch(self, stream: Stream, *, hurry: bool = False) -> None:
        """Its counts changed."""

    def close(self, stream: Stream) -> None:
        """It is over."""

    def refuse(self, proxy: ResourceKey, reasons: tuple[Violation, ...]) -> None:
        """A proxy that is who it says is not served."""


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """What proxies' streams need of the process they end in.

    ``instance_id`` names this run of it; proxies see it. ``now`` is UTC. ``rng`` makes the ids of streams.
    """

    store: Store
    registry: Registry
    now: Callable[[], datetime]
    rng: random.Random
    metrics: CollectorRegistry
    instance_id: str


def nobody(proxy: ResourceKey, type_url: str) -> None:
    """Whom an answer of a proxy does not concern."""
    del proxy, type_url


class XdsServer:
    """A service. ``handlers`` go into the server of the proxies' port; ``run`` must be running for them to answer.

    ``on_answer`` is told of every ACK and NACK: the proxy and the type; see ``accepted``.
    """

    name = "xds server"

    def __init__(
        self,
        here: ControlPlane,
        keeper: Keeper,
        insights: Insights,
        settings: Settings,
        on_answer: Callable[[ResourceKey, str], None] = nobody,
    ) -> None:
        self._here = here
        self._store = here.store
        self._keeper = keeper
        self._insights = insights
        self._settings = settings
        self._metrics = Metrics(here.metrics)
        self._on_answer = on_answer
        self._proxies = Proxies(here.store, here.registry, settings, here.now, self._metrics)
        self._ready = trio.Event()
        self._probing: dict[ResourceKey, set[trio.Event]] = {}
        self._probes: set[trio.CancelScope] = set()
        self._refused: dict[str, str] = {}
        self.handlers: Mapping[str, Handler] = {
            STREAM_AGGREGATED: self._edge("ads", lambda stream: self._aggregated(stream, STATE_OF_THE_WORLD)),
            DELTA_AGGREGATED: self._edge("ads", lambda stream: self._aggregated(stream, DELTA)),
        }
        if settings.health is not None:
            probe = self._edge("hds", self._health_check, REFUSED_S)
            self.handlers = {**self.handlers, STREAM_HEALTH_CHECK: probe}

    def accepted(self, proxy: ResourceKey, type_url: str) -> Mapping[str, str]:
        """What a connected proxy has of a type and has said so: versions by name. Empty if it is not connected."""
        live = self._proxies.live.get(proxy)
        return live.session.accepted(type_url) if live is not None and live.session is not None else {}

    def admin_of(self, proxy: ResourceKey) -> AdminAt | None:
        """Where the Envoy of a connected proxy says that its admin API is; None if it is not connected."""
        live = self._proxies.live.get(proxy)
        return live.admin if live is not None else None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then streams end with UNAVAILABLE, and what proxies brought stays for the next run."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._proxies.run)
            nursery.start_soon(self._follow_dataplanes)
            self._ready.set()
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._ready = trio.Event()
                for live in list(self._proxies.live.values()):
                    live.cut = SHUTDOWN
                    live.scope.cancel()
                for scope in self._probes:
                    scope.cancel()

    # ------------------------------------------------------------------ the edge

    def _edge(
        self, service: str, serve: Callable[[ServerStream], Awaitable[None]], refused_after_s: float = 0.0
    ) -> Handler:
        """A handler that counts its streams, and logs and translates refusals, which it tells no sooner than said."""

        async def handle(stream: ServerStream) -> None:
            told_at = trio.current_time() + refused_after_s
            with self._metrics.streams.labels(service).track_inprogress():
                try:
                    await serve(stream)
                except Exception as error:
                    told = as_rpc_error(error)
                    if told is None:
                        raise
                    self._note_refused(service, stream, told)
                    if told.status is not Status.UNAVAILABLE:
                        await trio.sleep_until(told_at)
                    raise told from None

        return handle

    def _note_refused(self, service: str, stream: ServerStream, error: RpcError) -> None:
        self._metrics.refused.labels(service, error.status.name).inc()
        if error.status is Status.UNAVAILABLE:
            return
        host = stream.peer.rpartition(":")[0]
        if self._refused.get(host) != error.message:
            if len(self._refused) >= LOGGED_REFUSALS:
                self._refused.clear()
            self._refused[host] = error.message
            log.warning("%s stream from %s refused: %s", service, stream.peer, error)

    async def _first(self, stream: ServerStream, id_path: tuple[int, ...]) -> bytes:
        """The first request of a call that shows a token for the node whose id it has at ``id_path``."""
        await self._ready.wait()
        with trio.move_on_after(FIRST_REQUEST_S):
            data = await stream.receive()
            if data is None:
                raise RpcError(Status.INVALID_ARGUMENT, "the stream ended without a request")
            try:
                node_id = text(peek(data, id_path))
            except ValueError as error:
                raise PeerError(f"a message that is no request: {error}") from error
            if not node_id:
                raise PeerError("the first request of a stream must have a node with an id")
            self._proxies.check_bearer(stream, node_id)
            return data
        raise RpcError(Status.DEADLINE_EXCEEDED, f"no request within {FIRST_REQUEST_S:g} s")

    def _introduced(self, node: Node | None) -> tuple[Node, ProxyMetadata]:
        if node is None or not node.id:
            raise PeerError("the first request of a stream must have a node with an id")
        return node, read(node, self._here.registry)

    # ------------------------------------------------------------------ ADS

    async def _aggregated(self, stream: ServerStream, form: Form) -> None:
        request = decoded(form, await self._first(stream, form.id_path))
        node, metadata = self._introduced(request.node)
        async with self._proxies.connected(stream, metadata) as (live, resource):
            record = Stream(
                metadata.key,
                str(uuid.UUID(int=self._here.rng.getrandbits(128), version=4)),
                metadata.version,
                self._here.now(),
                metadata=metadata.shown,
            )
            can = abilities(metadata, resource)
            if reason := refusal(can):
                self._insights.refuse(metadata.key, (Violation(*reason),))
                raise PeerError(f"{metadata.key}: {reason[0]}: {reason[1]}")
            feed = self._keeper.attach(metadata.key, can)
            record.lacking = self._lacking(metadata.key)
            said = (record.lacking, record.refused)

            def answered(type_url: str, answer: Answer) -> None:
                nonlocal said
                if type_url == LISTENER:  # they change whenever the proxy's resource does
                    record.lacking = self._lacking(metadata.key)
                before, said = said, (record.lacking, record.refused)
                self._insights.touch(record, hurry=answer is Answer.NACK or said != before)
                self._on_answer(metadata.key, type_url)

            def explained() -> None:
                record.unrendered = feed.lacking
                self._insights.touch(record, hurry=True)

            feed.on_lacking = explained
            live.session = Session(
                stream,
                form,
                node,
                feed,
                record,
                instance_id=self._here.instance_id,
                metrics=self._metrics,
                on_answer=answered,
            )
            log.info("%s is connected from %s, %s", metadata.key, stream.peer, form.name)
            self._insights.open(record)
            serving = live.session.run(request)
            del (
                request
            )  # who comes back tells the version of all that it has; it need not be kept as long as the stream
            try:
                await serving
            finally:
                self._keeper.detach(feed)
                self._insights.close(record)
                log.info("%s is not connected any more: %s", metadata.key, live.cut or stream.failure or "ended")

    def _lacking(self, key: ResourceKey) -> tuple[Violation, ...]:
        """What of a Dataplane is not carried."""
        resource, mesh = self._store.get(key), self._store.get(ResourceKey("Mesh", "", key.mesh))
        if key.kind != "Dataplane" or resource is None or mesh is None:
            return ()
        has_mtls = cast("Mesh", mesh.spec).enabled_backend() is not None
        parts = (part.partition(": ") for part in refused_parts(resource, has_mtls=has_mtls))
        return tuple(Violation(field, why) for field, _, why in parts)

    # ------------------------------------------------------------------ HDS

    async def _health_check(self, stream: ServerStream) -> None:
        first = _report(await self._first(stream, hds.ID_PATH))
        _, metadata = self._introduced(first.node)
        key = metadata.key
        if key.kind != "Dataplane":
            raise PeerError(f"{key}: health discovery is for Dataplanes")
        with trio.CancelScope() as scope:
            self._probes.add(scope)
            try:
                await self._proxies.authenticated(stream, metadata, wait_s=APPEAR_S)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._specify, stream, metadata)
                    await self._take_reports(stream, key, first)
            finally:
                self._probes.discard(scope)
        raise UnavailableError(SHUTDOWN)

    async def _take_reports(self, stream: ServerStream, key: ResourceKey, first: hds.Report) -> None:
        if first.is_report:
            await self._proxies.report(key, first)
        while True:
            data = await stream.receive()
            if data is None:
                raise UnavailableError("the proxy ended its side of the stream")
            report = _report(data)
            if report.node is not None and report.node.id not in ("", f"{key.mesh}.{key.name}"):
                raise PeerError(f"the stream is that of {key}; its node cannot change")
            if report.is_report:
                await self._proxies.report(key, report)

    async def _specify(self, stream: ServerStream, metadata: ProxyMetadata) -> None:
        """Tell a proxy what to probe, now and whenever that changes."""
        settings = self._settings.health or hds.HealthSettings()
        told = b""
        while True:
            changed = trio.Event()
            self._probing.setdefault(metadata.key, set()).add(changed)
            try:
                resource = self._store.get(metadata.key)
                if resource is not None and isinstance(resource.spec, Dataplane):
                    wanted = hds.specifier(resource.spec, abilities(metadata, resource), settings)
                    if wanted != told:
                        told = wanted
                        await stream.send(wanted)
                await changed.wait()
            finally:
                waiting = self._probing[metadata.key]
                waiting.discard(changed)
                if not waiting:
                    del self._probing[metadata.key]

    async def _follow_dataplanes(self) -> None:
        """Wake who tells the proxies of Dataplanes that changed what to probe."""
        with self._store.watch(("Dataplane",)) as feed:
            while True:
                for key in await feed.take():
                    for waiting in self._probing.get(key, ()):
                        waiting.set()


def _report(data: bytes) -> hds.Report:
    try:
        return hds.decode(data)
    except ValueError as error:
        raise PeerError(f"a message that is no health report: {error}") from error
