"""What a zone says of itself."""

from meshd.model.versions import KUMA
from tests.rest.support import GLOBAL, STANDALONE, Plane, federated

ZONE = {"type": "Zone", "name": "zone-a", "enabled": True}


def kind(name, sequence, state="in sync", at="2026-03-04T05:06:00Z"):
    return {"kind": name, "sequence": sequence, "state": state, "at": at}


SENT = [kind("Dataplane", 2), kind("Workload", 0, at=None), kind("ZoneIngress", 3, "refused", "2026-03-04T05:06:05Z")]
SYNC = {"zone": "zone-a", "online": True, "since": "2026-03-04T05:00:00Z", "reason": "", "sent": SENT, "received": []}


async def insight(plane):
    await plane.add(ZONE, ZONE | {"name": "zone-b"})
    items = (await plane.get("/zones/_overview")).json()["items"]
    found = {item["name"]: item.get("zoneInsight") for item in items}
    assert found.pop("zone-b") is None
    single = (await plane.get("/zones/zone-a/_overview")).json()["zoneInsight"]
    assert single == (found["zone-a"] or {})
    return found["zone-a"]


async def test_a_federated_zone_is_online_while_its_global_is_there(tmp_path):
    plane = Plane(tmp_path, federated())
    plane.syncs["zone-a"] = SYNC
    assert await insight(plane) == {
        "subscriptions": [
            {
                "id": "instance-1",
                "zoneInstanceId": "instance-1",
                "connectTime": "2026-03-04T05:00:00Z",
                "version": {"kumaCp": {"version": KUMA, "kumaCpGlobalCompatible": True}},
                "status": {
                    "lastUpdateTime": "2026-03-04T05:06:05Z",
                    "total": {"responsesSent": "5", "responsesAcknowledged": "4", "responsesRejected": "1"},
                    "stat": {
                        "Dataplane": {"responsesSent": "2", "responsesAcknowledged": "2"},
                        "ZoneIngress": {
                            "responsesSent": "3",
                            "responsesAcknowledged": "2",
                            "responsesRejected": "1",
                        },
                    },
                },
            }
        ]
    }


async def test_it_is_offline_since_it_lost_its_global(tmp_path):
    plane = Plane(tmp_path, federated())
    plane.syncs["zone-a"] = SYNC | {"online": False, "sent": []}
    [subscription] = (await insight(plane))["subscriptions"]
    assert subscription["disconnectTime"] == "2026-03-04T05:00:00Z"


async def test_a_standalone_zone_says_nothing(tmp_path):
    assert await insight(Plane(tmp_path, STANDALONE)) is None


async def test_a_global_knows_its_zones_by_their_insights(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    plane.syncs["zone-a"] = SYNC
    assert await insight(plane) is None
