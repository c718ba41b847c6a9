"""What real Kuma 2.14.3 control planes said, replayed to ours: each must answer as it did when it was recorded.

``recorded/*.jsonl.gz`` were made by running ``kuma-cp`` against meshd. Every line is a step, in the order of time:

- ``{"open": CALL, "connection": N, "metadata": [[key, value]...]}``: the zone opened a sync call.
- ``{"call", "connection", "way": "in", "data"}``: the bytes (base64) of a gRPC message from Kuma.
- ``{"call", "connection", "way": "out", "kind", ...}``: what meshd sent then; of a response the names of resources,
  of a request whether it was the first of its kind or a NACK.
- ``{"put": document}``, ``{"delete": document}``: somebody changed a resource at meshd.
- ``{"end": true}``: the connection ended, by kill -9 of Kuma.

The order of kinds among each other, and so nonces, are meshd's own business: nonces in Kuma's answers are translated.
What other services of meshd make (signing keys, insights) is left out.
"""

import base64
import gzip
import json
import random
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path

import trio
from prometheus_client import CollectorRegistry
from trio.testing import memory_stream_pair

from meshd.discovery import DeltaRequest, DeltaResponse, wire
from meshd.kds.admission import AdmittedZone
from meshd.kds.client import ZoneKds
from meshd.kds.ledger import State
from meshd.kds.quarantine import Direction
from meshd.kds.server import GLOBAL_TO_ZONE, HEALTH_CHECK, SYNC, ZONE_TO_GLOBAL
from meshd.model import codec
from meshd.model import labels as label
from meshd.model.errors import UnavailableError
from meshd.model.resource import Resource, ResourceKey
from meshd.rpc import GrpcServer, RpcMetrics, channel_over
from meshd.store.store import Put
from tests.kds.lab import REGISTRY, Lab, control_plane, lab

RECORDED = Path(__file__).parent / "recorded"
MADE_ELSEWHERE = {"ServiceInsight", "Config", "GlobalSecret", "Secret"}
"""Kinds of which services beside KDS make resources, so that names differ from run to run."""
PATIENCE_S = 30
UNCHECKED = "0.0.0.0"


def steps(name: str) -> list[dict]:
    return [json.loads(line) for line in gzip.decompress((RECORDED / name).read_bytes()).splitlines()]


Call = tuple[int, str]


@dataclass
class Replay:
    """Plays Kuma's part. ``streams`` are the open calls, ``said`` what meshd sent on them, by kind and in order."""

    sends_requests: bool
    """Whether Kuma sends requests on GlobalToZoneSync: it is the zone."""
    streams: dict[Call, object] = field(default_factory=dict)
    said: dict[Call, dict[str, list]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    nonces: dict[tuple[Call, str, str], str] = field(default_factory=dict)
    nacks: list[str] = field(default_factory=list)
    news: trio.Event = field(default_factory=trio.Event)

    def says_requests(self, call: Call) -> bool:
        """Whether Kuma's messages on a call are requests."""
        return (call[1] == GLOBAL_TO_ZONE) == self.sends_requests

    async def listen(self, call: Call, stream) -> None:
        """Collect what meshd says on a call."""
        self.streams[call] = stream
        self.notify()
        while (data := await stream.receive()) is not None:
            message = (wire.decode_response if self.says_requests(call) else wire.decode_request)(data)
            self.said[call][message.type_url].append(message)
            self.notify()

    def notify(self) -> None:
        event, self.news = self.news, trio.Event()
        event.set()

    async def until(self, what, found) -> object:
        """Wait for ``found`` to return something."""
        with trio.move_on_after(PATIENCE_S):
            while not (value := found()):
                await self.news.wait()
            return value
        raise AssertionError(f"meshd did not do this: {what}")

    async def say(self, step: dict) -> None:
        """Send a recorded message; an answer names the nonce that meshd's response has this time."""
        call, data = (step["connection"], SYNC + step["call"]), base64.b64decode(step["data"])
        stream = await self.until(step["call"], lambda: self.streams.get(call))
        if self.says_requests(call):
            request = wire.decode_request(data)
            if request.error is not None:
                self.nacks.append(request.error.message)
            nonce = self.nonces.get((call, request.type_url, request.nonce), request.nonce)
            if nonce != request.nonce:
                data = wire.encode_request(replace(request, nonce=nonce))
        await stream.send(data)

    async def expect(self, step: dict) -> None:
        """Wait for what meshd said then."""
        call, kind = (step["connection"], SYNC + step["call"]), step["kind"]
        message = (await self.until(step, lambda: self.said[call][kind]))[0]
        del self.said[call][kind][0]
        if isinstance(message, DeltaResponse):
            self.nonces[call, kind, step["nonce"]] = message.nonce
            if kind not in MADE_ELSEWHERE:
                found = {"names": sorted(e.name for e in message.resources), "removed": sorted(message.removed)}
                assert found == {"names": step["names"], "removed": step["removed"]}, kind
        else:
            assert isinstance(message, DeltaRequest)
            assert (bool(message.error), not message.nonce) == (step["nack"], step["first"]), kind
            if message.nonce:
                assert message.nonce == step["nonce"]


def resource_of(document: dict) -> Resource:
    """The resource, also a Dataplane with an address that meshd's API refuses: Kuma is to have something to refuse."""
    if document.get("networking", {}).get("address") != UNCHECKED:
        return codec.decode_document(document, REGISTRY)
    networking = {**document["networking"], "address": "10.0.0.3"}
    valid = codec.decode_document({**document, "networking": networking}, REGISTRY)
    networking = valid.spec.networking.model_copy(update={"address": UNCHECKED})
    return replace(valid, spec=valid.spec.model_copy(update={"networking": networking}))


async def change(it: Lab, at: str, step: dict) -> None:
    if "put" in step:
        resource = resource_of(step["put"])
        labels = {} if at == "global" else {label.ORIGIN: label.ORIGIN_ZONE, label.ZONE: at}
        owner = ResourceKey("Mesh", "", resource.key.mesh) if resource.key.mesh else None
        await it.store(at).write([Put(replace(resource, labels=labels, owner=owner))])
    else:
        document = step["delete"]
        await it.delete(at, document["type"], document["name"], document["mesh"])
    await it.settle(0.1)


def connections(name: str) -> list[list[dict]]:
    """The steps, by the connection that they are about."""
    parts: list[list[dict]] = [[]]
    for step in steps(name):
        if "end" in step:
            parts.append([])
        else:
            parts[-1].append(step)
    return parts


async def play_zone(it: Lab, replay: Replay, part: list[dict]) -> None:
    """Play one connection of a Kuma zone, which is killed at its end."""
    async with it.dial("kuma-1") as channel, AsyncExitStack() as calls, trio.open_nursery() as nursery:
        for step in part:
            if "open" in step:
                path, said = SYNC + step["open"], [(key, value) for key, value in step["metadata"]]
                stream = await calls.enter_async_context(channel.stream(path, said))
                nursery.start_soon(replay.listen, (step["connection"], path), stream)
            elif "way" in step:
                await (replay.say if step["way"] == "in" else replay.expect)(step)
            else:
                await change(it, "global", step)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()


async def test_a_kuma_zone_under_a_meshd_global(autojump_clock) -> None:
    kuma = AdmittedZone("kuma-1", ip_network("10.0.0.0/8"))
    async with lab("global", admitted=(kuma,)) as it:
        replay = Replay(sends_requests=True)
        for part, dataplanes in zip(connections("kuma-zone.jsonl.gz"), (["dp-1"], []), strict=True):
            await play_zone(it, replay, part)
            # Every kind that a Kuma zone asks for was answered, and all of it is settled. Its store was in memory.
            assert it.names("global", "Dataplane") == dataplanes
            assert states(it.global_kds.sync_of("kuma-1")[Direction.SENT]) == {State.IN_SYNC}
            assert it.global_kds.quarantine.items.value == ()
            await it.settle()
            assert not it.global_kds.zones.value["kuma-1"].online
        assert [nack.partition("\n")[0] for nack in replay.nacks] == ["user error"]


def states(kinds) -> set:
    return {one.state for one in kinds}


async def test_a_meshd_zone_under_a_kuma_global(autojump_clock) -> None:
    parts = connections("kuma-global.jsonl.gz")
    replay = Replay(sends_requests=False)

    def call(path: str):
        async def serve(stream) -> None:
            if stream.connection not in numbers:
                numbers[stream.connection] = len(numbers)
            number = numbers[stream.connection]
            with trio.CancelScope() as scope:
                scopes[number].append(scope)
                await replay.listen((number, path), stream)
            raise UnavailableError("killed")

        return serve

    numbers: dict[object, int] = {}
    scopes: dict[int, list] = defaultdict(list)

    async def well(stream) -> None:
        await stream.receive()
        await stream.send(b"")

    handlers = {GLOBAL_TO_ZONE: call(GLOBAL_TO_ZONE), ZONE_TO_GLOBAL: call(ZONE_TO_GLOBAL), HEALTH_CHECK: well}
    server = GrpcServer(handlers, None, metrics=RpcMetrics(CollectorRegistry()))
    async with trio.open_nursery() as nursery:
        it = Lab(nursery)

        @asynccontextmanager
        async def dial():
            ours, theirs = memory_stream_pair()
            nursery.start_soon(server.serve_connection, theirs, "10.0.0.1:1")
            async with channel_over(ours) as channel:
                yield channel

        store = it.store("meshd-1")
        kds = ZoneKds(control_plane(store, "z-1"), "meshd-1", dial, random.Random(1))
        await nursery.start(lambda task_status: kds.run(task_status=task_status))
        # Kuma's store was in memory: without its Mesh nothing in it is left.
        for number, (part, dataplanes) in enumerate(zip(parts, (["dp-1"], []), strict=True)):
            for step in part:
                if "open" in step:
                    continue  # meshd opens its calls by itself
                if "way" in step:
                    await (replay.say if step["way"] == "in" else replay.expect)(step)
                else:
                    await change(it, "meshd-1", step)
            await trio.sleep(1)
            sync = kds.sync()
            assert states(sync[Direction.SENT]) == {State.IN_SYNC}
            assert states(sync[Direction.RECEIVED]) <= {State.IN_SYNC, State.WAITING}
            assert kds.quarantine.items.value == ()
            assert it.names("meshd-1", "Dataplane") == dataplanes
            for scope in scopes[number]:
                scope.cancel()
        assert it.names("meshd-1", "MeshTimeout") == []
        nursery.cancel_scope.cancel()
