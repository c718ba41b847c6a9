from dataclasses import replace

import pytest

from meshd.kinds.dataplane import Dataplane
from meshd.l4.render import Settings, check, fixed_listeners
from meshd.l4.table import EMPTY, Cluster, ExternalRoute, TlsMode
from meshd.l4.update import render
from meshd.model.resource import Resource, ResourceKey
from meshd.topology.view import Group, Reach
from tests.l4.lab import Allow, dataplane, egress, endpoint, ingress, mesh, service, view, vip
from tests.l4.test_external import external


def permit_for(*_):
    return Allow()


def table(proxy, *views, **settings):
    return render({v.mesh_name: v for v in views}, proxy, permit_for, Settings(**settings))


def from_networking(**networking) -> Resource:
    body = {"networking": {"address": "10.0.0.1", **networking}}
    return Resource(ResourceKey("Dataplane", "default", "x"), Dataplane.model_validate(body))


def test_no_view_no_routes():
    assert table(dataplane("shop", outbound=[(1, "web")])) == EMPTY


@pytest.mark.parametrize(
    ("mode", "wanted"), [(None, TlsMode.NONE), ("STRICT", TlsMode.STRICT), ("PERMISSIVE", TlsMode.PERMISSIVE)]
)
def test_inbound_follows_the_mesh(mode, wanted):
    (inbound,) = table(dataplane("web-1", inbound=[(80, 8080, "web")]), view(mode=mode)).inbounds
    assert inbound.tls is wanted
    assert (inbound.permit is None) == (mode is None)
    assert inbound.application == ("127.0.0.1", 8080)
    if mode:
        assert inbound.identity == (
            "default",
            "web-1",
            ("spiffe://default/web", "kuma://kuma.io/service/web"),
        )


def test_every_inbound_has_a_permit_of_its_own_section():
    tags = {"kuma.io/service": "web"}
    inbounds = [
        {"port": 1, "servicePort": 2, "tags": tags, "name": "main"},
        {"port": 3, "servicePort": 4, "tags": tags},
    ]
    asked = []

    def permits(_, proxy, tags, section):
        asked.append((proxy.key.name, tags["kuma.io/service"], section))
        return Allow()

    render({"default": view()}, from_networking(inbound=inbounds), permits, Settings())
    assert asked == [("x", "web", "main"), ("x", "web", "3")]


def test_application_is_at_service_address_else_where_the_inbound_is():
    tags = {"kuma.io/service": "web"}
    inbounds = [
        {"port": 1, "servicePort": 2, "tags": tags},
        {"port": 1, "servicePort": 2, "address": "10.0.0.2", "tags": tags},
        {"port": 1, "serviceAddress": "127.0.0.1", "tags": tags},
    ]
    rendered = table(from_networking(inbound=inbounds), view()).inbounds
    assert [(i.address, i.application) for i in rendered] == [
        ("10.0.0.1", ("10.0.0.1", 2)),
        ("10.0.0.2", ("10.0.0.2", 2)),
        ("10.0.0.1", ("127.0.0.1", 1)),
    ]


def test_outbound_uses_mesh_mtls_exactly():
    (outbound,) = table(
        dataplane("shop", gateway="shop", outbound=[(1, "web")]), view(service("web", endpoint(9)))
    ).outbounds
    assert outbound.address == "127.0.0.1"
    tls = outbound.cluster.tls
    assert tls is not None
    assert (tls.sni, tls.expected_uri) == (b"web{mesh=default}", "spiffe://default/web")


def test_plaintext_mesh_has_plaintext_clusters():
    (outbound,) = table(
        dataplane("shop", outbound=[(1, "web")]), view(service("web", endpoint(9)), mode=None)
    ).outbounds
    assert outbound.cluster.tls is None


def test_outbound_tags_narrow_endpoints_and_name_the_subset():
    target = service("web", endpoint(1, version="v1"), endpoint(2, version="v2"))
    proxy = from_networking(
        gateway={"tags": {"kuma.io/service": "shop"}},
        outbound=[{"port": 7, "tags": {"kuma.io/service": "web", "version": "v2"}}],
    )
    (outbound,) = table(proxy, view(target)).outbounds
    assert [e.port for e in outbound.cluster.endpoints] == [2]
    assert outbound.cluster.tls.sni == b"web{mesh=default,version=v2}"


def test_outbound_tags_find_instances_behind_gates():
    gates = (endpoint(1, zone="b", reach=Reach.INGRESS), endpoint(2, zone="c", reach=Reach.INGRESS))
    groups = {"b": (Group({"version": "v1"}, 2), Group({"version": "v2"}, 3)), "c": (Group({"version": "v1"}, 2),)}
    target = replace(service("web", *gates), groups=groups)
    proxy = from_networking(
        gateway={"tags": {"kuma.io/service": "shop"}},
        outbound=[{"port": 7, "tags": {"kuma.io/service": "web", "version": v}} for v in ("v1", "v2")],
    )
    v1, v2 = table(proxy, view(target)).outbounds
    assert [(e.zone, e.weight) for e in v1.cluster.endpoints] == [("b", 1), ("c", 1)]
    assert [(e.zone, e.weight) for e in v2.cluster.endpoints] == [("b", 1)]
    for routed in (
        table(ingress(7), view(ingress=[target])).sni[0].routes,
        table(egress(7), view(egress=[target])).sni[0].routes,
    ):
        assert routed[b"web{mesh=default}"].groups == groups


def test_unknown_service_listens_and_has_no_endpoints():
    (outbound,) = table(dataplane("shop", gateway="shop", outbound=[(1, "gone")]), view()).outbounds
    assert outbound.cluster.endpoints == ()


def test_proxy_without_identity_is_refused_destinations_under_mtls():
    (outbound,) = table(dataplane("shop", outbound=[(1, "web")]), view(service("web", endpoint(1)))).outbounds
    assert "kuma.io/service" in outbound.cluster.refused


def test_vips_are_grouped_by_port_and_only_for_their_owner():
    both = view(
        service("a", endpoint(1)),
        service("b", endpoint(2)),
        vips={"a": vip("240.0.0.1", a=80), "b": vip("240.0.0.2", b=80)},
    )
    proxy = dataplane("host", gateway="host")
    assert table(proxy, both).vips == ()
    (listener,) = table(proxy, both, owns_vips=True).vips
    assert listener.port == 80
    assert {a: c.name for a, c in listener.clusters.items()} == {"240.0.0.1": "a", "240.0.0.2": "b"}


def test_external_service_by_egress_expects_the_egress_identity():
    target = service("api", endpoint(1, reach=Reach.EGRESS), external=external(443))
    (outbound,) = table(dataplane("shop", gateway="shop", outbound=[(1, "api")]), view(target)).outbounds
    assert outbound.cluster.tls.expected_uri == "spiffe://default/zone-egress"


def test_ingress_routes_every_mesh_by_sni_in_lower_case_without_ending_tls():
    views = (
        view(ingress=[service("Web", endpoint(1))]),
        replace(view(name="blue", mode=None, ingress=[service("web", endpoint(2))])),
    )
    (listener,) = table(ingress(10001), *views).sni
    assert set(listener.routes) == {b"web{mesh=default}", b"web{mesh=blue}"}
    assert all(isinstance(r, Cluster) and r.tls is None for r in listener.routes.values())
    assert table(ingress(1), *views).identities() == frozenset()


def test_egress_serves_meshes_with_mtls_and_ends_tls_for_its_own_external_services_only():
    inside = service("web", endpoint(1, reach=Reach.INGRESS))
    outside = service("api", endpoint(443, reach=Reach.EXTERNAL), external=external(443))
    elsewhere = service("far", endpoint(2, reach=Reach.INGRESS), external=external(443))
    rendered = table(
        egress(10002), view(egress=[inside, outside, elsewhere]), view(name="plain", mode=None, egress=[inside])
    )
    (listener,) = rendered.sni
    kinds = {sni: type(route) for sni, route in listener.routes.items()}
    assert kinds == {b"web{mesh=default}": Cluster, b"api{mesh=default}": ExternalRoute, b"far{mesh=default}": Cluster}
    (identity,) = rendered.identities()
    assert identity.uris == ("spiffe://default/zone-egress", "kuma://kuma.io/service/zone-egress")


TAGS = {"kuma.io/service": "web"}


@pytest.mark.parametrize(
    ("networking", "field", "reason"),
    [
        (
            {"inbound": [{"port": 80, "servicePort": 81, "tags": {**TAGS, "kuma.io/protocol": "http"}}]},
            "networking.inbound[0]",
            "'http'",
        ),
        (
            {"inbound": [{"port": 80, "servicePort": 81, "tags": TAGS, "protocol": "GRPC"}]},
            "networking.inbound[0]",
            "'grpc'",
        ),
        ({"inbound": [{"port": 80, "tags": TAGS}]}, "networking.inbound[0]", "10.0.0.1:80, where its own application"),
        (
            {"inbound": [{"port": 80, "serviceAddress": "0.0.0.0", "tags": TAGS}]},
            "networking.inbound[0]",
            "own application",
        ),
        (
            {"outbound": [{"port": 80, "backendRef": {"kind": "MeshService", "name": "a", "port": 1}}]},
            "networking.outbound[0]",
            "backendRef",
        ),
        ({"gateway": {"type": "BUILTIN", "tags": TAGS}}, "networking.gateway", "builtin gateway"),
        ({"transparentProxying": {"redirectPortOutbound": 15001}}, "networking.transparentProxying", "redirected"),
    ],
)
def test_what_the_engine_cannot_run_is_refused_with_the_reason_and_left_out(networking, field, reason):
    proxy = from_networking(**networking)
    (violation,) = check(proxy)
    assert violation.field == field
    assert reason in violation.message
    rendered = table(proxy, view())
    assert rendered.refused == (violation,)
    assert rendered.inbounds == rendered.outbounds == ()
    assert fixed_listeners(proxy) == ()


def test_a_good_proxy_has_nothing_refused_and_names_its_listeners():
    proxy = from_networking(
        inbound=[{"port": 80, "servicePort": 81, "tags": TAGS}], outbound=[{"port": 82, "tags": TAGS}]
    )
    assert check(proxy) == ()
    assert fixed_listeners(proxy) == (
        ("networking.inbound[0]", "10.0.0.1", 80),
        ("networking.outbound[0]", "127.0.0.1", 82),
    )
    assert fixed_listeners(ingress(5)) == (("networking", "127.0.0.1", 5),)


def test_what_is_no_proxy_is_a_value_error():
    with pytest.raises(ValueError, match="not a proxy"):
        table(mesh(), view())
