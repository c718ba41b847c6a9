import json

import pytest
import trio
import yaml

from meshd.ca import access, signing
from meshd.cli import output
from meshd.cli.output import age, columns
from tests.cli.support import run
from tests.rest.support import GLOBAL, INGRESS, MESH, NOW, STANDALONE, Plane, dataplane, federated, permission
from tests.rest.test_handlers import with_keys


@pytest.fixture
def zone(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    trio.run(plane.add, MESH)
    return plane


def test_apply_creates_then_updates_and_says_which(zone, tmp_path):
    file = tmp_path / "resources.yaml"
    file.write_text(
        yaml.safe_dump_all([MESH | {"routing": {"localityAwareLoadBalancing": True}}, dataplane(), permission()])
    )
    assert run("apply", "-f", str(file), plane=zone).output.splitlines() == [
        "Mesh default updated",
        "Dataplane default/web-1 created",
        "MeshTrafficPermission default/allow created",
    ]
    assert zone.stored("Mesh", "", "default").spec.routing.locality_aware_load_balancing
    result = run("apply", "-f", "-", plane=zone, stdin=json.dumps(dataplane()))
    assert result.output == "Dataplane default/web-1 updated\n"


def test_apply_sends_nothing_if_anything_is_wrong(zone, tmp_path):
    file = tmp_path / "resources.yaml"
    file.write_text("type: Mesh\nname: new\n---\ntype: Mesh\nname: newer\nrouting: {zoneEgres: true}\n")
    result = run("apply", "-f", str(file), plane=zone)
    assert result.exit_code == 2
    assert f"{file}:6: routing.zoneEgres: unknown field" in result.stderr
    assert zone.stored("Mesh", "", "new") is None


def test_apply_shows_every_violation_of_the_control_plane_and_goes_on(tmp_path):
    plane = Plane(tmp_path, federated())
    trio.run(plane.add, MESH)
    text = yaml.safe_dump_all([permission(), dataplane()])
    result = run("apply", "-f", "-", plane=plane, stdin=text)
    assert result.exit_code == 1
    assert "Dataplane default/web-1 created" in result.output
    assert "MeshTrafficPermission is a policy: in a federated zone it comes from the global only" in result.stderr
    orphan = json.dumps(dataplane("x") | {"mesh": "none"})
    result = run("apply", "-f", "-", plane=plane, stdin=orphan)
    assert "  mesh: mesh of name none is not found" in result.stderr


def test_get_as_a_table(zone, monkeypatch):
    trio.run(zone.add, dataplane(), dataplane("api-1", service="api"), INGRESS)
    result = run("get", "dp", plane=zone)
    lines = [" ".join(line.split()[:4]) for line in result.output.splitlines()]
    assert lines == ["MESH NAME STATUS SERVICES", "default api-1 Offline api", "default web-1 Offline web"]
    result = run("get", "zoneingress", "in", plane=zone)
    assert result.output.splitlines()[1].split()[:3] == ["in", "-", "10.0.0.1:10001"]
    assert [line.split()[0] for line in run("get", "Mesh", plane=zone).output.splitlines()] == ["NAME", "default"]


def test_get_says_which_kinds_have_no_effect(zone):
    log = {"type": "MeshAccessLog", "mesh": "default", "name": "log", "spec": {"targetRef": {"kind": "Mesh"}}}
    assert run("get", "mal", plane=zone).stderr == ""
    note = run("apply", "-f", "-", plane=zone, stdin=json.dumps(log)).stderr
    assert note.startswith("note: MeshAccessLog default/log has no effect"), "named once"
    result = run("get", "mal", plane=zone)
    assert result.stderr == "note: MeshAccessLog has no effect: it is stored, passed on and printed, and nothing else\n"
    assert result.stdout.splitlines()[1].split()[:2] == ["default", "log"]


def test_get_as_data_follows_every_page(zone, monkeypatch):
    monkeypatch.setattr("meshd.cli.remote.PAGE_SIZE", 2)
    trio.run(zone.add, *(dataplane(f"web-{i}") for i in range(5)))
    found = json.loads(run("get", "dataplanes", "-m", "default", "-o", "json", plane=zone).output)
    assert (found["total"], [i["name"] for i in found["items"]]) == (5, [f"web-{i}" for i in range(5)])
    one = yaml.safe_load(run("get", "dataplane", "web-3", "-o", "yaml", plane=zone).output)
    assert one["networking"]["address"] == "10.0.0.1"


def test_delete(zone):
    trio.run(zone.add, dataplane())
    result = run("delete", "mesh", "default", plane=zone)
    assert result.exit_code == 1
    assert 'mesh: mesh "default" still has 1 Dataplanes (web-1); remove them first' in result.stderr
    assert run("delete", "dataplane", "web-1", plane=zone).output == "Dataplane default/web-1 deleted\n"
    result = run("delete", "dataplane", "web-1", plane=zone)
    assert (result.exit_code, "Could not delete a resource: Not found" in result.stderr) == (1, True)


def test_an_unknown_kind_is_suggested():
    result = run("get", "dataplains")
    assert result.exit_code == 2
    assert "did you mean 'dataplanes'?" in result.stderr


def test_a_control_plane_that_is_away_is_said():
    result = run("--cp", "http://127.0.0.1:1", "get", "meshes")
    assert result.exit_code == 1
    assert "cannot reach the control plane at http://127.0.0.1:1" in result.stderr
    assert "--cp or MESHD_CP says where it is" in result.stderr


def test_tokens_are_the_only_output(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    result = run("token", "zone", "zone-a", plane=plane)
    assert result.exit_code == 1
    assert "Signing Key not found" in result.stderr
    assert result.stdout == ""


def test_token_with_a_key_is_checked_by_its_control_plane(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    trio.run(with_keys, plane, signing.ZONE)
    result = run("token", "zone", "zone-a", "--valid-for", "1h", plane=plane)
    assert result.exit_code == 0, result.output
    assert access.authenticate_zone(plane.store, result.stdout.strip(), "zone-a", "cp", NOW).scope == ("cp",)


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2026-03-04T05:06:07Z", "0s"),
        ("2026-03-04T05:04:07Z", "2m"),
        ("2026-03-04T02:06:07.5Z", "2h"),
        ("2026-02-04T05:06:07Z", "28d"),
        ("2026-03-05T05:06:07Z", "0s"),
        ("nonsense", ""),
        (None, ""),
    ],
)
def test_age(created, expected):
    assert age(created, NOW) == expected


@pytest.mark.parametrize(
    "word", ["Dataplane", "dp", "dataplanes", "external-services", "externalservices", "ExternalService",
             "external-service", "zone-egress-insights", "zoneegressinsights", "zoneinsights"],
)  # fmt: skip
def test_a_kind_is_found_however_it_is_written(zone, word):
    assert run("get", word, plane=zone).exit_code == 0


@pytest.mark.parametrize("words", [[], ["quux"]])
def test_get_without_a_kind_that_there_is_says_which_there_are(zone, words):
    result = run("get", *words, plane=zone)
    assert result.exit_code == 2
    assert "dataplanes, external-services, fault-injections" in result.stderr


def test_apply_refuses_a_resource_that_is_there_twice(zone, tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    for file in (first, second):
        file.write_text("type: Mesh\nname: new\n")
    result = run("apply", "-f", str(first), "-f", str(second), plane=zone)
    assert result.exit_code == 2
    assert f"{second}:1: Mesh new is already at {first}:1; remove one" in result.stderr
    assert zone.stored("Mesh", "", "new") is None


def test_a_zone_of_which_nothing_is_known_is_not_shown_offline():
    header, rows = columns("Zone", [{"name": "a"}, {"name": "b", "zoneInsight": {"subscriptions": []}}], NOW)
    assert header == ["NAME", "STATUS", "AGE"]
    assert [row[1] for row in rows] == ["-", "Offline"]


def test_a_proxy_says_how_much_of_it_is_refused():
    open_ = [{"connectTime": "x"}]
    refused = {"refused": {"Cluster a": "bad", "networking.listeners": "not here"}}
    items = [
        {"name": "a", "dataplaneInsight": {"subscriptions": open_, "metadata": refused}},
        {"name": "b", "dataplaneInsight": {"subscriptions": open_, "metadata": {}}},
    ]
    header, rows = output.columns("Dataplane", items, NOW)
    assert [row[header.index("STATUS")] for row in rows] == ["Online (2 refused)", "Online"]


def test_proxies_of_a_zone_that_is_away_are_shown_offline():
    ended = {"name": "a", "zoneInsight": {"subscriptions": [{"connectTime": "x", "disconnectTime": "y"}]}}
    there = {"name": "b", "zoneInsight": {"subscriptions": [{"connectTime": "x"}]}}
    unknown = {"name": "c", "zone": {}}
    offline = output.offline_zones([ended, there, unknown])
    assert offline == {"a"}
    insight = {"dataplaneInsight": {"subscriptions": [{"connectTime": "x"}]}}
    items = [{"name": f"dp-{z}", "mesh": "default", "labels": {"kuma.io/zone": z}, **insight} for z in "abc"]
    header, rows = output.columns("Dataplane", items, NOW, offline)
    assert [row[header.index("STATUS")] for row in rows] == ["Offline", "Online", "Online"]
    ingresses = [{"name": "in", "zoneIngress": {"zone": "a"}}]
    header, rows = output.columns("ZoneIngress", ingresses, NOW, offline)
    assert rows[0][header.index("STATUS")] == "", "unknown stays unknown"
