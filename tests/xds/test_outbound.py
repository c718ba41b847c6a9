"""Outbounds of a Dataplane, as documents."""

import pytest

from meshd.xds.matched import Matched
from meshd.xds.outbound import Settings, Wanted, destination_of, outbound, outbound_cluster
from meshd.xds.resources import ENDPOINTS
from meshd.xds.shaping import Backend, HttpRoute, Routes, Shaper
from tests.topology import builders as b
from tests.topology.views import build_views
from tests.xds.support import GOLDENS, document_of, golden_text

NOTHING = Matched(())
HTTP = {"kuma.io/protocol": "http"}


def read_nothing(mesh, source):
    raise ValueError(f"{mesh} has no {source}")


SETTINGS = Settings(binds=True, ipv6=True, read_source=read_nothing)


def view_of(*resources, mesh=None):
    return build_views([mesh or b.mesh(), *resources])["default"]


def backend(service="backend", protocol="http", name="backend-1", address="10.0.0.1", **tags):
    return b.dataplane(name, b.inbound(service, tags={"kuma.io/protocol": protocol, **tags}), address=address)


class Fixed(Shaper):
    """Says the same of every destination."""

    def __init__(self, routes):
        self._routes = routes

    def routes(self, matched, destination, protocols):  # noqa: ARG002
        return self._routes


def through(*routes, tcp=None):
    return Matched(((Fixed(Routes(routes or None, tcp)), ()),))


def rendered(view, wanted, matched=NOTHING, settings=SETTINGS):
    listener, needed = outbound(view, wanted, matched, settings)
    resources = [r for key in sorted(needed) for r in outbound_cluster(view, key, matched, settings)]
    return [*resources, listener]


def manager_of(resource):
    return document_of(resource)["filterChains"][0]["filters"][0]["typedConfig"]


def routes_of(resource):
    return manager_of(resource)["routeConfig"]["virtualHosts"][0]["routes"]


ACROSS = [
    backend(),
    backend(name="backend-2", address="10.0.0.2", version="v2"),
    b.ingress("zone-b-ingress", "zone-b", [b.available("backend", 3, **HTTP)], address="10.1.0.1"),
]


@pytest.mark.parametrize(
    ("case", "resources", "mesh"),
    [
        ("outbound-http-mtls", ACROSS, b.mesh()),
        ("outbound-http-locality", ACROSS, b.mesh(locality=True)),
        ("outbound-http-egress", [*ACROSS, b.egress("egress")], b.mesh(zone_egress=True)),
        ("outbound-http-plain", ACROSS, b.mesh(mtls=False)),
        ("outbound-tcp-mtls", [backend(protocol="tcp")], b.mesh()),
        ("outbound-grpc-mtls", [backend(protocol="grpc")], b.mesh()),
        ("outbound-nobody", [], b.mesh()),
        ("outbound-external", [b.external("es", "backend", "example.com:80", tags=HTTP)], b.mesh()),
        (
            "outbound-external-egress",
            [b.external("es", "backend", "example.com:80", tags=HTTP), b.egress("egress")],
            b.mesh(zone_egress=True),
        ),
    ],
)
def test_goldens(case, resources, mesh, golden):
    view = view_of(*resources, mesh=mesh)

    golden(GOLDENS / f"{case}.yaml", golden_text(rendered(view, Wanted("127.0.0.1", 10001, "backend"))))


def test_some_instances_have_a_cluster_and_an_sni_of_their_own(golden):
    view = view_of(*ACROSS)

    found = rendered(view, Wanted("127.0.0.1", 10001, "backend", (("version", "v2"),)))

    golden(GOLDENS / "outbound-subset.yaml", golden_text(found))


@pytest.mark.parametrize("egress", [False, True])
def test_some_instances_of_other_zones_are_found_behind_the_gates(egress):
    def offering(v1, v2):
        offers = [b.available("backend", n, version=v, **HTTP) for v, n in (("v1", v1), ("v2", v2))]
        return b.ingress("zone-b-ingress", "zone-b", offers, address="10.1.0.1")

    def weights(**counts):
        view = view_of(backend(version="v2"), offering(**counts), b.egress("e"), mesh=b.mesh(zone_egress=egress))
        found = rendered(view, Wanted("127.0.0.1", 10001, "backend", (("version", "v2"),)))
        (assigned,) = [document_of(r) for r in found if r.type_url == ENDPOINTS]
        return [
            (e["endpoint"]["address"]["socketAddress"]["address"], e["loadBalancingWeight"])
            for locality in assigned["endpoints"]
            for e in locality["lbEndpoints"]
        ]

    gate = "10.0.0.9" if egress else "10.1.0.1"
    assert weights(v1=2, v2=3) == [("10.0.0.1", 1), (gate, 3)]
    assert weights(v1=3, v2=2) == [("10.0.0.1", 1), (gate, 2)], "their sum is as before"
    assert weights(v1=3, v2=0) == [("10.0.0.1", 1)]


def test_a_mixed_service_is_tcp_so_that_nobody_gets_http2_who_does_not_speak_it():
    view = view_of(backend(), backend(name="backend-2", address="10.0.0.2", protocol="tcp"))

    cluster, _, listener = rendered(view, Wanted("127.0.0.1", 10001, "backend"))

    assert "typedExtensionProtocolOptions" not in document_of(cluster)
    assert "tcp_proxy" in manager_of(listener)["@type"]


def test_routes_share_weight_and_mirror(golden):
    mirrored = {"route": {"requestMirrorPolicies": [{"runtimeFraction": {"defaultValue": {"numerator": 10}}}]}}
    routes = (
        HttpRoute("split", {"path": "/v1"}, (Backend("backend", 3), Backend("backend", 1, (("version", "v2"),)))),
        HttpRoute("mirror", {"prefix": "/m"}, (Backend("backend"),), mirrored, (Backend("copy"),)),
        HttpRoute("away", {"prefix": "/old"}, (), {"redirect": {"hostRedirect": "new.example"}}),
        HttpRoute("nowhere", {"prefix": "/"}, ()),
    )

    found = rendered(view_of(*ACROSS), Wanted("127.0.0.1", 10001, "backend"), through(*routes))

    golden(GOLDENS / "outbound-routes.yaml", golden_text(found))


def test_a_share_of_nothing_is_left_out_and_a_route_without_backends_is_a_500():
    route = HttpRoute("none", {"prefix": "/"}, (Backend("backend", 0),), {"route": {"prefixRewrite": "/x"}})

    listener, _ = outbound(view_of(*ACROSS), Wanted("127.0.0.1", 1, "backend"), through(route), SETTINGS)

    assert routes_of(listener) == [{"name": "none", "match": {"prefix": "/"}, "directResponse": {"status": 500}}]


def test_tcp_shares():
    view = view_of(backend(protocol="tcp"))
    shares = (Backend("backend", 9), Backend("other", 1), Backend("nothing", 0))

    listener, needed = outbound(view, Wanted("127.0.0.1", 1, "backend"), through(tcp=shares), SETTINGS)

    weighted = manager_of(listener)["weightedClusters"]["clusters"]
    assert [(c["name"], c["weight"]) for c in weighted] == [("backend", 9), ("other", 1)]
    assert {service for service, _ in needed} == {"backend", "other", "nothing"}


def test_a_redirected_proxy_binds_nothing():
    settings = Settings(binds=False, ipv6=False, read_source=read_nothing)

    listener, _ = outbound(view_of(*ACROSS), Wanted("240.0.0.1", 80, "backend"), NOTHING, settings)

    document = document_of(listener)
    assert document["bindToPort"] is False
    assert not any(":" in r["addressPrefix"] for r in manager_of(listener)["internalAddressConfig"]["cidrRanges"])


def test_certificates_that_cannot_be_read_leave_no_endpoint():
    es = b.external("es", "backend", "10.9.9.9:443")
    tls = {"enabled": True, "ca_cert": {"secret": "missing"}}
    spec = es.spec.model_copy(
        update={"networking": type(es.spec.networking).model_validate({"address": "10.9.9.9:443", "tls": tls})}
    )
    view = view_of(type(es)(es.key, spec))

    cluster, *_ = rendered(view, Wanted("127.0.0.1", 1, "backend"))

    assert not document_of(cluster)["loadAssignment"].get("endpoints")


def test_what_nobody_offers_speaks_tcp():
    assert destination_of(view_of(), "nobody").protocol == "tcp"
