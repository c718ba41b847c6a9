"""A resolver with so many names and nothing else; or, with ``--busy``, a whole control plane in the same process."""

import argparse
import logging
import random
from datetime import UTC, datetime
from types import MappingProxyType

import trio
from prometheus_client import CollectorRegistry

from meshd.app.process import settle_memory
from meshd.dns.service import Resolver
from meshd.dns.settings import Address, DnsSettings
from meshd.kinds import KINDS
from meshd.kinds.mesh import Mesh
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey, Spec
from meshd.policies import discover
from meshd.runtime.latest import Latest
from meshd.store.memory import MemoryStore
from meshd.store.store import Put
from meshd.topology.keeper import Keeper, VipSettings
from meshd.topology.view import MeshView, Vip
from tests.bench.dns.names import addresses
from tests.bench.loop.subject import service

CHANGES_A_WRITE = 100
"""As KDS brings them."""


def view(count: int) -> MeshView:
    vips = {n.removesuffix(".mesh"): Vip(a, MappingProxyType({80: n}), (n,)) for n, a in addresses(count)}
    mesh = Resource(ResourceKey("Mesh", "", "default"), Spec())
    none: MappingProxyType[str, object] = MappingProxyType({})
    return MeshView("default", "zone-a", "1", mesh, none, none, none, vips, none, none)  # type: ignore[arg-type]


async def change(store: MemoryStore, count: int, per_s: int) -> None:
    """Change the services in turns."""
    rng, generation = random.Random(1), 1
    while True:
        generation += 1
        for first in range(0, count, CHANGES_A_WRITE):
            changed = range(first, min(count, first + CHANGES_A_WRITE))
            await store.write([Put(service(i, generation)) for i in changed])
            await trio.sleep(rng.uniform(0.5, 1.5) * CHANGES_A_WRITE / per_s)


async def main(port: int, count: int, workers: int, busy: int, own_thread: bool) -> None:
    settings = DnsSettings(listen=Address("127.0.0.1", port), own_thread=own_thread, workers=workers)
    async with trio.open_nursery() as nursery:
        views: Latest = Latest({})
        if busy:
            store = MemoryStore(lambda: datetime.now(UTC))
            registry = Registry((*KINDS, *(policy.type for policy in discover())))
            mesh = Resource(ResourceKey("Mesh", "", "default"), Mesh())
            await store.write([Put(mesh), *(Put(service(i, 1)) for i in range(count))])
            keeper = Keeper(store, registry, "zone-a", VipSettings(), lambda: datetime.now(UTC), CollectorRegistry())
            await nursery.start(lambda task_status: keeper.run(task_status=task_status))
            views = keeper.views
            nursery.start_soon(change, store, count, busy)
        else:
            views = Latest({"default": view(count)})
        resolver = Resolver(settings, views, "default", Latest(None), CollectorRegistry())
        await nursery.start(lambda task_status: resolver.run(task_status=task_status))
        settle_memory()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--busy", type=int, default=0, help="changes a second of the services of a control plane")
    parser.add_argument("--in-loop", action="store_true", help="no thread of its own")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    trio.run(main, given.port, given.count, given.workers, given.busy, not given.in_loop)
