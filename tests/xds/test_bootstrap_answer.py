"""Who is given a bootstrap document, who is not and with what status, and what is in it for whom."""

import copy
import json
from dataclasses import replace

import pytest

from meshd.ca.server_certificate import issue_server, new_authority
from meshd.ca.x509 import load_signer
from meshd.cli.known import registry
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.mesh import Mesh
from meshd.model.codec import decode_document
from meshd.xds.bootstrap_answer import aggregated
from tests.ca.test_server_certificate import NOW
from tests.xds.bootstraps import CA, DATAPLANE, MESH, NAMES, REQUEST, asked, document_of

LEAF = issue_server(load_signer(new_authority("a", NOW)), NAMES, NOW).cert_pem


def changed(document, **changes):
    return copy.deepcopy(document) | changes


def resource(**changes):
    return json.dumps(changed(DATAPLANE, **changes))


WITH_OUTBOUND = changed(DATAPLANE["networking"], outbound=[{"port": 1, "tags": {"kuma.io/service": "x"}}])
AS_YAML = "type: Dataplane\nmesh: default\nname: web-1\nnetworking: {address: 1.1.1.1, gateway: {}}"
REDIRECTED = {"redirect": {"inbound": {"enabled": True, "port": 15006}}}


@pytest.mark.parametrize(
    ("request_changes", "more", "status", "text"),
    [
        ({"proxyType": "gateway"}, {}, 422, "proxyType: must be one of dataplane, ingress, egress, not 'gateway'"),
        ({"name": ""}, {}, 422, "name: is required"),
        ({"dataplaneToken": ""}, {}, 422, "a token is required: make one by `meshd token dataplane"),
        ({"dataplaneToken": "", "proxyType": "egress"}, {}, 422, "`meshd token zone ZONE --scope egress > FILE`"),
        ({}, {"host": "other.example:5678"}, 400, "calls this control plane 'other.example', which is not in its"),
        ({}, {"host": ""}, 400, "'', which is not in its certificate: that is for 10.0.0.7, fd00::2, cp.example"),
        ({}, {"ca_pem": LEAF}, 400, "the control plane's certificate is no CA"),
        ({"caCert": LEAF.decode()}, {}, 400, "the certificate given to kuma-dp is no CA"),
        ({"caCert": "junk"}, {}, 422, "caCert: there is no PEM certificate"),
        ({"name": "web-2"}, {}, 404, ""),
        ({"proxyType": "ingress"}, {}, 404, ""),
        ({}, {"stored": (DATAPLANE,)}, 404, ""),
        ({"dataplaneResource": resource()}, {"stored": ()}, 422, 'mesh: mesh "default" does not exist'),
        ({"dataplaneResource": resource(name="web-2")}, {}, 422,
         "dataplaneResource: is Dataplane default/web-2, but the proxy is started as Dataplane default/web-1"),
        ({"dataplaneResource": resource(), "proxyType": "egress"}, {}, 422,
         "dataplaneResource: is Dataplane default/web-1, but the proxy is started as ZoneEgress web-1"),
        ({"dataplaneResource": resource(networking={"address": "x y"})}, {}, 422, "networking.address: "),
        ({"dataplaneResource": resource(netwroking={})}, {}, 422, "netwroking: unknown field"),
        ({"dataplaneResource": "{"}, {}, 422, "line 2: did not find expected node content"),
        ({"dataplaneResource": " "}, {}, 422, "must be one resource"),
        ({"dataplaneResource": "[]"}, {}, 422, "must be an object with type and name"),
        ({"dataplaneResource": resource(networking=WITH_OUTBOUND), "dataplaneConfig": REDIRECTED}, {}, 422,
         "networking.outbound: must be empty where traffic is redirected to the proxy"),
    ],
)  # fmt: skip
def test_who_is_refused(request_changes, more, status, text):
    answer = asked(REQUEST | request_changes, **more)
    assert answer.status == status, answer
    assert text in answer.body.decode()
    assert bool(text) is bool(answer.body)


@pytest.mark.parametrize(
    ("request_changes", "more"),
    [
        ({}, {}),
        ({"proxyType": ""}, {}),
        ({"dataplaneToken": "", "dataplaneTokenPath": "/t"}, {}),
        ({"dataplaneToken": ""}, {"needs_dataplane_token": False}),
        ({"dataplaneResource": resource()}, {"stored": (MESH,)}),
        ({"dataplaneResource": AS_YAML}, {}),
        ({"dataplaneResource": resource(networking=WITH_OUTBOUND)}, {}),
        ({}, {"host": "other.example", "xds_host": "cp.example"}),
        ({"caCert": CA.decode()}, {"ca_pem": LEAF}),
    ],
)
def test_who_is_served(request_changes, more):
    document = document_of(asked(REQUEST | request_changes, **more))
    assert document["node"]["id"] == "default.web-1"
    assert document["node"]["metadata"]["dataplane.proxyType"] == "dataplane"


@pytest.mark.parametrize(
    ("host", "expected", "kind"),
    [
        ("CP.Example:5678", "cp.example", "STRICT_DNS"),
        ("localhost", "localhost", "STRICT_DNS"),
        ("10.0.0.7:1", "10.0.0.7", "STATIC"),
        ("[fd00:0::2]:5678", "fd00::2", "STATIC"),
        ("fd00::2", "fd00::2", "STATIC"),
    ],
)
def test_the_proxy_comes_back_to_where_it_asked(host, expected, kind):
    document = document_of(asked(REQUEST, host=host))
    cluster = document["staticResources"]["clusters"][1]
    (endpoint,) = cluster["loadAssignment"]["endpoints"][0]["lbEndpoints"]
    assert endpoint["endpoint"]["address"]["socketAddress"] == {"address": expected, "portValue": 5678}
    assert (cluster["type"], cluster["transportSocket"]["typedConfig"]["sni"]) == (kind, expected)
    context = document["staticResources"]["secrets"][0]["validationContext"]
    assert {m["matcher"]["exact"] for m in context["matchTypedSubjectAltNames"]} == {expected}


def test_service_probes_are_for_dataplanes_where_they_are_on():
    assert "hdsConfig" in document_of(asked(REQUEST))
    assert "hdsConfig" not in document_of(asked(REQUEST, has_hds=False))
    egress = {"type": "ZoneEgress", "name": "web-1", "networking": {"address": "10.0.0.7", "port": 1}}
    assert "hdsConfig" not in document_of(asked(REQUEST | {"proxyType": "egress"}, stored=(egress,)))


def test_a_dataplane_without_a_service_is_unknown():
    nameless = changed(DATAPLANE, networking={"address": "10.0.0.7", "gateway": {"type": "DELEGATED"}})
    assert document_of(asked(REQUEST, stored=(MESH, nameless)))["node"]["cluster"] == "unknown"


# ---- what kuma-dp itself is told


def metrics(*aggregate):
    return {"name": "p", "type": "prometheus", "conf": {"port": 5670, "aggregate": list(aggregate)}}


def sidecar(mesh=MESH, dataplane=DATAPLANE, request=REQUEST, **more):
    return json.loads(asked(request, stored=(mesh, dataplane), **more).body)["kumaSidecarConfiguration"]


def test_kuma_dp_is_told_the_address_and_the_corefile():
    assert sidecar() == {
        "networking": {"address": "10.0.0.7", "corefileTemplate": None},
        "metrics": {"aggregate": []},
    }
    assert sidecar(corefile_template=b"core")["networking"]["corefileTemplate"] == "Y29yZQ=="


A, B = {"name": "a", "port": 1, "path": "/a"}, {"name": "b", "port": 2, "path": "/b", "address": "10.0.0.9"}


def test_applications_of_the_mesh_and_of_the_dataplane_are_added():
    mesh = changed(MESH, metrics={"enabledBackend": "p", "backends": [metrics(B, A)]})
    own = changed(
        DATAPLANE, metrics={"type": "prometheus", "conf": {"aggregate": [B | {"enabled": False}, {"name": "c"}]}}
    )
    a = {"name": "a", "address": "10.0.0.7", "port": 1, "path": "/a"}
    b = {"name": "b", "address": "10.0.0.9", "port": 2, "path": "/b"}
    assert sidecar(mesh)["metrics"]["aggregate"] == [a, b]
    c = {"name": "c", "address": "10.0.0.7", "port": 0, "path": ""}
    assert sidecar(mesh, own)["metrics"]["aggregate"] == [a, c]
    off = changed(MESH, metrics={"backends": [metrics(A)]})
    assert sidecar(off, own)["metrics"]["aggregate"] == []


def test_metrics_that_cannot_be_read_are_left_out(caplog):
    mesh = changed(MESH, metrics={"enabledBackend": "p", "backends": [metrics(A)]})
    spec = Mesh.model_validate(
        {"metrics": {"enabledBackend": "p", "backends": [{**metrics(), "conf": {"aggregate": 3}}]}}
    )
    with pytest.raises(ValueError):
        aggregated(spec, Dataplane())
    with_bad_mesh = replace(decode_document(mesh, registry()), spec=spec)
    assert json.loads(asked(REQUEST, stored=(with_bad_mesh, DATAPLANE)).body)["kumaSidecarConfiguration"][
        "metrics"
    ] == {"aggregate": []}
    assert "Dataplane default/web-1: applications' metrics are left out" in caplog.text
