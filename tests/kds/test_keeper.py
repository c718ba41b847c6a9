"""The streams' own rules, apart from either role."""

import pytest
import trio
from prometheus_client import CollectorRegistry

from meshd.kds.keeper import Quarantine, apply, refresh, settled
from meshd.kds.merge import on_zone
from meshd.kds.metrics import Metrics
from meshd.kds.outbox import Outbox
from meshd.kds.quarantine import Direction, Refusal
from meshd.model import codec
from meshd.model.errors import ConflictError, UnavailableError
from meshd.model.resource import ResourceKey
from meshd.store.memory import MemoryStore
from meshd.store.store import Put
from tests.kds.lab import REGISTRY, ingress, lab, mesh, now, permission
from tests.kds.test_merge import received, sent_down

KEY = ResourceKey("Mesh", "", "m")


async def test_a_quarantine_logs_transitions_and_counts(caplog) -> None:
    registry = CollectorRegistry()
    quarantine = Quarantine(Metrics(registry, "global"))
    for _ in range(3):
        quarantine.after_batch("z", Direction.RECEIVED, "Mesh", [Refusal(KEY, "bad")], complete=True)
    assert len(caplog.records) == 1
    assert registry.get_sample_value("meshd_kds_global_quarantined", {"direction": "received"}) == 1
    quarantine.forget("z")
    assert registry.get_sample_value("meshd_kds_global_quarantined", {"direction": "received"}) == 0
    assert quarantine.items.value == ()


async def test_replacing_what_cannot_be_sent_drops_what_can_again() -> None:
    quarantine = Quarantine(Metrics(CollectorRegistry(), "zone"))
    other = ResourceKey("Secret", "", "s")
    quarantine.replace("", Direction.SENT, {KEY: "x", other: "y"})
    quarantine.replace("", Direction.SENT, {other: "y"})
    assert [q.name for q in quarantine.items.value] == ["s"]


async def test_a_lost_race_is_merged_again() -> None:
    class Racing(MemoryStore):
        lost = 0

        async def write(self, edits):
            if self.lost < 3:
                self.lost += 1
                raise ConflictError("somebody was faster")
            return await super().write(edits)

    store = Racing(now)
    await apply(store, REGISTRY["Mesh"], received("Mesh", sent_down(mesh())[1]), on_zone)
    assert [r.key.name for r in store.list("Mesh")] == ["default"]


async def test_a_race_that_is_always_lost_is_weather() -> None:
    class Hopeless(MemoryStore):
        async def write(self, edits):
            raise ConflictError(f"somebody was faster than these {len(edits)}")

    with pytest.raises(UnavailableError, match="somebody was faster"):
        await apply(Hopeless(now), REGISTRY["Mesh"], received("Mesh", sent_down(mesh())[1]), on_zone)


async def test_a_burst_is_one_change(autojump_clock) -> None:
    store = MemoryStore(now)
    with store.watch() as feed:
        for number in range(3):
            await store.write([Put(codec.decode_document(mesh(f"m-{number}"), REGISTRY))])
        began = trio.current_time()
        assert {key.name for key in await settled(feed, 0.02)} == {"m-0", "m-1", "m-2"}
        assert trio.current_time() - began <= 0.021


async def test_refreshing_in_pieces_names_every_change() -> None:
    store = MemoryStore(now)
    made = [codec.decode_document(mesh(f"m-{number}"), REGISTRY) for number in range(50)]
    await store.write([Put(r) for r in made])
    outbox = Outbox(REGISTRY, ["Mesh"], lambda _, resource: resource)
    changed = await refresh(outbox, [r.key for r in made], store)
    assert len(changed["Mesh"]) == 50


async def test_what_the_store_cannot_read_is_shown_until_it_is_written_again(autojump_clock) -> None:
    async with lab("global", "zone-a") as it:
        broken = {ResourceKey("Mesh", "", "default"): "no json"}
        it.store("global").unreadable = lambda: broken
        it.store("zone-a").unreadable = lambda: broken
        for name in ("global", "zone-a"):
            await it.put(name, mesh("other") if name == "global" else ingress("in"))
        await it.settle()
        for kds in (it.global_kds, it.zone_kds("zone-a")):
            [held] = kds.quarantine.items.value
            assert (held.zone, held.name, held.reason) == ("", "default", "cannot be read from the store: no json")
        broken.clear()
        await it.put("global", mesh())
        await it.settle()
        assert it.global_kds.quarantine.items.value == ()


async def lose(it, key: ResourceKey, broken: dict[ResourceKey, str]) -> None:
    """What a row of the global's that turns undecodable comes to: it is not there after a restart, but reported."""
    await it.stop("global")
    await it.delete("global", key.kind, key.name, key.mesh)
    broken[key] = "unknown field"
    it.store("global").unreadable = lambda: broken
    await it.start("global")


DENY = ResourceKey("MeshTrafficPermission", "default", "deny")


async def test_a_policy_that_the_global_cannot_read_does_not_vanish_from_the_zones(autojump_clock, caplog) -> None:
    broken: dict[ResourceKey, str] = {}
    async with lab("global", "zone-a") as it:
        await it.put("global", mesh(), permission("deny", "Deny"), permission("allow"))
        await it.settle()
        await lose(it, DENY, broken)
        await it.put("global", mesh("other"), permission("new"))
        await it.start("zone-b")
        await it.settle(30)
        # nothing of the kind is sent, neither to who has it nor to a newcomer; everything else is
        assert it.names("zone-a", DENY.kind) == ["allow", "deny"]
        assert it.names("zone-b", DENY.kind) == []
        assert it.names("zone-b", "Mesh") == it.names("zone-a", "Mesh") == ["default", "other"]
        status = it.zone_kds("zone-b").status.value
        assert status.connected
        assert status.wanted - status.complete == {DENY.kind}
        assert dict(it.global_kds.withheld) == {DENY.kind: str(DENY)}
        said = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
        assert len(said) == 1
        assert f"kind={DENY.kind}: no zone is sent anything of it, for {DENY} cannot be read" in said[0]

        await it.put("global", permission("deny", "Deny"))  # written anew, and the store says so
        broken.clear()
        await it.settle()
        assert not it.global_kds.withheld
        for zone in ("zone-a", "zone-b"):
            assert it.names(zone, DENY.kind) == ["allow", "deny", "new"]
            assert it.zone_kds(zone).status.value.synced


@pytest.mark.parametrize(
    "key",
    [
        ResourceKey("ZoneIngress", "", "in"),  # its zone sends it again
        ResourceKey("GlobalSecret", "", "admin-user-token"),  # no zone has it
        ResourceKey("Zone", "", "zone-a"),  # not sent
        ResourceKey("Gone", "", "x"),  # no kind of this version
    ],
)
async def test_what_no_zone_would_miss_holds_back_nothing(autojump_clock, key) -> None:
    async with lab("global") as it:
        await it.put("global", mesh())
        it.store("global").unreadable = lambda: {key: "unknown field"}
        await it.stop("global")
        await it.start("global", "zone-a")
        await it.settle()
        assert not it.global_kds.withheld
        assert it.zone_kds("zone-a").status.value.synced
