"""The process under test: a zone's store and topology keeper, the resolver, and the engines of a whole zone.

Two Dataplanes that speak mTLS carry the load; a third owns the VIPs, and there are a ZoneIngress and a ZoneEgress, so
that every change of a service goes through every kind of table. Prints one line of JSON with its ports; then takes
``idle``, ``busy <changes per second> <changes per write>`` and ``stop`` on stdin and answers each with what it has used
so far. Busy: the services change in turns, each change is encoded for KDS and flows through store and keeper to
resolver and engines. 0 changes per second: as fast as it goes.
"""

import argparse
import gc
import json
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import trio
from prometheus_client import CollectorRegistry

from meshd.app.process import settle_memory
from meshd.ca.identity import Credentials, no_credentials
from meshd.dns.service import Resolver
from meshd.dns.settings import Address, DnsSettings
from meshd.kinds import KINDS
from meshd.kinds.mesh import Mesh
from meshd.l4.metrics import Metrics
from meshd.l4.render import Settings
from meshd.l4.service import Engine
from meshd.model.codec import spec_to_wire
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.policies import discover
from meshd.policies.mesh_traffic_permission.spec import MeshTrafficPermission
from meshd.runtime.latest import Latest
from meshd.runtime.thread import LoopThread
from meshd.store.memory import MemoryStore
from meshd.store.store import Put
from meshd.topology.keeper import Keeper, VipSettings
from meshd.topology.view import MeshView
from tests.l4 import pki
from tests.l4.lab import dataplane, egress, ingress
from tests.ports import free_port

SERVICES = 1000


def service(index: int, generation: int) -> Resource:
    """A dataplane whose port moves with every generation."""
    return dataplane(f"dp-{index}", inbound=[(10_000 + generation % 2, 80, f"service-{index}")], address="10.0.0.1")


@dataclass(frozen=True, slots=True)
class Pace:
    """How the services change: so many a second (0: as fast as it goes), so many in a write."""

    per_s: int = 0
    per_write: int = 0


class Churn:
    """The control plane's work, while it is wanted."""

    def __init__(self, store: MemoryStore, registry: Registry) -> None:
        self._store = store
        self._type = registry["Dataplane"]
        self.wanted = Latest(Pace())
        self.changes = 0

    async def run(self) -> None:
        """Change the services in turns, from the first to the last and again."""
        due = trio.current_time()
        while True:
            pace = self.wanted.value
            if not pace.per_write:
                await self.wanted.newer_than(self.wanted.version)
                due = trio.current_time()
                continue
            resources = []
            for _ in range(pace.per_write):
                generation, index = divmod(self.changes, SERVICES)
                resources.append(service(index, generation))
                spec_to_wire(self._type, resources[-1].spec)
                self.changes += 1
                await trio.lowlevel.checkpoint()  # making them is not what is measured
            await self._store.write([Put(r) for r in resources])
            due = max(due + pace.per_write / pace.per_s, trio.current_time() - 1) if pace.per_s else 0
            await trio.sleep_until(due)


class Steps(trio.abc.Instrument):
    """How long tasks kept the loop, by task name: what everybody else in the loop waits for."""

    def __init__(self) -> None:
        self.taken_ms: dict[str, list[float]] = {}
        self._began = self._collecting = 0.0
        gc.callbacks.append(self._collected)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            took_ms = (time.thread_time() - self._collecting) * 1e3
            self.taken_ms.setdefault(f"(garbage of generation {info['generation']})", []).append(took_ms)

    def before_task_step(self, _: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        took_ms = (time.thread_time() - self._began) * 1e3
        name = f"{getattr(task.coro, '__qualname__', '')} {task.name}"
        self.taken_ms.setdefault(name.rpartition("meshd.")[2], []).append(took_ms)

    def summary(self) -> dict[str, str]:
        """By task: how many steps of more than 0.5 ms of how many, the longest, and all together."""
        found = {}
        for name, taken in sorted(self.taken_ms.items(), key=lambda item: -sum(item[1])):
            long = sum(ms > 0.5 for ms in taken)
            if sum(taken) > 5:
                found[name] = f"{long} of {len(taken)} long, longest {max(taken):.2f} ms, all {sum(taken):.0f} ms"
        self.taken_ms.clear()
        return found


def engines_of(
    views: Latest[Mapping[str, MeshView]], proxies: list[Resource], thread: LoopThread | None
) -> list[Engine]:
    """Engines for this loop or, with a thread, for that one; their certificates come from cells of this loop."""
    issued: dict[tuple[str, ...], Latest[Credentials]] = {}

    def issue(mesh: str, owner: str, uris: tuple[str, ...]) -> Latest[Credentials]:
        services = tuple(u.rpartition("/")[2] for u in uris if u.startswith("spiffe"))
        return issued.setdefault((mesh, owner, *uris), Latest(pki.credentials(mesh, *services)))

    def credentials(mesh: str, owner: str, uris: tuple[str, ...]) -> Latest[Credentials]:
        if thread is None:
            return issue(mesh, owner, uris)
        return thread.mirror_later(lambda: issue(mesh, owner, uris), no_credentials(mesh))

    metrics = Metrics(CollectorRegistry())
    followed = views if thread is None else thread.mirror(views)
    (permit_for,) = (policy.permit_for for policy in discover() if policy.permit_for is not None)
    return [
        Engine(
            Latest(proxy),
            followed,
            credentials,
            permit_for,
            metrics,
            random.Random(1),
            Settings(owns_vips=proxy.key.name == "host"),
        )
        for proxy in proxies
    ]


async def run_engines(engines: list[Engine], *, task_status: trio.TaskStatus[None]) -> None:
    """Started once all are ready to carry connections."""
    async with trio.open_nursery() as nursery:
        for engine in engines:
            await nursery.start(lambda task_status, engine=engine: engine.run(task_status=task_status))
            seen = 0
            while not engine.ready.value:
                seen, _ = await engine.ready.newer_than(seen)
        task_status.started()


async def main(arguments: argparse.Namespace) -> None:
    registry = Registry((*KINDS, *(policy.type for policy in discover())))
    store = MemoryStore(lambda: datetime.now(UTC))
    inbound_port, outbound_port = free_port(), free_port()
    proxies = [
        dataplane("server", inbound=[(inbound_port, arguments.application, "echo")]),
        dataplane("client", outbound=[(outbound_port, "echo")], gateway="client"),
        dataplane("host", gateway="host"),
        ingress(free_port()),
        egress(free_port()),
    ]
    mtls = {"enabledBackend": "ca", "backends": [{"name": "ca", "type": "builtin"}]}
    mesh = Resource(ResourceKey("Mesh", "", "default"), Mesh.model_validate({"mtls": mtls}))
    allow = {"from": [{"targetRef": {"kind": "Mesh"}, "default": {"action": "Allow"}}]}
    permission = Resource(
        ResourceKey("MeshTrafficPermission", "default", "all"), MeshTrafficPermission.model_validate(allow)
    )
    given = [mesh, permission, *proxies, *(service(i, 1) for i in range(SERVICES))]
    await store.write([Put(resource) for resource in given])
    vips = VipSettings(port=free_port())
    keeper = Keeper(store, registry, "zone-a", vips, lambda: datetime.now(UTC), CollectorRegistry())
    churn = Churn(store, registry)
    steps = Steps() if arguments.steps else None
    if steps:
        trio.lowlevel.add_instrument(steps)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: keeper.run(task_status=task_status))
        settings = DnsSettings(listen=Address("127.0.0.1", 0), own_thread=arguments.dns == "thread")
        resolver = Resolver(settings, keeper.views, "default", Latest(None), CollectorRegistry())
        await nursery.start(lambda task_status: resolver.run(task_status=task_status))
        thread = LoopThread("meshd-engine") if arguments.engine == "thread" else None
        run = partial(run_engines, engines_of(keeper.views, proxies, thread))
        await nursery.start(run if thread is None else partial(thread.run, run))
        if arguments.switch_interval:
            sys.setswitchinterval(arguments.switch_interval)
        settle_memory()
        nursery.start_soon(churn.run)
        print(json.dumps({"dns": resolver.address.port, "engine": outbound_port}), flush=True)
        stdin = trio.lowlevel.FdStream(0)
        while command := (await stdin.receive_some(64)).decode().strip():
            what, *pace = command.split()
            churn.wanted.publish(Pace(*map(int, pace)))
            used: dict[str, object] = {"steps": steps.summary()} if steps else {}
            used |= {"cpu_s": time.process_time(), "changes": churn.changes, "views": keeper.views.version}
            print(json.dumps(used), flush=True)
            if what == "stop":
                break
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--dns", choices=["loop", "thread"], required=True)
    parser.add_argument("--engine", choices=["loop", "thread"], required=True)
    parser.add_argument("--application", type=int, required=True, help="port of the echo application")
    parser.add_argument("--switch-interval", type=float, default=0.0)
    parser.add_argument("--steps", action="store_true", help="report how long the steps of tasks are, in CPU time")
    trio.run(main, parser.parse_args())
