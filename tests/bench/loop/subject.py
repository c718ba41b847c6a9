"""The process under test: a zone's store and topology keeper, the resolver, and two engines that speak mTLS.

Prints one line of JSON with its ports; then takes ``idle``, ``busy`` and ``stop`` on stdin and answers each with what
it has used so far. Busy: each of 1,000 services changes once a second, is encoded for KDS and flows through the keeper
to resolver and engines.
"""

import argparse
import gc
import json
import random
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

import trio
from prometheus_client import CollectorRegistry

from meshd.ca.identity import Credentials, no_credentials
from meshd.dns.service import Resolver
from meshd.dns.settings import Address, DnsSettings
from meshd.kinds import KINDS
from meshd.kinds.mesh import Mesh
from meshd.l4.metrics import Metrics
from meshd.l4.service import Engine
from meshd.model.codec import spec_to_wire
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.runtime.latest import Latest
from meshd.runtime.thread import LoopThread
from meshd.store.memory import MemoryStore
from meshd.store.store import Put
from meshd.topology.keeper import Keeper, VipSettings
from meshd.topology.view import MeshView
from tests.l4 import pki
from tests.l4.lab import Allow, dataplane, free_port

SERVICES = 1000
WRITES_PER_S = 10
"""Transactions; each changes a tenth of the services, as KDS brings them."""


def service(index: int, generation: int) -> Resource:
    """A dataplane whose port moves with every generation."""
    return dataplane(f"dp-{index}", inbound=[(10_000 + generation % 2, 80, f"service-{index}")], address="10.0.0.1")


class Churn:
    """The control plane's work, while it is wanted."""

    def __init__(self, store: MemoryStore, registry: Registry) -> None:
        self._store = store
        self._type = registry["Dataplane"]
        self.wanted = Latest(value=False)
        self.changes = 0

    async def run(self) -> None:
        generation = 0
        share = SERVICES // WRITES_PER_S
        due = trio.current_time()
        while True:
            while not self.wanted.value:
                await self.wanted.newer_than(self.wanted.version)
                due = trio.current_time()
            for part in range(WRITES_PER_S):
                resources = [service(i, generation) for i in range(part * share, (part + 1) * share)]
                for i, resource in enumerate(resources):
                    spec_to_wire(self._type, resource.spec)
                    if i % 10 == 9:
                        await trio.lowlevel.checkpoint()  # steps of a millisecond or two, as everywhere
                await self._store.write([Put(r) for r in resources])
                self.changes += share
                due += 1 / WRITES_PER_S
                await trio.sleep_until(due)
            generation += 1


class Steps(trio.abc.Instrument):
    """The longest time that each task kept the loop, by task name: what everybody else in the loop waits for."""

    def __init__(self) -> None:
        self.longest_ms: dict[str, float] = {}
        self._began = 0.0

    def before_task_step(self, _: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        took_ms = (time.thread_time() - self._began) * 1e3
        if took_ms > 2 and took_ms > self.longest_ms.get(task.name, 0.0):
            self.longest_ms[task.name] = round(took_ms, 1)


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
    return [
        Engine(Latest(proxy), followed, credentials, lambda *_: Allow(), metrics, random.Random(1)) for proxy in proxies
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
    registry = Registry(KINDS)
    store = MemoryStore(lambda: datetime.now(UTC))
    inbound_port, outbound_port = free_port(), free_port()
    proxies = [
        dataplane("server", inbound=[(inbound_port, arguments.application, "echo")]),
        dataplane("client", outbound=[(outbound_port, "echo")], gateway="client"),
    ]
    mtls = {"enabledBackend": "ca", "backends": [{"name": "ca", "type": "builtin"}]}
    mesh = Resource(ResourceKey("Mesh", "", "default"), Mesh.model_validate({"mtls": mtls}))
    await store.write([Put(mesh), *(Put(p) for p in proxies), *(Put(service(i, 1)) for i in range(SERVICES))])
    keeper = Keeper(store, registry, "zone-a", VipSettings(), lambda: datetime.now(UTC), CollectorRegistry())
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
        if arguments.gc_freeze:
            gc.collect()
            gc.freeze()
        nursery.start_soon(churn.run)
        print(json.dumps({"dns": resolver.address.port, "engine": outbound_port}), flush=True)
        stdin = trio.lowlevel.FdStream(0)
        while command := (await stdin.receive_some(64)).decode().strip():
            churn.wanted.publish(command == "busy")
            used: dict[str, object] = {"steps_ms": dict(steps.longest_ms)} if steps else {}
            if steps:
                steps.longest_ms.clear()
            used |= {"cpu_s": time.process_time(), "changes": churn.changes, "views": keeper.views.version}
            print(json.dumps(used), flush=True)
            if command == "stop":
                break
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--dns", choices=["loop", "thread"], required=True)
    parser.add_argument("--engine", choices=["loop", "thread"], required=True)
    parser.add_argument("--application", type=int, required=True, help="port of the echo application")
    parser.add_argument("--switch-interval", type=float, default=0.0)
    parser.add_argument("--gc-freeze", action="store_true", help="leave what is there at the start out of collections")
    parser.add_argument("--steps", action="store_true", help="report the longest steps of tasks, in CPU time")
    trio.run(main, parser.parse_args())
