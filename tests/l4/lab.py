"""Engines, applications and hostile peers on loopback, for the engine's socket tests."""

import random
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

import trio
from prometheus_client import CollectorRegistry

from meshd.ca.identity import Credentials
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.mesh import Mesh
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.l4.metrics import Metrics
from meshd.l4.render import Settings
from meshd.l4.service import Engine
from meshd.l4.session import Limits
from meshd.l4.table import Permit, Timeouts, Verdict
from meshd.model.resource import Resource, ResourceKey
from meshd.runtime.latest import Latest
from meshd.topology.view import Endpoint, MeshView, Reach, ServiceView, Vip
from tests.l4 import pki

LOCAL = "127.0.0.1"
FAST = Timeouts(connect_s=0.3, handshake_s=0.3, patience_s=1.0)


@dataclass
class Allow:
    """Lets in clients of these services; None: everybody."""

    services: frozenset[str] | None = None

    def decide(self, uris: Sequence[str]) -> Verdict:
        allowed = self.services is None or any(
            u.rpartition("/")[2] in self.services for u in uris if u.startswith("spiffe")
        )
        return Verdict(allowed, "test")


def mesh(name: str = "default", mode: str | None = "STRICT") -> Resource:
    body = (
        {"mtls": {"enabledBackend": "ca", "backends": [{"name": "ca", "type": "builtin", "mode": mode}]}}
        if mode
        else {}
    )
    return Resource(ResourceKey("Mesh", "", name), Mesh.model_validate(body))


def endpoint(
    port: int,
    *,
    address: str = LOCAL,
    zone: str = "a",
    weight: int = 1,
    priority: int = 0,
    reach=Reach.INSTANCE,
    **tags,
):
    return Endpoint(address, port, zone, weight, priority, reach, tags)


def service(name: str, *endpoints: Endpoint, external: Resource | None = None) -> ServiceView:
    return ServiceView(name, "tcp", endpoints, len(endpoints), {}, external)


def view(
    *services: ServiceView,
    mode: str | None = "STRICT",
    egress=(),
    ingress=(),
    vips: dict[str, Vip] | None = None,
    name="default",
) -> MeshView:
    def by_name(views):
        return {s.name: s for s in views}

    return MeshView(
        name, "a", "1", mesh(name, mode), by_name(services), by_name(egress), by_name(ingress), vips or {}, {}, {}
    )


def vip(address: str, **ports: int) -> Vip:
    return Vip(IPv4Address(address), {port: name for name, port in ports.items()}, ())


def dataplane(name: str, *, inbound=(), outbound=(), gateway: str = "", address: str = LOCAL) -> Resource:
    """``inbound``: (port, application port, service); ``outbound``: (port, service)."""
    networking: dict[str, object] = {
        "address": address,
        "inbound": [{"port": p, "servicePort": a, "tags": {"kuma.io/service": s}} for p, a, s in inbound],
        "outbound": [{"port": p, "tags": {"kuma.io/service": s}} for p, s in outbound],
    }
    if gateway:
        networking["gateway"] = {"tags": {"kuma.io/service": gateway}}
    return Resource(ResourceKey("Dataplane", "default", name), Dataplane.model_validate({"networking": networking}))


def ingress(port: int) -> Resource:
    body = {"networking": {"address": LOCAL, "port": port}}
    return Resource(ResourceKey("ZoneIngress", "", "ingress"), ZoneIngress.model_validate(body))


def egress(port: int) -> Resource:
    body = {"networking": {"address": LOCAL, "port": port}}
    return Resource(ResourceKey("ZoneEgress", "", "egress"), ZoneEgress.model_validate(body))


@dataclass
class Running:
    engine: Engine
    proxy: Latest[Resource]
    views: Latest
    registry: CollectorRegistry
    cells: dict[tuple, Latest[Credentials]]
    permit: Latest[Permit]

    def allow(self, permit: Permit) -> None:
        """Change the permissions, as a change of the mesh's policies does."""
        self.permit.publish(permit)
        self.views.publish({name: replace(v, policies=dict(v.policies)) for name, v in self.views.value.items()})

    def count(self, name: str, **labels: str) -> float:
        """The sum of a metric over the series that have these labels."""
        return sum(
            s.value
            for family in self.registry.collect()
            for s in family.samples
            if s.name == f"meshd_l4_{name}" and labels.items() <= s.labels.items()
        )


@asynccontextmanager
async def running(
    proxy: Resource,
    *views: MeshView,
    permit: Permit | None = None,
    limits: Limits | None = None,
    settings: Settings | None = None,
    seed: int = 1,
    material: Latest[int] | None = None,
) -> AsyncIterator[Running]:
    views_cell = Latest({v.mesh_name: v for v in views})
    permit_cell: Latest[Permit] = Latest(permit or Allow())
    cells: dict[tuple, Latest[Credentials]] = {}

    def credentials(mesh_name: str, owner: str, uris: tuple[str, ...]) -> Latest[Credentials]:
        services = tuple(u.rpartition("/")[2] for u in uris if u.startswith("spiffe"))
        return cells.setdefault((mesh_name, owner, uris), Latest(pki.credentials(mesh_name, *services)))

    registry = CollectorRegistry()
    proxy_cell = Latest(proxy)
    engine = Engine(
        proxy_cell,
        views_cell,
        credentials,
        lambda *_: permit_cell.value,
        Metrics(registry),
        random.Random(seed),
        settings or Settings(outbound=FAST, egress=FAST, ingress=FAST),
        limits or Limits(drain_s=0.2),
        material=material,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: engine.run(task_status=task_status))
        yield Running(engine, proxy_cell, views_cell, registry, cells, permit_cell)
        nursery.cancel_scope.cancel()


@dataclass
class App:
    """A TCP application; ``hits`` counts connections, ``port`` is where it listens."""

    port: int
    hits: list[int] = field(default_factory=list)
    stop: trio.CancelScope = field(default_factory=trio.CancelScope)


async def echo(stream: trio.SocketStream) -> None:
    """Send back what comes, then end in turn."""
    async for data in stream:
        await stream.send_all(data)
    await stream.send_eof()


async def silent(_: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def hang_up(_: trio.SocketStream) -> None:
    return


def says(text: bytes) -> Callable:
    """Say who it is at once, then end."""

    async def handler(stream: trio.SocketStream) -> None:
        await stream.send_all(text)
        await stream.send_eof()
        async for _ in stream:
            pass

    return handler


@asynccontextmanager
async def application(handler: Callable, port: int = 0, address: str = LOCAL) -> AsyncIterator[App]:
    listeners = await trio.open_tcp_listeners(port, host=address)
    app = App(listeners[0].socket.getsockname()[1])

    async def serve_one(stream: trio.SocketStream) -> None:
        app.hits.append(1)
        try:
            async with stream:
                await handler(stream)
        except trio.BrokenResourceError:
            pass

    async def serve() -> None:
        with app.stop:
            await trio.serve_listeners(serve_one, listeners)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield app
        nursery.cancel_scope.cancel()


async def talk(port: int, data: bytes = b"", address: str = LOCAL) -> bytes:
    """Send ``data``, end, and read to the end."""
    with trio.fail_after(5):
        async with await trio.open_tcp_stream(address, port) as stream:
            await stream.send_all(data)
            await stream.send_eof()
            return b"".join([part async for part in stream])


async def is_cut(attempt: Coroutine[object, object, bytes]) -> bool:
    """Whether an exchange ended without any answer, however it was ended."""
    try:
        return await attempt == b""
    except (OSError, trio.BrokenResourceError, ssl.SSLError):
        return True


async def tally(port: int, times: int) -> Counter[bytes]:
    counts: Counter[bytes] = Counter()
    for _ in range(times):
        counts[await talk(port)] += 1
    return counts


def with_service(base: MeshView, *services: ServiceView) -> MeshView:
    return replace(base, services={s.name: s for s in services}, version=base.version + "+")
