import json
import random
from datetime import timedelta

import pytest
import trio
from prometheus_client import CollectorRegistry

from meshd.app.status import global_status, zone_status
from meshd.cli.known import registry
from meshd.kds.client import ZoneKds, ZoneStatus
from meshd.kds.health import ZoneState
from meshd.kds.keeper import ControlPlane
from meshd.kds.quarantine import Direction, Quarantined
from meshd.kds.server import GlobalKds, RefusedConnection
from meshd.model.resource import ResourceKey
from meshd.store.memory import MemoryStore
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


async def test_a_zone_shows_its_link_what_it_waits_for_and_what_is_held_back(here):
    kds = ZoneKds(here, "zone-a", unreachable, random.Random(1))
    kds.status.publish(
        ZoneStatus(
            connected=True,
            since=NOW,
            complete=frozenset({"Mesh"}),
            wanted=frozenset({"Mesh", "Secret", "Config"}),
            rejected={"Dataplane": "too old"},
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
            "waitingFor": ["Config", "Secret"],
            "rejected": {"Dataplane": "too old"},
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
