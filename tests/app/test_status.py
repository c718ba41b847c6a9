import json
import random
from datetime import timedelta

import pytest
import trio
from prometheus_client import CollectorRegistry

from meshd.app.status import global_status, global_sync, zone_status, zone_sync
from meshd.cli.known import registry
from meshd.kds.client import ZoneKds, ZoneStatus
from meshd.kds.health import ZoneState
from meshd.kds.keeper import ControlPlane
from meshd.kds.quarantine import Direction, Quarantined
from meshd.kds.server import GlobalKds, RefusedConnection
from meshd.model.resource import ResourceKey
from meshd.store.memory import MemoryStore
from tests.kds.lab import dataplane, lab, mesh
from tests.rest.support import NOW

LATER = NOW + timedelta(seconds=1)


@pytest.fixture
def here():
    return ControlPlane(MemoryStore(lambda: NOW), registry(), lambda: NOW, CollectorRegistry(), "cp-1", "0.1.0")


async def unreachable():
    raise OSError("nobody there")


async def test_a_global_shows_its_zones_and_whom_it_turned_away(here):
    kds = GlobalKds(here)
    kds.zones.publish(
        {
            "b": ZoneState("b", online=False, since=LATER, reason="no health check for 20 s"),
            "a": ZoneState("a", True, NOW, address="10.0.0.1:5", instance_id="x-1", authenticated=True),
        }
    )
    kds.refused.publish((RefusedConnection("c", "10.0.0.3:7", NOW, "no token"),))
    shown = json.loads(json.dumps(global_status(kds)))
    assert shown == {
        "zones": [
            {
                "name": "a",
                "online": True,
                "since": "2026-03-04T05:06:07Z",
                "reason": "",
                "address": "10.0.0.1:5",
                "instanceId": "x-1",
                "authenticated": True,
            },
            {
                "name": "b",
                "online": False,
                "since": "2026-03-04T05:06:08Z",
                "reason": "no health check for 20 s",
                "address": "",
                "instanceId": "",
                "authenticated": False,
            },
        ],
        "refused": [{"zone": "c", "address": "10.0.0.3:7", "at": "2026-03-04T05:06:07Z", "reason": "no token"}],
        "withheld": [],
        "quarantine": [],
    }


async def test_a_global_shows_what_it_sends_nothing_of(here, autojump_clock):
    here.store.unreadable = lambda: {ResourceKey("Mesh", "", "b"): "no json", ResourceKey("Mesh", "", "a"): "no json"}
    kds = GlobalKds(here)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: kds.run(task_status=task_status))
        assert global_status(kds)["withheld"] == [{"kind": "Mesh", "unreadable": "Mesh a, Mesh b"}]
        nursery.cancel_scope.cancel()


async def test_a_zone_shows_its_link_and_what_is_held_back(here):
    kds = ZoneKds(here, "zone-a", unreachable, random.Random(1))
    kds.status.publish(
        ZoneStatus(
            connected=True,
            since=NOW,
            complete=frozenset({"Mesh"}),
            wanted=frozenset({"Mesh", "Secret", "Config"}),
        )
    )
    held = Quarantined("zone-a", next(iter(Direction)), "Mesh", "", "default", "cannot be read")
    kds.quarantine.items.publish((held,))
    assert json.loads(json.dumps(zone_status(kds))) == {
        "global": {
            "connected": True,
            "synced": False,
            "since": "2026-03-04T05:06:07Z",
            "error": "",
        },
        "quarantine": [
            {
                "zone": "zone-a",
                "direction": held.direction.value,
                "kind": "Mesh",
                "mesh": "",
                "name": "default",
                "reason": "cannot be read",
            }
        ],
    }


def test_a_standalone_zone_has_no_global():
    assert zone_status(None) == {"global": None}


async def test_how_global_and_zone_agree_is_told_at_both_ends(autojump_clock):
    async with lab("global") as it:
        await it.put("global", mesh())
        await it.put("zone-a", dataplane("dp-1"))
        await it.start("zone-a")
        await it.settle(7)
        at_global = json.loads(json.dumps(global_sync(it.global_kds, "zone-a")))
        at_zone = json.loads(json.dumps(zone_sync(it.zone_kds("zone-a"), "zone-a", "zone-a")))
        assert (at_global["zone"], at_global["online"], at_zone["online"]) == ("zone-a", True, True)
        [sent] = [one for one in at_zone["sent"] if one["kind"] == "Dataplane"]
        [received] = [one for one in at_global["received"] if one["kind"] == "Dataplane"]
        assert {**received, "at": sent["at"]} == sent
        assert sent == {
            "kind": "Dataplane",
            "status": "in sync",
            "state": "in sync",
            "sequence": 1,
            "count": 1,
            "digest": sent["digest"],
            "at": "2026-01-01T00:00:00Z",
            "behind": 0,
            "since": None,
            "reason": "",
        }
        assert len(sent["digest"]) == 32


async def test_of_whom_there_is_nothing_to_tell(here, autojump_clock):
    async with lab("global") as it:
        assert global_sync(it.global_kds, "zone-a") is None
        await it.put("global", {"type": "Zone", "name": "zone-a", "enabled": True})
        away = global_sync(it.global_kds, "zone-a")
        assert (away["online"], away["sent"], away["received"]) == (False, [], [])
        assert "has not connected" in away["reason"]
    kds = ZoneKds(here, "zone-a", unreachable, random.Random(1))
    assert zone_sync(kds, "zone-a", "zone-b") is None
    assert zone_sync(None, "zone-a", "zone-a") is None
    assert zone_sync(kds, "zone-a", "zone-a")["reason"] == "not tried yet"
