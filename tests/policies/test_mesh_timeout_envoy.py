import pytest

from tests.policies.shaped import chain, clusters, common_http, inbounds, outbounds, proxy, routes, server
from tests.policies.support import policy
from tests.policies.test_mesh_http_route_envoy import route_policy

MESH = {"kind": "Mesh"}
ALL = {
    "connectionTimeout": "1s",
    "idleTimeout": "2s",
    "http": {
        "requestTimeout": "3s",
        "streamIdleTimeout": "4s",
        "maxStreamDuration": "5s",
        "maxConnectionDuration": "6s",
        "requestHeadersTimeout": "7s",
    },
}


OWN = {"maxRequestsPerConnection": 1000}
"""What a cluster says of its connections before any policy."""


def to(conf, name="p", kind="Mesh", service=None, top=None):
    ref = {"name": service} if service else {}
    spec = {"to": [{"targetRef": {"kind": kind, **ref}, "default": conf}], **({"targetRef": top} if top else {})}
    return policy("MeshTimeout", name, spec)


def request_timeout(text, *args, **options):
    return to({"http": {"requestTimeout": text}}, *args, **options)


@pytest.mark.parametrize("protocol", ["http", "http2", "grpc"])
def test_everything_said_about_requests(protocol):
    found = outbounds(server(protocol=protocol), to(ALL))
    cluster = clusters(found)["backend"]
    assert cluster["connectTimeout"] == "1s"
    said = {"idleTimeout": "2s", "maxStreamDuration": "5s", "maxConnectionDuration": "6s"}
    assert common_http(cluster) == {**OWN, **said}
    assert proxy(found)["requestHeadersTimeout"] == "7s"
    assert proxy(found)["commonHttpProtocolOptions"] == {"idleTimeout": "0s"}
    assert [(r["route"]["timeout"], r["route"]["idleTimeout"]) for r in routes(found)] == [("3s", "4s")]


@pytest.mark.parametrize("policies", [(), (to(ALL, "p", "MeshService", service="x"),)])
def test_what_nobody_said(policies):
    found = outbounds(server(), *policies)
    cluster = clusters(found)["backend"]
    assert cluster["connectTimeout"] == "5s"
    assert common_http(cluster) == {**OWN, "idleTimeout": "3600s"}
    assert "requestHeadersTimeout" not in proxy(found)
    assert [(r["route"]["timeout"], r["route"]["idleTimeout"]) for r in routes(found)] == [("15s", "1800s")]


def test_zero_switches_off():
    conf = {"idleTimeout": "0s", "http": {"requestTimeout": "0s", "streamIdleTimeout": "0s", "maxStreamDuration": "0s"}}
    found = outbounds(server(), to(conf))
    assert common_http(clusters(found)["backend"]) == {**OWN, "idleTimeout": "0s"}
    assert [(r["route"]["timeout"], r["route"]["idleTimeout"]) for r in routes(found)] == [("0s", "0s")]


def test_connections():
    found = outbounds(server(protocol="tcp"), to(ALL))
    assert clusters(found)["backend"]["connectTimeout"] == "1s"
    assert "typedExtensionProtocolOptions" not in clusters(found)["backend"]
    assert proxy(found)["idleTimeout"] == "2s"


@pytest.mark.parametrize(
    ("policies", "timeout"),
    [
        ([request_timeout("1s")], "1s"),
        ([request_timeout("1s"), request_timeout("2s", "a")], "2s"),
        ([request_timeout("1s"), request_timeout("2s", "z", "MeshService", "backend")], "2s"),
        ([request_timeout("1s", "z", top={"kind": "MeshService", "name": "client"}), request_timeout("2s", "a")], "1s"),
        ([request_timeout("1s", top={"kind": "MeshService", "name": "other"})], "15s"),
        ([request_timeout("1s", "p", "MeshExternalService", "backend")], "15s"),
        ([request_timeout("1s", top={"kind": "Mesh", "proxyTypes": ["Gateway"]})], "15s"),
    ],
)
def test_the_more_specific_policy_and_entry_wins(policies, timeout):
    assert routes(outbounds(server(), *policies))[0]["route"]["timeout"] == timeout


ROUTE = route_policy("exports", {"matches": [{"path": {"type": "Exact", "value": "/x"}}], "default": {}})


@pytest.mark.parametrize(
    "about_route",
    [
        request_timeout("9s", "p", "MeshHTTPRoute", "exports"),
        request_timeout("9s", "p", top={"kind": "MeshHTTPRoute", "name": "exports"}),
    ],
)
def test_a_route_has_timeouts_of_its_own(about_route):
    found = routes(outbounds(server(), ROUTE, about_route, to({"http": {"streamIdleTimeout": "1s"}}, "all")))
    assert [(r["match"], r["route"]["timeout"], r["route"]["idleTimeout"]) for r in found] == [
        ({"path": "/x"}, "9s", "1s"),
        ({"prefix": "/"}, "15s", "1s"),
    ]


def test_another_route_has_not():
    about = request_timeout("9s", "p", top={"kind": "MeshHTTPRoute", "name": "other"})
    assert [r["route"]["timeout"] for r in routes(outbounds(server(), ROUTE, about))] == ["15s", "15s"]


def inbound_policy(name="p", top=None, **spec):
    return policy("MeshTimeout", name, {**spec, **({"targetRef": top} if top else {})})


@pytest.mark.parametrize(
    "policies",
    [
        [inbound_policy(rules=[{"default": ALL}])],
        [inbound_policy(**{"from": [{"targetRef": MESH, "default": ALL}]})],
        [
            inbound_policy("z", rules=[{"default": {"idleTimeout": "99s"}}]),
            inbound_policy("p", rules=[{"default": ALL}]),
        ],
        [
            inbound_policy("a", rules=[{"default": {"idleTimeout": "99s"}}]),
            inbound_policy(
                "p",
                {"kind": "Dataplane", "labels": {"app": "backend"}, "sectionName": "main"},
                rules=[{"default": ALL}],
            ),
            inbound_policy(
                "o", {"kind": "Dataplane", "sectionName": "other"}, rules=[{"default": {"idleTimeout": "99s"}}]
            ),
        ],
    ],
)
def test_inbounds(policies):
    found = inbounds(*policies, dataplane=server())
    cluster = clusters(found)["localhost:8080"]
    assert cluster["connectTimeout"] == "1s"
    said = {"idleTimeout": "2s", "maxStreamDuration": "5s", "maxConnectionDuration": "6s"}
    assert common_http(cluster) == said
    assert proxy(found)["requestHeadersTimeout"] == "7s"
    assert proxy(found)["commonHttpProtocolOptions"] == {"idleTimeout": "0s"}
    assert [(r["route"]["timeout"], r["route"]["idleTimeout"]) for r in routes(found)] == [("3s", "4s")]


def test_inbounds_for_connections():
    found = inbounds(inbound_policy(rules=[{"default": ALL}]), dataplane=server(protocol="tcp"))
    assert clusters(found)["localhost:8080"]["connectTimeout"] == "1s"
    assert proxy(found)["idleTimeout"] == "2s"


def test_inbounds_of_which_nobody_said_anything():
    found = inbounds(dataplane=server())
    assert clusters(found)["localhost:8080"]["connectTimeout"] == "5s"
    assert common_http(clusters(found)["localhost:8080"]) == {"idleTimeout": "3600s"}
    assert [(r["route"]["timeout"], r["route"]["idleTimeout"]) for r in routes(found)] == [("15s", "1800s")]


def client_rule(kind, value, timeout):
    return {
        "matches": [{"spiffeID": {"type": kind, "value": f"spiffe://default{value}"}}],
        "default": {"http": {"requestTimeout": timeout}},
    }


def test_some_clients_have_timeouts_of_their_own():
    rules = [
        {"default": {"http": {"requestTimeout": "1s", "streamIdleTimeout": "2s"}}},
        client_rule("Prefix", "/shop", "3s"),
        client_rule("Exact", "/shop", "4s"),
        {**client_rule("Prefix", "", "5s"), "default": {"http": {"streamIdleTimeout": "6s"}}},
    ]
    found = inbounds(inbound_policy(rules=rules), dataplane=server())
    said = [
        (
            [m["stringMatch"]["safeRegex"]["regex"] for m in r["match"].get("filterState", [])],
            r["route"]["timeout"],
            r["route"]["idleTimeout"],
        )
        for r in routes(found)
    ]
    assert said == [
        (["(.*,)?spiffe://default/shop(,.*)?"], "4s", "6s"),
        (["(.*,)?spiffe://default/shop.*"], "3s", "6s"),
        (["(.*,)?spiffe://default.*"], "1s", "6s"),
        ([], "1s", "2s"),
    ]
    [note] = chain(found)["filters"][0]["typedConfig"]["onDownstreamTlsHandshake"]
    assert note["objectKey"] == "kuma.mesh_timeout.match.spiffe_id"


def test_rules_for_some_clients_leave_the_others_alone():
    found = inbounds(inbound_policy(rules=[client_rule("Exact", "/a", "1s")]), dataplane=server())
    assert clusters(found)["localhost:8080"]["connectTimeout"] == "10s"
    assert [r["route"]["timeout"] for r in routes(found)] == ["1s", "0s"]


def test_without_mtls_nobody_knows_the_client():
    found = inbounds(inbound_policy(rules=[client_rule("Exact", "/a", "1s")]), dataplane=server(), mtls=False)
    assert [r["route"]["timeout"] for r in routes(found)] == ["0s"]
