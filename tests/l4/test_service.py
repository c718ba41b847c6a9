"""The engine as a service: under which name it counts."""

import random
from dataclasses import replace

import trio
from prometheus_client import CollectorRegistry

from meshd.ca.identity import no_credentials
from meshd.l4.metrics import Metrics
from meshd.l4.service import Engine
from meshd.runtime.latest import Latest
from tests.l4.lab import Allow, dataplane, egress, view


async def test_proxies_of_one_name_in_two_meshes_are_counted_apart():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    web = dataplane("web", gateway="web")
    proxies = [web, replace(web, key=replace(web.key, mesh="other")), egress(0)]

    def engine(proxy):
        return Engine(
            Latest(proxy),
            Latest({name: view(name=name) for name in ("default", "other")}),
            lambda mesh, *_: Latest(no_credentials(mesh)),
            lambda *_: Allow(),
            metrics,
            random.Random(1),
        )

    async with trio.open_nursery() as nursery:
        for proxy in proxies:
            await nursery.start(engine(proxy).run)
        (family,) = [f for f in registry.collect() if f.name == "meshd_l4_listeners"]
        nursery.cancel_scope.cancel()
    assert {s.labels["proxy"] for s in family.samples} == {
        "Dataplane/default/web",
        "Dataplane/other/web",
        "ZoneEgress/egress",
    }
