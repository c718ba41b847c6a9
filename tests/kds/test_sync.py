"""Real GlobalKds and ZoneKds over memory streams, in virtual time."""

import trio

from meshd.model import labels as label
from tests.kds.lab import dataplane, ingress, lab, mesh, permission


async def test_a_zone_gets_everything_and_sends_everything(autojump_clock: trio.testing.MockClock) -> None:
    async with lab() as it:
        await it.put("global", mesh(), permission("allow-all"))
        await it.put("zone-a", dataplane("dp-1"))
        await it.start("global", "zone-a")
        await it.settle()
        assert it.names("zone-a", "Mesh") == ["default"]
        [policy] = it.store("zone-a").list("MeshTrafficPermission")
        assert policy.key.name.startswith("allow-all-")
        assert policy.labels[label.ORIGIN] == "global"
        [copy] = it.store("global").list("Dataplane")
        assert copy.display_name == "dp-1"
        assert copy.labels[label.ZONE] == "zone-a"
        assert copy.owner.name == "zone-a"
        assert it.zone_kds("zone-a").status.value.synced
        assert it.global_kds.zones.value["zone-a"].online
        [insight] = it.store("global").list("ZoneInsight")
        assert insight.spec.is_online


async def test_an_ingress_reaches_the_other_zone_within_100_ms(autojump_clock: trio.testing.MockClock) -> None:
    async with lab("global", "zone-a", "zone-b") as it:
        await it.settle()
        began = trio.current_time()
        await it.put("zone-b", ingress("in-b"))
        while not it.names("zone-a", "ZoneIngress"):
            await trio.sleep(0.001)
        assert trio.current_time() - began < 0.1
        [copy] = it.store("zone-a").list("ZoneIngress")
        assert copy.spec.zone == "zone-b"
