"""Real GlobalKds and ZoneKds over memory streams, in virtual time."""

import trio

from meshd.kds.ledger import State
from meshd.kds.quarantine import Direction
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


async def test_a_policy_whose_name_the_global_took_is_held_back_alone_until_it_is_free(autojump_clock) -> None:
    """A Kuma global would end the stream that brings it, and with it everything else, again and again."""
    async with lab("global", "zone-a") as it:
        await it.put("global", mesh())
        await it.put("zone-a", permission("p"), dataplane("dp-1"))
        await it.settle()
        [copy] = it.store("global").list("MeshTrafficPermission")
        await it.delete("zone-a", "MeshTrafficPermission", "p", "default")
        await it.settle()
        await it.put("global", permission(copy.key.name, "Deny"))
        await it.settle()
        streams = it.connections
        for _ in range(2):  # also for a zone that was started anew
            await it.put("zone-a", permission("p"), permission("q"), dataplane("dp-2"))
            await it.settle()
            kds = it.zone_kds("zone-a")
            [held] = [q for q in kds.quarantine.items.value if q.direction is Direction.SENT]
            assert (held.kind, held.name) == ("MeshTrafficPermission", "p")
            assert copy.key.name in held.reason
            [sync] = [s for s in kds.sync()[Direction.SENT] if s.kind == "MeshTrafficPermission"]
            assert sync.state is State.REFUSED
            assert copy.key.name in sync.reason
            assert it.global_kds.quarantine.items.value == ()
            assert sorted(it.names("global", "MeshTrafficPermission")) == sorted([copy.key.name, "q"])
            assert it.names("global", "Dataplane") == ["dp-1", "dp-2"]
            assert it.connections == streams
            await it.stop("zone-a")
            await it.start("zone-a")
            await it.settle()
            streams += 1
        await it.delete("global", "MeshTrafficPermission", copy.key.name, "default")
        await it.settle()
        assert it.zone_kds("zone-a").quarantine.items.value == ()
        assert sorted(it.names("global", "MeshTrafficPermission")) == ["p", "q"]
        assert {s.state for s in it.zone_kds("zone-a").sync()[Direction.SENT]} == {State.IN_SYNC}
        assert it.connections == streams
