"""Which policies are about a proxy, and the other way round."""

import pytest

from tests.rest.support import MESH, STANDALONE, Plane, dataplane, permission

TIMEOUT = {
    "type": "MeshTimeout",
    "mesh": "default",
    "name": "slow",
    "spec": {
        "targetRef": {"kind": "MeshSubset", "tags": {"kuma.io/service": "web"}},
        "to": [{"targetRef": {"kind": "Mesh"}, "default": {"connectionTimeout": "11s"}}],
    },
}
LOG = {
    "type": "MeshAccessLog",
    "mesh": "default",
    "name": "log",
    "spec": {"targetRef": {"kind": "Mesh"}, "to": [{"targetRef": {"kind": "Mesh"}, "default": {}}]},
}


def old(kind, name, **match):
    selectors = [{"match": {"kuma.io/service": "web", **match}}]
    return {"type": kind, "mesh": "default", "name": name, "sources": selectors, "destinations": selectors}


async def plane_of(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.add(MESH, dataplane(), dataplane("api-1", "api"), TIMEOUT, LOG, permission())
    await plane.add(old("TrafficPermission", "old"), old("TrafficPermission", "other", version="2"))
    return plane


@pytest.mark.parametrize(
    ("name", "in_force", "idle"),
    [
        (
            "web-1",
            {"MeshTimeout": ["slow"], "MeshTrafficPermission": ["allow"]},
            {"MeshAccessLog": ["log"], "TrafficPermission": ["old"]},
        ),
        ("api-1", {"MeshTrafficPermission": ["allow"]}, {"MeshAccessLog": ["log"]}),
    ],
)
async def test_policies_of_a_proxy_and_those_without_effect(name, in_force, idle, tmp_path):
    plane = await plane_of(tmp_path)
    answer = (await plane.get(f"/meshes/default/dataplanes/{name}/policies")).json()
    assert (answer["kind"], answer["total"]) == ("SidecarDataplane", 2)
    found = [
        {kind: [p["name"] for p in policies] for kind, policies in item.pop("matchedPolicies").items()}
        for item in answer["items"]
    ]
    assert found == [in_force, idle]
    assert answer["items"] == [{"type": "dataplane"}, {"type": "without effect", "name": "here"}]


@pytest.mark.parametrize(
    ("policy", "proxies"),
    [
        ("meshtimeouts/slow", ["web-1"]),
        ("meshtrafficpermissions/allow", ["api-1", "web-1"]),
        ("meshaccesslogs/log", []),
        ("traffic-permissions/old", []),
    ],
)
async def test_proxies_of_a_policy(policy, proxies, tmp_path):
    plane = await plane_of(tmp_path)
    for mark in "_-":
        answer = (await plane.get(f"/meshes/default/{policy}/{mark}resources/dataplanes")).json()
        assert [item["name"] for item in answer["items"]] == proxies
        assert answer["total"] == len(proxies)
    answer = (await plane.get(f"/meshes/default/{policy}/dataplanes")).json()
    assert [item["dataplane"]["name"] for item in answer["items"]] == proxies
    assert all(item["attachments"] == [{"type": "dataplane"}] for item in answer["items"])


async def test_a_gateway_is_about_no_proxy(tmp_path):
    plane = await plane_of(tmp_path)
    gateway = {"type": "MeshGateway", "mesh": "default", "name": "gw"}
    await plane.add({**gateway, "selectors": [{"match": {"kuma.io/service": "web"}}]})
    answer = await plane.get("/meshes/default/meshgateways/gw/dataplanes")
    assert (answer.status_code, answer.json()["items"], answer.json()["total"]) == (200, [], 0)


async def test_older_clients_get_all_at_once(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.add(MESH, permission(), *(dataplane(f"web-{i}") for i in range(101)))
    answer = (await plane.get("/meshes/default/meshtrafficpermissions/allow/dataplanes")).json()
    assert (answer["total"], len(answer["items"]), "next" in answer) == (101, 101, False)


@pytest.mark.parametrize("part", ["_dataplanes", "_resources/dataplanes", "_hostnames"])
async def test_a_mesh_service_is_about_no_proxy_and_has_no_names(part, tmp_path):
    plane = await plane_of(tmp_path)
    spec = {"selector": {"dataplaneTags": {"kuma.io/service": "web"}}, "ports": [{"port": 80}]}
    await plane.add({"type": "MeshService", "mesh": "default", "name": "web", "spec": spec})
    answer = await plane.get(f"/meshes/default/meshservices/web/{part}")
    assert (answer.status_code, answer.json()) == (200, {"total": 0, "items": []})
    assert (await plane.get(f"/meshes/default/meshservices/nope/{part}")).status_code == 404


async def test_proxies_come_in_pages(tmp_path):
    plane = await plane_of(tmp_path)
    url = "/meshes/default/meshtrafficpermissions/allow/_resources/dataplanes"
    first = (await plane.get(f"{url}?size=1")).json()
    assert ([i["name"] for i in first["items"]], first["total"]) == (["api-1"], 2)
    second = (await plane.get(first["next"])).json()
    assert [i["name"] for i in second["items"]] == ["web-1"]
    assert "next" not in second
    assert (await plane.get(f"{url}?name=web")).json()["total"] == 1


@pytest.mark.parametrize(
    "part",
    [
        "_policies",
        "_layout",
        "_inbounds/kri_i/_policies",
        "_outbounds/kri_o/_policies",
        "_outbounds/kri_o/_routes",
        "_outbounds/kri_o/_routes/kri_r/_policies",
    ],
)
async def test_what_needs_mesh_services_says_so_as_in_kuma(part, tmp_path):
    plane = await plane_of(tmp_path)
    answer = await plane.get(f"/meshes/default/dataplanes/web-1/{part}")
    assert answer.status_code == 400
    named = "_layout" if part == "_layout" else "_policies"  # Kuma's own words, for _routes too
    assert answer.json()["detail"] == f"bad request: can't use {named} endpoint without meshService enabled"


async def test_a_mesh_of_mesh_services_hears_why_they_say_nothing(tmp_path):
    plane = await plane_of(tmp_path)
    await plane.add(MESH | {"meshServices": {"mode": "Exclusive"}})
    answer = await plane.get("/meshes/default/dataplanes/web-1/_layout")
    detail = "Mesh default is to have only MeshServices, which nothing here acts upon"
    assert (answer.status_code, answer.json()["detail"]) == (400, detail)


async def test_who_writes_what_has_no_effect_is_told_so(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.add(MESH)
    [warning] = (await plane.put(LOG)).json()["warnings"]
    assert warning.startswith("MeshAccessLog default/log has no effect")
