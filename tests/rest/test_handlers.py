"""The API over a memory store: what a client sees."""

from datetime import timedelta

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd import __version__
from meshd.ca import access, signing
from meshd.ca.x509 import new_root
from meshd.kinds.secret import Secret
from meshd.kinds.zone_insight import KdsSubscription, ZoneInsight
from meshd.model import labels as label
from meshd.model.resource import Resource, ResourceKey
from meshd.rest import index
from meshd.store.store import Put
from tests.rest.support import GLOBAL, INGRESS, MESH, NOW, STANDALONE, Plane, dataplane, federated, path_of, permission

ZONE = {"type": "Zone", "name": "zone-a", "enabled": True}


async def test_create_is_201_update_200_and_what_is_read_can_be_written_back(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    assert (await plane.put(MESH)).status_code == 201
    first = await plane.put(dataplane())
    assert (first.status_code, first.json()) == (201, {})
    read = (await plane.get("/meshes/default/dataplanes/web-1")).json()
    assert read["creationTime"] == "2026-03-04T05:06:07Z"
    assert read["labels"][label.ZONE] == "zone-a"
    assert read["networking"]["inbound"][0]["tags"][label.ZONE] == "zone-a"
    before = plane.stored("Dataplane", "default", "web-1").version
    again = await plane.client.put("/meshes/default/dataplanes/web-1", json=read)
    assert again.status_code == 200
    assert plane.stored("Dataplane", "default", "web-1").version == before


async def test_yaml_is_taken_too(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    body = b"type: Mesh\nname: default\n"
    answer = await plane.client.put("/meshes/default", content=body, headers={"content-type": "application/yaml"})
    assert answer.status_code == 201


async def test_every_violation_is_named_in_both_spellings(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.put(MESH)
    wrong = dataplane(networking={"address": "10.0.0.1", "inbond": [], "inbound": [{"port": "80"}]})
    answer = await plane.client.put("/meshes/default/dataplanes/other", json=wrong | {"labels": {"a b": "c"}})
    assert answer.status_code == 400
    error = answer.json()
    assert (error["type"], error["status"], error["detail"]) == ("/std-errors", 400, "Resource is not valid")
    fields = {p["field"] for p in error["invalid_parameters"]}
    assert fields == {"name", 'labels["a b"]', "networking.inbond", "networking.inbound[0].port"}
    assert [(c["field"], c["message"]) for c in error["causes"]] == [
        (p["field"], p["reason"]) for p in error["invalid_parameters"]
    ]
    assert error["details"] == error["detail"]


async def test_a_body_for_another_url_is_refused(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.put(MESH)
    body = dataplane() | {"type": "Mesh", "name": "x", "mesh": "y"}
    answer = await plane.client.put("/meshes/default/dataplanes/web-1", json=body)
    assert [p["field"] for p in answer.json()["invalid_parameters"]][:3] == ["type", "name", "mesh"]
    assert "name from the URL has to be the same as in body" in answer.json()["invalid_parameters"][1]["reason"]


async def test_an_unknown_mesh_is_400_for_writes_and_404_for_reads(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    answer = await plane.put(dataplane())
    assert (answer.status_code, answer.json()["detail"]) == (400, "Mesh is not found")
    assert answer.json()["invalid_parameters"] == [{"field": "mesh", "reason": "mesh of name default is not found"}]
    answer = await plane.get("/meshes/default/dataplanes")
    assert (answer.status_code, answer.json()["title"]) == (404, "Failed to retrieve Mesh")


async def test_missing_things_are_404(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    answer = await plane.get("/meshes/none")
    assert (answer.status_code, answer.json()["title"], answer.json()["detail"]) == (
        404,
        "Could not retrieve a resource",
        "Not found",
    )
    assert (await plane.delete("/meshes/none")).json()["title"] == "Could not delete a resource"
    answer = await plane.get("/no/such/page")
    assert (answer.status_code, answer.text) == (404, "404: Page Not Found")
    answer = await plane.client.patch("/meshes/none")
    assert (answer.status_code, answer.json()["title"]) == (405, "Method not allowed")


async def test_a_mesh_with_dataplanes_stays_and_without_takes_its_own_along(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    for document in (MESH, dataplane(), permission()):
        await plane.put(document)
    answer = await plane.delete("/meshes/default")
    assert answer.status_code == 400
    assert answer.json()["invalid_parameters"] == [
        {"field": "mesh", "reason": 'mesh "default" still has 1 Dataplanes (web-1); remove them first'}
    ]
    assert (await plane.delete("/meshes/default/dataplanes/web-1")).json() == {}
    assert (await plane.delete("/meshes/default")).status_code == 200
    assert plane.stored("MeshTrafficPermission", "default", "allow") is None


async def test_a_connected_zone_cannot_be_deleted(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    await plane.put(ZONE)
    online = ZoneInsight(subscriptions=(KdsSubscription(id="1", connect_time=NOW),))
    await plane.store.write([Put(Resource(ResourceKey("ZoneInsight", "", "zone-a"), online))])
    answer = await plane.delete("/zones/zone-a")
    assert answer.status_code == 400
    assert answer.json()["invalid_parameters"][0]["reason"].startswith('zone "zone-a" is connected')
    item = (await plane.get("/zones/_overview")).json()["items"][0]
    assert item["type"] == "ZoneOverview"
    assert item["zone"] == {"enabled": True}
    assert item["zoneInsight"]["subscriptions"][0]["connectTime"].startswith("2026-03-04")
    assert (await plane.get("/zones+insights/zone-a")).json() == item


def mesh_with(name, conf=None, **mtls):
    backend = {"name": name, "type": "builtin" if conf is None else "provided", **({"conf": conf} if conf else {})}
    return {**MESH, "mtls": {"enabledBackend": name, "backends": [backend], **mtls}}


async def test_a_mesh_whose_provided_ca_cannot_sign_is_refused_with_every_reason(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    conf = {"cert": {"secret": "ca-cert"}, "key": {"file": str(tmp_path / "none.pem")}}
    answer = await plane.put(mesh_with("ca-1", conf))
    assert answer.status_code == 400
    assert answer.json()["invalid_parameters"] == [
        {"field": "mtls.backends[0].conf.cert", "reason": "Secret 'ca-cert' of mesh 'default' does not exist"},
        {
            "field": "mtls.backends[0].conf.key",
            "reason": f"file '{tmp_path}/none.pem' cannot be read: No such file or directory",
        },
    ]
    assert plane.stored("Mesh", "", "default") is None
    assert (await plane.put(mesh_with("ca-1", conf, skipValidation=True))).status_code == 201


async def test_a_mesh_takes_a_provided_ca_that_can_sign(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    pair, other = new_root("default", NOW), new_root("default", NOW)
    (tmp_path / "key.pem").write_bytes(pair.key_pem)
    (tmp_path / "other.pem").write_bytes(other.key_pem)
    inline = {"inlineString": pair.cert_pem.decode()}
    crossed = await plane.put(mesh_with("ca-1", {"cert": inline, "key": {"file": str(tmp_path / "other.pem")}}))
    assert crossed.status_code == 400
    whole = await plane.put(mesh_with("ca-1", {"cert": inline, "key": {"file": str(tmp_path / "key.pem")}}))
    assert whole.status_code == 201, whole.text


async def test_another_ca_is_not_enabled_while_one_is_and_everything_wrong_is_said(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    assert (await plane.put(mesh_with("ca-1"))).status_code == 201
    assert (await plane.put(mesh_with("ca-1"))).status_code == 200
    conf = {"cert": {"secret": "ca-cert"}, "key": {"secret": "ca-key"}}
    answer = await plane.put(mesh_with("ca-2", conf))
    assert answer.status_code == 400
    assert [v["field"] for v in answer.json()["invalid_parameters"]] == [
        "mtls.enabledBackend",
        "mtls.backends[0].conf.cert",
        "mtls.backends[0].conf.key",
    ]
    assert (await plane.put(MESH)).status_code == 200
    assert (await plane.put(mesh_with("ca-2"))).status_code == 200


@pytest.mark.parametrize(
    ("config", "document", "status"),
    [
        (GLOBAL, dataplane(), 405),
        (GLOBAL, INGRESS, 405),
        (GLOBAL, permission(), 201),
        (federated(), permission(), 405),
        (federated(), permission(labels={label.ORIGIN: "zone"}), 405),
        (federated(), MESH, 405),
        (federated(), dataplane(), 201),
        (federated(allowZonePolicies=True), permission(labels={label.ORIGIN: "zone"}), 201),
        (federated(allowZonePolicies=True), permission(), 400),
        (STANDALONE, permission(), 201),
        (GLOBAL | {"apiServer": {"readOnly": True}}, permission(), 405),
    ],
)
async def test_who_may_write_what(tmp_path, config, document, status):
    plane = Plane(tmp_path, config)
    await plane.add(MESH)
    answer = await plane.put(document)
    assert answer.status_code == status, answer.text
    if status == 405:
        assert answer.json()["title"] == "Method not allowed"
        assert nothing_was_stored(plane, document)
        assert (await plane.delete(path_of(document))).status_code in (405, 404)


def nothing_was_stored(plane, document):
    stored = plane.stored(document["type"], document.get("mesh", ""), document["name"])
    return stored is None or document["type"] == "Mesh"


async def test_a_proxy_of_the_configuration_file_is_409(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.add(MESH, dataplane(labels={label.MANAGED_BY_FILE: "true"}))
    assert (await plane.put(dataplane(port=9))).status_code == 409
    answer = await plane.delete("/meshes/default/dataplanes/web-1")
    assert (answer.status_code, answer.json()["title"]) == (409, "Conflict")
    assert (await plane.get("/meshes/default/dataplanes/web-1")).status_code == 200


async def test_services_that_differ_by_case_only_are_refused(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    for document in (MESH, dataplane()):
        await plane.put(document)
    answer = await plane.put(dataplane("web-2", service="Web"))
    assert answer.status_code == 400
    assert "differs only by case from 'web'" in answer.text


async def test_a_mesh_without_mtls_in_several_zones_is_taken_with_a_warning(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    zones = [{"type": "Zone", "name": name} for name in ("zone-a", "zone-b")]
    await plane.add(zones[0])
    assert (await plane.put(MESH)).json() == {}, "one zone has no others"
    await plane.add(zones[1])
    answer = await plane.put(MESH)
    assert answer.status_code == 200
    [warning] = answer.json()["warnings"]
    assert warning.startswith("services of other zones cannot be reached without mTLS")
    mtls = {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]}
    assert (await plane.put({**MESH, "mtls": mtls})).json() == {}
    assert (await plane.put({"type": "Zone", "name": "zone-a", "enabled": True})).json() == {}


async def test_what_came_from_the_global_is_deleted_there(tmp_path):
    plane = Plane(tmp_path, federated())
    secret = {"type": "Secret", "mesh": "default", "name": "s", "data": "eA=="}
    await plane.add(MESH, {**secret, "labels": {"kuma.io/origin": "global"}})
    answer = await plane.delete("/meshes/default/secrets/s")
    [wrong] = answer.json()["invalid_parameters"]
    assert (answer.status_code, wrong["reason"]) == (400, "it came from the global; delete it there")
    answer = await plane.put(secret)
    [wrong] = answer.json()["invalid_parameters"]
    assert wrong["reason"] == "the origin label must be set to 'zone': it came from the global; change it there"


async def test_an_ingress_keeps_what_its_zone_computed(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    services = [{"tags": {"kuma.io/service": "web"}, "instances": 2, "mesh": "default"}]
    await plane.add(INGRESS | {"availableServices": services})
    changed = INGRESS | {"networking": {"address": "10.0.0.1", "port": 10009}}
    assert (await plane.put(changed)).status_code == 200
    assert plane.stored("ZoneIngress", "", "in").spec.available_services[0].instances == 2


@pytest.mark.parametrize(
    ("config", "state"),
    [
        ({}, "NotReady"),
        ({"dpServer": {"hds": {"enabled": False}}}, "Ready"),
        ({"proxies": [{"engine": "builtin", "dataplanes": {"names": "web-*"}}]}, "Ready"),
        ({"proxies": [{"engine": "builtin", "dataplanes": {"names": "db-*"}}]}, "NotReady"),
        ({"proxies": [{"engine": "envoy", "dataplanes": {"names": "web-*"}}]}, "NotReady"),
    ],
)
async def test_an_inbound_that_a_proxy_will_probe_is_not_ready_yet(tmp_path, config, state):
    plane = Plane(tmp_path, STANDALONE | config)
    await plane.put(MESH)
    probed = dataplane()
    probed["networking"]["inbound"][0] |= {"port": 8088, "serviceProbe": {"tcp": {}}}
    assert (await plane.put(probed)).status_code == 201
    assert plane.stored("Dataplane", "default", "web-1").spec.networking.inbound[0].state == state


async def test_a_mesh_may_keep_dataplanes_out(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    rules = {"dataplaneProxy": {"requirements": [{"tags": {"team": "*"}}]}}
    assert (await plane.put(MESH | {"constraints": rules})).status_code == 201
    answer = await plane.put(dataplane())
    [wrong] = answer.json()["invalid_parameters"]
    assert (answer.status_code, wrong["field"]) == (400, "networking.inbound[0]")
    assert "cannot be a member of mesh 'default'" in wrong["reason"]
    allowed = dataplane()
    allowed["networking"]["inbound"][0]["tags"]["team"] = "a"
    assert (await plane.put(allowed)).status_code == 201


async def test_lists_page_and_filter(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.put(MESH)
    for i in range(5):
        await plane.put(dataplane(f"web-{i}", labels={"team": "red" if i % 2 else "blue"}, service=f"web{i}"))
    gateway = {"address": "10.0.0.9", "gateway": {"type": "DELEGATED", "tags": {"kuma.io/service": "gw"}}}
    await plane.put(dataplane("gw") | {"networking": gateway})
    page = (await plane.get("/meshes/default/dataplanes?size=4")).json()
    assert (page["total"], len(page["items"])) == (6, 4)
    assert page["next"] == "http://127.0.0.1:5681/meshes/default/dataplanes?offset=4&size=4"
    rest = (await plane.get(page["next"].removeprefix("http://127.0.0.1:5681"))).json()
    assert (len(rest["items"]), rest["next"]) == (2, None)

    async def names(query):
        return [i["name"] for i in (await plane.get("/dataplanes" + query)).json()["items"]]

    assert await names("?name=web-3") == ["web-3"]
    assert await names("?filter[labels.team]=red") == ["web-1", "web-3"]
    assert await names("?tag=kuma.io/service:web2") == ["web-2"]
    assert await names("?gateway=delegated") == ["gw"]
    assert len(await names("?gateway=false")) == 5
    answer = await plane.get("/dataplanes?filter[x]=1")
    [cause] = answer.json()["causes"]
    assert (answer.status_code, cause["field"]) == (400, "filter[x]")
    assert "filters are only supported on labels" in cause["message"]


async def test_overviews_join_what_was_seen(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    for document in (MESH, dataplane(), INGRESS):
        await plane.put(document)
    insight = {
        "type": "DataplaneInsight",
        "mesh": "default",
        "name": "web-1",
        "subscriptions": [{"id": "1", "connectTime": "2026-01-01T00:00:00Z"}],
    }
    await plane.add(insight)
    unseen = (await plane.get("/zoneingresses/in/_overview")).json()
    assert unseen["zoneIngressInsight"] == {}  # as in Kuma where one is asked for, not in lists
    item = (await plane.get("/meshes/default/dataplanes/web-1/_overview")).json()
    assert item["type"] == "DataplaneOverview"
    assert item["dataplane"]["networking"]["address"] == "10.0.0.1"
    assert item["dataplaneInsight"]["subscriptions"][0]["id"] == "1"
    for path in ("/dataplanes/_overview", "/dataplanes+insights", "/meshes/default/dataplanes+insights"):
        assert (await plane.get(path)).json()["items"] == [item], path
    item = (await plane.get("/zoneingresses/_overview")).json()["items"][0]
    assert item["zoneIngress"]["networking"]["port"] == 10001
    assert "zoneIngressInsight" not in item
    assert (await plane.get("/zone-ingresses/in")).status_code == 200


async def test_service_insights_are_one_item_a_service(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    services = {"web": {"status": "online", "dataplanes": {"total": 1, "online": 1}}, "db": {"status": "offline"}}
    copy = {"kuma.io/display-name": "all-services-default", "kuma.io/origin": "global"}
    insight = {"type": "ServiceInsight", "mesh": "default", "name": "all-services-default", "services": services}
    await plane.add(MESH, insight | {"labels": copy})
    items = (await plane.get("/meshes/default/service-insights")).json()["items"]
    assert [(i["name"], i["status"]) for i in items] == [("db", "offline"), ("web", "online")]
    assert all(i["labels"] == {"kuma.io/origin": "global"} for i in items)
    assert not any("serviceType" in i for i in items)  # internal, as Kuma prints it
    assert (await plane.get("/meshes/default/service-insights/web")).json()["dataplanes"] == {"total": 1, "online": 1}
    for query_, total in (("name=d", 1), ("type=internal", 2), ("type=external,gateway_builtin", 0)):
        assert (await plane.get(f"/service-insights?{query_}")).json()["total"] == total
    assert (await plane.get("/service-insights?type=x")).status_code == 400
    assert (await plane.get("/meshes/default/service-insights/none")).status_code == 404


async def with_keys(plane, *families):
    """Put signing keys into the store, as the keeper of the CA does."""
    for family in families:
        pem = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        await plane.store.write([Put(Resource(family.key(), Secret(data=pem)))])


async def test_tokens_are_issued_to_administrators_and_checked(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    await plane.add(MESH)
    await with_keys(plane, signing.ZONE, signing.USER)
    body = {"zone": "zone-a", "scope": ["cp"], "validFor": "1h"}
    answer = await plane.post("/tokens/zone", body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert (
        access.authenticate_zone(plane.store, answer.text, "zone-a", "cp", NOW + timedelta(minutes=1)).zone == "zone-a"
    )

    token = (await plane.post("/tokens/user", {"name": "jane", "groups": ["team"], "validFor": "1h"})).text
    headers = {"authorization": f"Bearer {token}"}
    assert (await plane.get("/who-am-i", headers=headers)).json()["name"] == "jane"
    refused = await plane.post("/tokens/zone", body, headers=headers)
    assert (refused.status_code, refused.json()["title"]) == (403, "Access Denied")
    assert "jane" in refused.json()["detail"]
    answer = await plane.get("/who-am-i", headers={"authorization": "Bearer nonsense"})
    assert answer.status_code == 401

    for name in ("Zone A", "zone.a", "-a", "a" * 64):
        answer = await plane.post("/tokens/zone", {**body, "zone": name})
        [wrong] = answer.json()["invalid_parameters"]
        assert (answer.status_code, wrong["field"]) == (400, "zone")
        assert wrong["reason"].startswith("must be a DNS label")

    answer = await plane.post("/tokens/dataplane", {"mesh": "default"})
    assert (answer.status_code, answer.json()["title"]) == (404, "Signing Key not found")
    answer = await plane.post("/tokens/user", {"name": "jane", "validFor": "0"})
    [wrong] = answer.json()["causes"]
    assert wrong == {"field": "validFor", "message": "is 0s; give more than 0 and at most 3650 days"}
    answer = await plane.post("/tokens/zone", {"scope": "cp", "validFor": "soon", "zon": 1})
    assert {p["field"] for p in answer.json()["invalid_parameters"]} == {"zon", "scope", "validFor"}


async def test_secrets_are_for_administrators_only(tmp_path):
    far = Plane(tmp_path, GLOBAL, peer="10.0.0.9", host="cp.example:5681")
    await far.add(MESH, {"type": "GlobalSecret", "name": "s", "data": "c2VjcmV0"})
    for answer in (
        await far.get("/globalsecrets"),
        await far.get("/globalsecrets/s"),
        await far.put({"type": "GlobalSecret", "name": "s", "data": "c2VjcmV0"}),
        await far.delete("/globalsecrets/s"),
        await far.get("/secrets"),
    ):
        assert answer.status_code == 403
        assert "c2Vj" not in answer.text
    assert (await far.get("/meshes")).status_code == 200
    near = Plane(tmp_path, GLOBAL)
    await near.add({"type": "GlobalSecret", "name": "s", "data": "c2VjcmV0"})
    assert (await near.get("/global-secrets/s")).json()["data"] == "c2VjcmV0"


async def test_what_is_no_resource(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    await plane.add(MESH, {"type": "Config", "name": "kuma-cluster-id", "config": "abc"})
    index = (await plane.get("/")).json()
    assert (index["product"], index["clusterId"], index["instanceId"]) == ("Kuma", "abc", "instance-1")
    assert index["version"] == "2.14.3"  # of the API; kumactl warns of any other at each command
    assert index["implementation"] == {"product": "meshd", "version": __version__}
    assert (await plane.get("/config")).json()["mode"] == "global"
    names = [r["name"] for r in (await plane.get("/_resources")).json()["resources"]]
    assert names == sorted(names)
    assert "Config" not in names
    assert (await plane.get("/_kds")).json() == {"zones": {"a": "online"}}
    plane.syncs["a"] = {"zone": "a", "online": True}
    assert (await plane.get("/zones/a/_sync")).json() == {"zone": "a", "online": True}
    unknown = await plane.get("/zones/b/_sync")
    assert unknown.status_code == 404
    assert "no streams with a zone of that name" in unknown.json()["detail"]


async def test_a_bug_is_500_without_its_text_and_logged(tmp_path, monkeypatch, caplog):
    plane = Plane(tmp_path, GLOBAL)
    await plane.add(MESH)

    def broken(*_):
        raise RuntimeError("secret inside")

    monkeypatch.setattr(index, "policies", broken)
    answer = await plane.get("/policies")
    assert (answer.status_code, answer.json()["detail"]) == (500, "Internal Server Error")
    assert "secret inside" not in answer.text
    assert "secret inside" in caplog.text
    assert plane.metrics.get_sample_value("meshd_rest_requests_total", {"method": "GET", "status": "500"}) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["type", "mesh", "name", "labels", "networking", "spec", "mtls", "inbound", "x"])


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(FIELDS, JSON, max_size=5), st.sampled_from(["dataplanes", "meshtrafficpermissions", "secrets"]))
def test_no_document_is_a_500(tmp_path_factory, document, path):
    async def put():
        plane = Plane(tmp_path_factory.getbasetemp(), STANDALONE)
        await plane.add(MESH)
        return await plane.client.put(f"/meshes/default/{path}/web-1", json=document)

    answer = trio.run(put)
    assert answer.status_code in (201, 400)


async def test_a_new_mesh_begins_with_policies_and_a_changed_one_gets_none_back(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    assert (await plane.put(MESH)).status_code == 201
    paths = [f"/meshes/default/{kind}" for kind in ("meshtimeouts", "meshretries", "meshcircuitbreakers")]
    assert [(await plane.get(path)).json()["total"] for path in paths] == [2, 1, 1]
    assert (await plane.delete(f"{paths[1]}/mesh-retry-all-default")).status_code == 200
    assert (await plane.put(MESH)).status_code == 200
    assert [(await plane.get(path)).json()["total"] for path in paths] == [2, 0, 1]
    assert (await plane.delete("/meshes/default")).status_code == 200
    assert plane.store.list("MeshTimeout") == ()


async def test_a_mesh_can_ask_for_no_policies(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    assert (await plane.put({**MESH, "skipCreatingInitialPolicies": ["*"]})).status_code == 201
    assert plane.store.list("MeshTimeout") == ()


async def test_a_policy_under_the_name_of_an_initial_one_stays(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    spec = {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"tcp": {"maxConnectAttempt": 1}}}]}
    mine = {"type": "MeshRetry", "mesh": "default", "name": "mesh-retry-all-default", "spec": spec}
    await plane.add(mine)
    assert (await plane.put(MESH)).status_code == 201
    found = (await plane.get("/meshes/default/meshretries/mesh-retry-all-default")).json()
    assert found["spec"] == spec
