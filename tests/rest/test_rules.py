"""What the policies about a proxy say: against recorded answers of a Kuma with the same resources.

``testdata/kuma-2.14.3-rules.json`` was recorded from kuma-cp 2.14.3 (universal, zone-1).
"""

import json
from pathlib import Path

import pytest

from tests.rest.support import MESH, STANDALONE, Plane, dataplane, permission

RECORDED = json.loads((Path(__file__).parent / "testdata/kuma-2.14.3-rules.json").read_text())
ZONE_1 = {**STANDALONE, "multizone": {"zone": {"name": "zone-1"}}}


async def plane_of(tmp_path, resources=RECORDED["resources"]):
    plane = Plane(tmp_path, ZONE_1)
    for resource in resources:
        assert (await plane.put(resource)).status_code == 201
    return plane


def by_kind(answer):
    return {rule["type"]: rule for rule in answer["rules"]}


@pytest.mark.parametrize("proxy", sorted(RECORDED["rules"]))
async def test_rules_are_those_of_kuma(proxy, tmp_path):
    plane = await plane_of(tmp_path)
    found, recorded = (await plane.get(f"/meshes/rules/{proxy}/_rules")).json(), RECORDED["rules"][proxy]
    assert {k: v for k, v in found.items() if k != "rules"} == {k: v for k, v in recorded.items() if k != "rules"}
    ours, theirs = by_kind(found), by_kind(recorded)
    assert list(ours) == [kind for kind in theirs if kind != "MeshAccessLog"] + ["MeshAccessLog"]
    for kind in theirs.keys() - {"MeshAccessLog", "MeshRetry"}:
        assert ours[kind] == theirs[kind], kind


async def test_a_kind_without_effect_is_named_and_says_nothing(tmp_path):
    plane = await plane_of(tmp_path)
    rule = by_kind((await plane.get("/meshes/rules/dataplanes/web-1/_rules")).json())["MeshAccessLog"]
    assert rule.pop("warnings") == [
        "log has no effect: this version of meshd stores it, passes it on and prints it, and nothing else"
    ]
    assert rule == {"type": "MeshAccessLog", "toRules": [], "toResourceRules": [], "fromRules": [], "inboundRules": []}


async def test_what_is_said_by_a_route_stands_under_the_route(tmp_path):
    plane = await plane_of(tmp_path)
    rule = by_kind((await plane.get("/meshes/rules/dataplanes/web-1/_rules")).json())["MeshRetry"]
    assert [r["conf"]["http"]["numRetries"] for r in rule["toRules"]] == [2]
    found = {r["resourceMeta"]["name"]: r for r in rule["toResourceRules"]}
    assert {name: r["conf"][0]["http"]["numRetries"] for name, r in found.items()} == {"rules": 2, "route-a": 9}
    origins = [(o["resourceMeta"]["name"], o["ruleIndex"]) for o in found["route-a"]["origin"]]
    assert origins == [("retry", 0), ("retry-route", 0)]


@pytest.mark.parametrize("gateway", ["dataplanes/gw-1", "meshgateways/gw"])
async def test_a_builtin_gateway_has_no_rules(gateway, tmp_path):
    plane = await plane_of(tmp_path)
    answer = (await plane.get(f"/meshes/rules/{gateway}/_rules")).json()
    assert (answer["httpMatches"], answer["rules"]) == ([], [])
    assert answer["resource"]["name"] == gateway.rpartition("/")[2]


async def test_an_entry_that_nothing_acts_upon_is_named(tmp_path):
    target = {"kind": "MeshExternalService", "name": "ext"}
    policy = {
        "type": "MeshTimeout",
        "mesh": "default",
        "name": "t",
        "spec": {"to": [{"targetRef": target, "default": {"connectionTimeout": "1s"}}]},
    }
    plane = Plane(tmp_path, ZONE_1)
    await plane.add(MESH, dataplane(), policy)
    [rule] = (await plane.get("/meshes/default/dataplanes/web-1/_rules")).json()["rules"]
    assert rule["warnings"] == [
        "t: spec.to[0] is about a MeshExternalService, which nothing here acts upon; it has no effect"
    ]


async def test_clients_that_cannot_be_told_apart_in_rules_are_a_warning(tmp_path):
    tags = [{"kind": "MeshSubset", "tags": {f"t{n}": "1", f"u{n}": "1"}} for n in range(8)]
    entries = [{"targetRef": ref, "default": {"action": "Deny"}} for ref in tags]
    many = permission("many")
    many["spec"]["from"] += entries
    plane = Plane(tmp_path, ZONE_1)
    await plane.add(MESH, dataplane(), many)
    [rule] = (await plane.get("/meshes/default/dataplanes/web-1/_rules")).json()["rules"]
    assert rule["fromRules"] == []
    assert rule["warnings"][0].startswith("inbound 8080: cannot be written as rules: 9 entries over the tags t0, t1")


async def test_of_a_proxy_without_policies_there_is_nothing_to_say(tmp_path):
    plane = Plane(tmp_path, ZONE_1)
    await plane.add(MESH, dataplane())
    assert (await plane.get("/meshes/default/dataplanes/web-1/_rules")).json()["rules"] == []
    missing = await plane.get("/meshes/default/dataplanes/nope/_rules")
    assert (missing.status_code, missing.json()["title"]) == (404, "Could not retrieve Dataplane")
