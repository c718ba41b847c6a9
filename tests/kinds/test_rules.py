"""What is refused, and how it is said: a valid document with one thing changed."""

import copy
from typing import Any

import pytest

from meshd.kinds import KINDS
from meshd.kinds.mesh import Mesh
from meshd.kinds.mesh_rules import mesh_delete_violations, mesh_update_violations
from meshd.kinds.rules import service_case_conflicts
from meshd.kinds.small_rules import zone_delete_violations
from meshd.kinds.zone_insight import ZoneInsight
from meshd.model.codec import decode_document
from meshd.model.errors import InvalidError
from meshd.model.registry import Registry
from meshd.model.resource import ResourceKey
from meshd.model.shape import read_strict

REGISTRY = Registry(KINDS)

DATAPLANE: dict[str, Any] = {
    "type": "Dataplane",
    "mesh": "default",
    "name": "web-1",
    "networking": {
        "address": "10.0.0.1",
        "inbound": [
            {"port": 80, "servicePort": 8080, "tags": {"kuma.io/service": "web", "kuma.io/protocol": "http"}},
            {"port": 81, "tags": {"kuma.io/service": "admin"}},
        ],
        "outbound": [{"port": 5000, "tags": {"kuma.io/service": "db"}}],
        "admin": {"port": 9901},
    },
}
GATEWAY: dict[str, Any] = {
    "type": "Dataplane",
    "mesh": "default",
    "name": "gw",
    "networking": {"address": "gw.example", "gateway": {"tags": {"kuma.io/service": "gw"}}},
}
MESH: dict[str, Any] = {
    "type": "Mesh",
    "name": "default",
    "mtls": {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]},
    "routing": {"zoneEgress": True, "localityAwareLoadBalancing": True},
}
INGRESS: dict[str, Any] = {
    "type": "ZoneIngress",
    "name": "in",
    "networking": {"address": "10.0.0.1", "port": 10001, "advertisedAddress": "1.2.3.4", "advertisedPort": 10001},
}
EGRESS: dict[str, Any] = {"type": "ZoneEgress", "name": "out", "networking": {"address": "10.0.0.1", "port": 10002}}
EXTERNAL: dict[str, Any] = {
    "type": "ExternalService",
    "mesh": "default",
    "name": "es",
    "tags": {"kuma.io/service": "es", "kuma.io/protocol": "http"},
    "networking": {"address": "example.com:443", "tls": {"enabled": True, "caCert": {"inlineString": "x"}}},
}
SECRET: dict[str, Any] = {"type": "Secret", "mesh": "default", "name": "s", "data": "YQ=="}
REMOVE = object()


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(document)
    here: Any = document
    *parents, last = path.split("/")
    for part in parents:
        here = here[int(part)] if part.isdecimal() else here.setdefault(part, {})
    key: Any = int(last) if last.isdecimal() else last
    if value is REMOVE:
        del here[key]
    elif isinstance(here, list) and key == len(here):
        here.append(value)
    else:
        here[key] = value
    return document


def complaints(document: dict[str, Any]) -> list[str]:
    try:
        decode_document(document, REGISTRY)
    except InvalidError as error:
        return [str(v) for v in error.violations]
    return []


@pytest.mark.parametrize("document", [DATAPLANE, GATEWAY, MESH, INGRESS, EGRESS, EXTERNAL, SECRET], ids=str)
def test_valid_ones_are_valid(document):
    assert complaints(document) == []


IN0 = "networking/inbound/0"
CASES = [
    # document, what is changed, the new value, start of the only complaint
    (DATAPLANE, "networking", REMOVE, "networking.address: cannot be empty"),
    (DATAPLANE, "networking/address", "0.0.0.0", 'networking.address: must not be "0.0.0.0"'),
    (DATAPLANE, "networking/address", "::", 'networking.address: must not be "::"'),
    (DATAPLANE, "networking/address", "300.1.1.1", "networking.address: "),
    (DATAPLANE, "networking/address", "a b", "networking.address: "),
    (DATAPLANE, "networking/advertisedAddress", "0.0.0.0", "networking.advertisedAddress: "),
    (DATAPLANE, f"{IN0}/port", "80", "networking.inbound[0].port: must be a whole number without quotes"),
    (DATAPLANE, f"{IN0}/port", 80.0, "networking.inbound[0].port: must be a whole number"),
    (DATAPLANE, f"{IN0}/port", True, "networking.inbound[0].port: must be a whole number"),
    (DATAPLANE, f"{IN0}/port", 0, "networking.inbound[0].port: must be a port from 1 to 65535, not 0"),
    (DATAPLANE, f"{IN0}/port", 65536, "networking.inbound[0].port: must be a port"),
    (DATAPLANE, f"{IN0}/port", -1, "networking.inbound[0].port: input should be greater"),
    (DATAPLANE, f"{IN0}/servicePort", 70000, "networking.inbound[0].servicePort: must be a port"),
    (DATAPLANE, f"{IN0}/serviceAddress", "localhost", "networking.inbound[0].serviceAddress: "),
    (DATAPLANE, "networking/inbound/1/serviceAddress", "10.0.0.1", "networking.inbound[1].serviceAddress: the appl"),
    (DATAPLANE, f"{IN0}/address", "web", 'networking.inbound[0].address: "web" is not an IP address'),
    (DATAPLANE, f"{IN0}/servicePrt", 1, 'networking.inbound[0].servicePrt: unknown field; did you mean "servicePort"'),
    (DATAPLANE, f"{IN0}/service_port", 1, "networking.inbound[0].service_port: unknown field; did you mean"),
    (DATAPLANE, f"{IN0}/state", "Up", 'networking.inbound[0].state: must be one of "Ready"'),
    (DATAPLANE, f"{IN0}/protocol", "htp", 'networking.inbound[0].protocol: "htp" is no protocol'),
    (DATAPLANE, f"{IN0}/tags", {"a": "b"}, 'networking.inbound[0].tags: the tag "kuma.io/service" is missing'),
    (DATAPLANE, f"{IN0}/tags/v", 1, 'networking.inbound[0].tags["v"]: must be text; put it in quotes, not 1'),
    (DATAPLANE, f"{IN0}/tags/v", "", 'networking.inbound[0].tags["v"]: a tag value cannot be empty'),
    (DATAPLANE, f"{IN0}/tags/v", "a/b", 'networking.inbound[0].tags["v"]: "a/b" is no tag value'),
    (DATAPLANE, f"{IN0}/tags/a b", "x", 'networking.inbound[0].tags["a b"]: "a b" is no tag name'),
    (DATAPLANE, f"{IN0}/tags", ["a"], "networking.inbound[0].tags: must be an object"),
    (DATAPLANE, f"{IN0}/serviceProbe", {"interval": "0s"}, "networking.inbound[0].serviceProbe.interval: must be lo"),
    (DATAPLANE, f"{IN0}/serviceProbe", {"timeout": "5"}, "networking.inbound[0].serviceProbe.timeout: '5' is not a d"),
    (DATAPLANE, f"{IN0}/serviceProbe", {"healthyThreshold": 0}, "networking.inbound[0].serviceProbe.healthyThreshold"),
    (DATAPLANE, "networking/inbound", {}, "networking.inbound: must be a list"),
    (DATAPLANE, "networking/inbound/1/port", 80, "networking.inbound[1].port: 10.0.0.1:80 is taken by networking.inb"),
    (
        DATAPLANE,
        "networking/inbound/1/tags",
        {"kuma.io/service": "WEB"},
        'networking.inbound: service "WEB" differs from service "web" only by case',
    ),
    (DATAPLANE, "networking/gateway", {"tags": {"kuma.io/service": "g"}}, "networking.inbound: a gateway has no inb"),
    (
        DATAPLANE,
        "networking/inbound/0",
        {"port": 80, "serviceAddress": "127.0.0.1", "servicePort": 9901, "tags": {"kuma.io/service": "web"}},
        "networking.admin.port: must differ from the ports of networking.inbound[0]",
    ),
    (DATAPLANE, "networking/admin/port", 70000, "networking.admin.port: must be a port"),
    (DATAPLANE, "networking/admin/port", 5000, "networking.admin.port: must differ from the port of networking.outb"),
    (DATAPLANE, "networking/outbound/0/port", 0, "networking.outbound[0].port: must be a port"),
    (DATAPLANE, "networking/outbound/0/tags", {}, 'networking.outbound[0].tags: the tag "kuma.io/service" is missing'),
    (DATAPLANE, "networking/outbound/0/address", "x", 'networking.outbound[0].address: "x" is not an IP address'),
    (
        DATAPLANE,
        "networking/outbound/0/backendRef",
        {"kind": "MeshService", "name": "a", "port": 80},
        "networking.outbound[0].backendRef: an outbound has either backendRef or tags",
    ),
    (
        DATAPLANE,
        "networking/outbound/1",
        {"port": 1, "backendRef": {"kind": "Service", "name": "a", "port": 80}},
        "networking.outbound[1].backendRef.kind: must be one of",
    ),
    (
        DATAPLANE,
        "networking/outbound/1",
        {"port": 1, "backendRef": {"kind": "MeshService", "port": 80}},
        "networking.outbound[1].backendRef: needs a name or labels",
    ),
    (
        DATAPLANE,
        "networking/transparentProxying",
        {"redirectPortInbound": 70000},
        "networking.transparentProxying.redirectPortInbound: must be a port",
    ),
    (
        DATAPLANE,
        "networking/transparentProxying",
        {"reachableBackends": {"refs": [{"kind": "MeshService", "namespace": "x"}]}},
        "networking.transparentProxying.reachableBackends.refs[0].name: is required beside a namespace",
    ),
    (
        DATAPLANE,
        "networking/listeners",
        [{"address": "10.0.0.1", "port": 80, "type": "ZoneEgress"}],
        "networking.listeners[0]: 10.0.0.1:80 is taken by an inbound",
    ),
    (DATAPLANE, "networking/listeners", [{"address": "1.1.1.1", "port": 9}], "networking.listeners[0].type: must be"),
    (
        DATAPLANE,
        "probes",
        {"port": 1, "endpoints": [{"inboundPort": 1, "inboundPath": "/", "path": "x"}]},
        "probes.end",
    ),
    (DATAPLANE, "metrics", {"type": "statsd"}, 'metrics.type: must be "prometheus"'),
    (DATAPLANE, "mesh", REMOVE, "mesh: cannot be empty"),
    (DATAPLANE, "mesh", "No", 'mesh: "No" is no mesh name'),
    (DATAPLANE, "mesh", 5, "mesh: must be text"),
    (DATAPLANE, "name", "web_1", 'name: "web_1" is no name'),
    (DATAPLANE, "name", "a" * 254, "name: has 254 characters, at most 253 are allowed"),
    (DATAPLANE, "labels", {"a": 1}, 'labels["a"]: must be text'),
    (DATAPLANE, "labels", {"a b": "1"}, 'labels["a b"]: "a b" is no label name'),
    (DATAPLANE, "labels", {"kuma.io/mesh": "other"}, 'labels["kuma.io/mesh"]: must be "default"'),
    (DATAPLANE, "labels", {"kuma.io/origin": "here"}, 'labels["kuma.io/origin"]: must be "global" or "zone"'),
    (DATAPLANE, "spec", {}, "spec: unknown field"),
    (DATAPLANE, "nme", "x", 'nme: unknown field; did you mean "name"?'),
    (GATEWAY, "networking/gateway/tags/kuma.io|protocol", "http", 'networking.gateway.tags["kuma.io/protocol"]: a ga'),
    (GATEWAY, "networking/listeners", [{"type": "ZoneEgress", "port": 1, "address": "1.1.1.1"}], "networking.listene"),
    (MESH, "mesh", "default", "mesh: a Mesh belongs to no mesh"),
    (MESH, "name", "a" * 64, "name: has 64 characters, at most 63 are allowed"),
    (MESH, "mtls/enabledBackend", "ca-2", 'mtls.enabledBackend: "ca-2" is no backend of the mesh; it has "ca-1"'),
    (MESH, "mtls/backends/1", {"name": "b", "type": "builtin"}, "mtls.backends: a mesh has at most one backend, not 2"),
    (MESH, "mtls/backends/0/type", "vault", 'mtls.backends[0].type: must be "builtin" or "provided", not "vault"'),
    (MESH, "mtls/backends/0/dpCert", {"rotation": {"expiration": "1"}}, "mtls.backends[0].dpCert.rotation.expiratio"),
    (MESH, "mtls/backends/0/conf", {"caCert": {"RSAbits": 512}}, "mtls.backends[0].conf.caCert.RSAbits: must be from"),
    (MESH, "mtls/backends/0/conf", {"caCrt": {}}, 'mtls.backends[0].conf.caCrt: unknown field; did you mean "caCert"'),
    (MESH, "mtls", REMOVE, "mtls: must be enabled for routing.zoneEgress"),
    (MESH, "meshServices", {"mode": "On"}, "meshServices.mode: must be one of"),
    (MESH, "constraints", {"dataplaneProxy": {"requirements": [{}]}}, "constraints.dataplaneProxy.requirements[0].ta"),
    (MESH, "logging", {"backends": [{"name": "a", "type": "tcp", "conf": {"address": "x"}}]}, "logging.backends[0].c"),
    (MESH, "logging", {"backends": [{"name": "a", "type": "file"}]}, "logging.backends[0].conf.path: cannot be empty"),
    (MESH, "logging", {"defaultBackend": "a"}, 'logging.defaultBackend: "a" is no backend of the mesh; it has none'),
    (MESH, "tracing", {"backends": [{"name": "a", "type": "zipkin", "conf": {"url": "http://x/"}}]}, "tracing.backen"),
    (
        MESH,
        "metrics",
        {"backends": [{"name": "a", "type": "prometheus", "conf": {"skipMTLS": True, "tls": {}}}]},
        "metrics.backends[0].conf: skipMTLS and tls contradict each other",
    ),
    (INGRESS, "networking/advertisedPort", REMOVE, "networking.advertisedPort: is required beside advertisedAddress"),
    (INGRESS, "networking/advertisedAddress", REMOVE, "networking.advertisedAddress: is required beside advertisedPor"),
    (INGRESS, "networking/port", 0, "networking.port: must be a port"),
    (INGRESS, "networking/advertisedAddress", "0.0.0.0", "networking.advertisedAddress: must not be"),
    (INGRESS, "availableServices", [{"tags": {}}], 'availableServices[0].tags: the tag "kuma.io/service" is missing'),
    (EGRESS, "networking/port", REMOVE, "networking.port: must be a port"),
    (EGRESS, "networking/advertisedPort", 1, "networking.advertisedPort: unknown field"),
    (
        EGRESS,
        "networking",
        {"address": "127.0.0.1", "port": 9, "admin": {"port": 9}},
        "networking.admin.port: must differ from networking.port",
    ),
    (EXTERNAL, "networking/address", "example.com", 'networking.address: must be HOST:PORT, not "example.com"'),
    (EXTERNAL, "networking/address", "a b:80", 'networking.address: "a b" is neither'),
    (EXTERNAL, "networking/address", "example.com:0", "networking.address: must be a port"),
    (EXTERNAL, "networking/address", "::1:80", "networking.address: must be HOST:PORT"),
    (EXTERNAL, "networking/tls/caCert", {"file": "x", "secret": "y"}, "networking.tls.caCert: must have exactly one"),
    (EXTERNAL, "networking/tls/caCert", {"inline": "%"}, "networking.tls.caCert.inline: is not base64"),
    (EXTERNAL, "networking/tls/serverName", "", "networking.tls.serverName: cannot be empty"),
    (EXTERNAL, "networking/tls/clientKey", {"file": "x"}, "networking.tls: clientCert and clientKey go together"),
    (EXTERNAL, "tags", {"kuma.io/service": "example.com"}, 'tags["kuma.io/service"]: "example.com" cannot be the host'),
    (SECRET, "data", "", "data: cannot be empty"),
    (SECRET, "data", 5, "data: must be base64 text"),
]


@pytest.mark.parametrize(("document", "path", "value", "start"), CASES, ids=[f"{c[0]['type']}-{c[1]}" for c in CASES])
def test_one_thing_wrong_is_one_complaint(document, path, value, start):
    path = path.replace("kuma.io|protocol", "kuma.io\x00protocol")
    document = changed(document, path, value)
    if "\x00" in path:
        tags = document["networking"]["gateway"]["tags"]
        tags["kuma.io/protocol"] = tags.pop("kuma.io\x00protocol")
    found = complaints(document)
    assert [f for f in found if not f.startswith(start)] == []
    assert len(found) == 1


def test_everything_wrong_is_said_at_once():
    document = changed(changed(changed(DATAPLANE, "name", "X"), f"{IN0}/port", 0), "networking/address", "")
    assert [c.partition(":")[0] for c in complaints(document)] == [
        "name",
        "networking.address",
        "networking.inbound[0].port",
    ]


@pytest.mark.parametrize(
    "path", ["networking/gateway", "networking/outbound", "labels", "metrics", "networking/inbound/0/health"]
)
def test_null_is_absent(path):
    assert complaints(changed(DATAPLANE, path, None)) == []


@pytest.mark.parametrize(
    ("before", "after", "is_forbidden"),
    [("", "a", False), ("a", "", False), ("a", "a", False), ("a", "b", True), ("", "", False)],
)
def test_a_ca_in_force_is_not_swapped(before, after, is_forbidden):
    old, new = (read_strict(Mesh, {"mtls": {"enabledBackend": name}}) for name in (before, after))
    assert bool(mesh_update_violations(old, new)) == is_forbidden


def test_a_mesh_with_dataplanes_stays():
    keys = [ResourceKey("Dataplane", mesh, f"d{i}") for i in range(7) for mesh in ("default", "default2")]
    (violation,) = mesh_delete_violations("default", keys)
    assert str(violation) == (
        'mesh: mesh "default" still has 7 Dataplanes (d0, d1, d2, d3, d4, ...); remove them first'
    )
    assert mesh_delete_violations("other", keys) == ()


def test_a_connected_zone_stays():
    online = read_strict(ZoneInsight, {"subscriptions": [{"connectTime": "2026-01-01T00:00:00Z"}]})
    gone = read_strict(
        ZoneInsight,
        {"subscriptions": [{"connectTime": "2026-01-01T00:00:00Z", "disconnectTime": "2026-01-01T00:00:01Z"}]},
    )
    assert [bool(zone_delete_violations("z", i)) for i in (None, online, gone)] == [False, True, False]


@pytest.mark.parametrize(
    ("wanted", "existing", "names"),
    [
        (["web"], ["web", "db"], []),
        (["Web"], ["web"], ["Web"]),
        (["a", "A"], [], ["A"]),
        (["straße", "STRASSE"], [], []),
    ],
)
def test_services_that_differ_by_case_only(wanted, existing, names):
    found = service_case_conflicts(wanted, existing)
    assert [v.message.split('"')[1] for v in found] == names


@pytest.mark.parametrize("kind", ["inbound", "gateway", "workload"])
def test_nobody_is_called_what_the_zone_egresses_are(kind):
    networking = {"address": "10.0.0.1"}
    tags = {"kuma.io/service": "web" if kind == "workload" else "zone-egress"}
    networking |= {"gateway": {"tags": tags}} if kind == "gateway" else {"inbound": [{"port": 80, "tags": tags}]}
    labels = {"kuma.io/workload": "zone-egress"} if kind == "workload" else {}
    document = {"type": "Dataplane", "mesh": "default", "name": "x", "networking": networking, "labels": labels}

    (complaint,) = complaints(document)

    assert '"zone-egress" is the identity of zone egresses' in complaint
