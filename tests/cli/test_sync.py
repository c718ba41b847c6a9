import json

import pytest
import trio

from tests.cli.support import run
from tests.rest.support import GLOBAL, STANDALONE, Plane, federated


def kind(name, status="in sync", **more):
    state = status.partition(":")[0].partition(" by")[0]
    return {
        "kind": name,
        "status": status,
        "state": state,
        "sequence": 3,
        "count": 2,
        "digest": "0123456789abcdef" * 2,
        "at": "2026-01-01T00:00:00Z",
        **more,
    }


def zone(name, *, sent=(), received=(), reason=""):
    since = "2026-01-01T00:00:00Z"
    return {"zone": name, "online": not reason, "since": since, "reason": reason, "sent": sent, "received": received}


@pytest.fixture
def plane(tmp_path):
    made = Plane(tmp_path, GLOBAL)
    trio.run(made.add, *({"type": "Zone", "name": name, "enabled": True} for name in ("a", "b")))
    waiting = kind("ZoneEgress", "waiting", at=None)
    made.syncs["a"] = zone("a", sent=[kind("Mesh")], received=[waiting])
    made.syncs["b"] = zone(
        "b",
        sent=[kind("Mesh"), kind("MeshTimeout", "behind by 2 since 2026-01-01T00:00:00Z")],
        received=[kind("Dataplane", "refused: default/x: it has no spec")],
        reason="the connection ended",
    )
    return made


def test_a_zone_that_is_in_sync_is_one_line(plane):
    result = run("sync", "a", plane=plane)
    assert result.output == "zone a: online since 2026-01-01T00:00:00Z, 2 kinds in sync\n"
    assert result.exit_code == 0


def test_what_is_not_in_sync_is_shown_and_counts(plane):
    result = run("sync", plane=plane)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0].startswith("zone a: online")
    assert lines[1] == ("zone b: offline (the connection ended) since 2026-01-01T00:00:00Z, 2 of 3 kinds not in sync")
    assert lines[2].split() == ["DIRECTION", "KIND", "STATUS", "SEQUENCE", "COUNT", "DIGEST", "AGE"]
    assert lines[3].startswith("sent")
    assert "behind by 2 since 2026-01-01T00:00:00Z" in lines[3]
    assert lines[4].startswith("received")
    assert "refused: default/x: it has no spec" in lines[4]
    assert len(lines) == 5


def test_that_a_zone_is_offline_is_said_once(plane):
    told = kind("Workload", "unknown: offline: the connection ended")
    plane.syncs["b"] = zone("b", sent=[kind("Mesh")], received=[told, told], reason="the connection ended")
    result = run("sync", "b", plane=plane)
    assert result.output == (
        "zone b: offline (the connection ended) since 2026-01-01T00:00:00Z, 2 of 3 kinds not in sync\n"
    )
    assert result.exit_code == 1
    assert run("sync", "b", "-a", plane=plane).output.count("unknown: offline") == 2
    plane.syncs["b"] = zone("b", received=[told])
    assert run("sync", "b", plane=plane).output.count("unknown: offline") == 1


def test_everything_can_be_shown(plane):
    lines = run("sync", "--all", "a", plane=plane).output.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["sent", "Mesh"], ["received", "ZoneEgress"]]
    assert "0123456789ab " in lines[2]


def test_programs_get_all_of_it(plane):
    result = run("sync", "-o", "json", plane=plane)
    assert result.exit_code == 1
    assert json.loads(result.output) == {"total": 2, "items": [plane.syncs["a"], plane.syncs["b"]]}


def test_a_zone_shows_its_own_streams(tmp_path):
    made = Plane(tmp_path, federated())
    name = made.config.zone_name
    made.syncs[name] = zone(name, sent=[kind("Dataplane")])
    assert f"zone {name}: online" in run("sync", plane=made).output


def test_without_a_global_there_is_nothing_to_show(tmp_path):
    result = run("sync", plane=Plane(tmp_path, STANDALONE))
    assert result.exit_code == 0
    assert "nothing to synchronize" in result.output


def test_an_unknown_zone_is_an_error(plane):
    result = run("sync", "nobody", plane=plane)
    assert result.exit_code == 1
    assert "no streams with a zone of that name" in result.stderr
