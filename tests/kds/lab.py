"""A global and zones in one process over memory streams, for tests in virtual time."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import trio
from prometheus_client import CollectorRegistry
from trio.testing import memory_stream_pair

from meshd.kds.admin.client import Inspect
from meshd.kds.admission import AdmittedZone
from meshd.kds.client import ZoneKds
from meshd.kds.keeper import ControlPlane
from meshd.kds.server import GlobalKds
from meshd.kinds import KINDS
from meshd.model import codec
from meshd.model import labels as label
from meshd.model.errors import UnavailableError
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.policies import discover
from meshd.rpc import Channel, GrpcServer, RpcMetrics, channel_over
from meshd.store.memory import MemoryStore
from meshd.store.store import Delete, Put

REGISTRY = Registry((*KINDS, *(policy.type for policy in discover())))
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ZONES = ("zone-a", "zone-b", "zone-c")
ANYWHERE = tuple(AdmittedZone(name, ip_network("10.0.0.0/8")) for name in ZONES)


def now() -> datetime:
    """The time of the virtual clock."""
    return BEGIN + timedelta(seconds=trio.current_time())


def control_plane(store: MemoryStore, instance_id: str) -> ControlPlane:
    return ControlPlane(store, REGISTRY, now, CollectorRegistry(), instance_id, "2.14.3")


class Cable(trio.abc.Stream):
    """One end of a connection that can be made to lose everything, as a link that is down does.

    It can be made to hold everything as well: so a link looks that is down for a while, since TCP sends again.
    """

    def __init__(self, inner: trio.StapledStream) -> None:
        self._inner = inner
        self._held: bytearray | None = None
        self._flowing = trio.Event()
        self._flowing.set()
        self._up = trio.Event()
        self._up.set()
        self._closed = trio.Event()

    def vanish(self) -> None:
        """From now on nothing arrives, either way."""
        self._up = trio.Event()

    def hold(self) -> None:
        """From now on what is sent waits, both ways."""
        self._held, self._flowing = bytearray(), trio.Event()

    async def release(self) -> None:
        """What waited arrives."""
        held, self._held = self._held, None
        self._flowing.set()
        if held:
            await self._inner.send_all(bytes(held))

    async def send_all(self, data: bytes) -> None:
        if self._held is not None:
            self._held += data
            await trio.lowlevel.checkpoint()
        elif self._up.is_set():
            await self._inner.send_all(data)
        else:
            await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await self._inner.receive_some(max_bytes)
        await self._flowing.wait()
        if not self._up.is_set():
            await self._closed.wait()
            raise trio.ClosedResourceError
        return data

    async def aclose(self) -> None:
        self._closed.set()
        if self._up.is_set():
            await self._inner.aclose()


@dataclass
class Process:
    """A control plane that can be stopped and started again; its store lives on, as one on disk does."""

    name: str
    store: MemoryStore
    scope: trio.CancelScope | None = None
    kds: GlobalKds | ZoneKds | None = None
    starts: int = 0

    @property
    def is_running(self) -> bool:
        return self.scope is not None


@dataclass
class Lab:
    """See the module. ``cables`` are the zones' newest connections."""

    nursery: trio.Nursery
    admitted: tuple[AdmittedZone, ...] = ANYWHERE
    tokens: dict[str, str] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    cables: dict[str, Cable] = field(default_factory=dict)
    reachable: dict[str, bool] = field(default_factory=dict)
    inspect: Inspect | None = None
    server: GrpcServer | None = None
    connections: int = 0

    def store(self, name: str) -> MemoryStore:
        return self.process(name).store

    def process(self, name: str) -> Process:
        if name not in self.processes:
            self.processes[name] = Process(name, MemoryStore(now))
        return self.processes[name]

    @property
    def global_kds(self) -> GlobalKds:
        kds = self.processes["global"].kds
        assert isinstance(kds, GlobalKds)
        return kds

    def zone_kds(self, name: str) -> ZoneKds:
        kds = self.processes[name].kds
        assert isinstance(kds, ZoneKds)
        return kds

    async def start(self, *names: str, zone: str = "") -> None:
        """Start processes; ``zone`` is another name for the zone than the process has."""
        for name in names:
            process = self.process(name)
            process.starts += 1
            here = control_plane(process.store, f"{name}-host-{process.starts}")
            if name == "global":
                await self.nursery.start(self._run_global, process, here)
            else:
                await self.nursery.start(self._run_zone, process, here, zone or name)

    async def _run_global(
        self, process: Process, here: ControlPlane, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        process.kds = kds = GlobalKds(here, unauthenticated_zones=self.admitted)
        with trio.CancelScope() as process.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(lambda task_status: kds.run(task_status=task_status))
                self.server = GrpcServer(kds.handlers, None, metrics=RpcMetrics(CollectorRegistry()), raise_bugs=True)
                self.serving = nursery
                task_status.started()
                await trio.sleep_forever()

    async def _run_zone(
        self,
        process: Process,
        here: ControlPlane,
        zone: str,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        process.kds = kds = ZoneKds(
            here,
            zone,
            lambda: self.dial(process.name),
            random.Random(1),
            token=lambda: self.tokens.get(process.name),
            inspect=self.inspect,
        )
        with trio.CancelScope() as process.scope:
            await kds.run(task_status=task_status)

    async def stop(self, name: str) -> None:
        """Kill a process at once."""
        process = self.process(name)
        if process.scope is not None:
            process.scope.cancel()
            process.scope = None
        await trio.testing.wait_all_tasks_blocked()

    @asynccontextmanager
    async def dial(self, name: str) -> AsyncIterator[Channel]:
        """A channel from ``name`` to the global."""
        if not self.process("global").is_running or not self.reachable.get(name, True):
            raise UnavailableError("connection refused")
        ours, theirs = memory_stream_pair()
        cable = self.cables[name] = Cable(ours)
        self.connections += 1
        assert self.server is not None
        self.serving.start_soon(self.server.serve_connection, theirs, f"10.0.0.1:{self.connections}")
        async with channel_over(cable, peer="global") as channel:
            yield channel

    # ------------------------------------------------------------------ resources

    async def put(self, name: str, *documents: dict) -> None:
        """Store resources as REST at ``name`` would: a zone labels what it makes."""
        resources = [codec.decode_document(document, REGISTRY) for document in documents]
        if name != "global":
            own = {label.ORIGIN: label.ORIGIN_ZONE, label.ZONE: name}
            resources = [Resource(r.key, r.spec, labels={**own, **r.labels}) for r in resources]
        await self.store(name).write([Put(r) for r in resources])

    async def delete(self, name: str, kind: str, resource: str, mesh: str = "") -> None:
        await self.store(name).write([Delete(ResourceKey(kind, mesh, resource))])

    def names(self, name: str, kind: str) -> list[str]:
        return [r.display_name for r in self.store(name).list(kind)]

    async def settle(self, seconds: float = 1.0) -> None:
        """Let so much virtual time pass."""
        await trio.sleep(seconds)


@asynccontextmanager
async def lab(*names: str, **options: object) -> AsyncIterator[Lab]:
    """A lab with these processes running."""
    async with trio.open_nursery() as nursery:
        made = Lab(nursery, **options)
        await made.start(*names)
        yield made
        nursery.cancel_scope.cancel()


def mesh(name: str = "default", **spec: object) -> dict:
    return {"type": "Mesh", "name": name, **spec}


def dataplane(name: str, service: str = "web", mesh: str = "default", **tags: str) -> dict:
    return {
        "type": "Dataplane",
        "mesh": mesh,
        "name": name,
        "networking": {
            "address": "10.0.0.9",
            "inbound": [{"port": 8080, "tags": {"kuma.io/service": service, **tags}}],
        },
    }


def ingress(name: str, address: str = "10.1.0.1", **spec: object) -> dict:
    return {
        "type": "ZoneIngress",
        "name": name,
        "networking": {"address": address, "port": 10001, "advertisedAddress": address, "advertisedPort": 10001},
        **spec,
    }


def permission(name: str, action: str = "Allow") -> dict:
    return {
        "type": "MeshTrafficPermission",
        "mesh": "default",
        "name": name,
        "spec": {
            "targetRef": {"kind": "Mesh"},
            "from": [{"targetRef": {"kind": "Mesh"}, "default": {"action": action}}],
        },
    }
