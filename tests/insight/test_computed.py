from meshd.insight.computed import Health, compute_mesh_insight, compute_service_insight, join
from meshd.kinds.dataplane import Dataplane, Gateway, GatewayType, Inbound, InboundState, Networking
from meshd.kinds.external_service import ExternalService
from meshd.kinds.proxy_insights import DataplaneInsight, DiscoverySubscription, KumaDpVersion, Mtls, Version
from meshd.kinds.service_insight import ServiceType, Status
from meshd.model.resource import Resource, ResourceKey
from meshd.model.steps import finished
from tests.rest.support import NOW

OPEN = DiscoverySubscription(id="1", connect_time=NOW, version=Version(kuma_dp=KumaDpVersion(version="1.0")))
CLOSED = OPEN.model_copy(update={"disconnect_time": NOW})


def dataplane(name, *services, zone="zone-a", states=()):
    states = states or [InboundState.READY] * len(services)
    inbound = tuple(
        Inbound(port=80 + i, tags={"kuma.io/service": s, "kuma.io/zone": zone}, state=state)
        for i, (s, state) in enumerate(zip(services, states, strict=True))
    )
    return Resource(ResourceKey("Dataplane", "default", name), Dataplane(networking=Networking(inbound=inbound)))


def gateway(name, kind=GatewayType.DELEGATED):
    networking = Networking(gateway=Gateway(tags={"kuma.io/service": name}, type=kind))
    return Resource(ResourceKey("Dataplane", "default", name), Dataplane(networking=networking))


def insight(name, *subscriptions, backend=""):
    mtls = Mtls(issued_backend=backend, supported_backends=(backend, "old")) if backend else None
    spec = DataplaneInsight(subscriptions=subscriptions, mtls=mtls)
    return Resource(ResourceKey("DataplaneInsight", "default", name), spec)


def external(name, service):
    return Resource(ResourceKey("ExternalService", "default", name), ExternalService(tags={"kuma.io/service": service}))


NOT_READY = InboundState.NOT_READY


def test_health_needs_an_open_subscription_and_ready_inbounds():
    proxies = join(
        [
            dataplane("a", "x"),
            dataplane("b", "x"),
            dataplane("c", "x"),
            dataplane("d", "x", "y", states=(NOT_READY, InboundState.READY)),
            dataplane("e", "x", states=(NOT_READY,)),
            gateway("g"),
        ],
        [insight("a", CLOSED, OPEN), insight("b", CLOSED), insight("d", OPEN), insight("e", OPEN), insight("g", OPEN)],
    )
    assert [p.health for p in proxies] == [
        Health.ONLINE,
        Health.OFFLINE,
        Health.OFFLINE,
        Health.PARTIALLY_DEGRADED,
        Health.OFFLINE,
        Health.ONLINE,
    ]


def test_mesh_insight_counts_proxies_services_policies_and_certificates():
    proxies = join(
        [dataplane("a", "x"), dataplane("b", "x", "y"), gateway("g"), gateway("h", GatewayType.BUILTIN)],
        [insight("a", OPEN, backend="ca-1"), insight("g", OPEN, backend="ca-1"), insight("b", CLOSED, backend="ca-0")],
    )
    found = finished(
        compute_mesh_insight(
            proxies, [external("e", "db")], {"MeshTrafficPermission": 2}, {"Dataplane": 4, "ExternalService": 0}
        )
    )
    assert (found.dataplanes.total, found.dataplanes.online, found.dataplanes.offline) == (4, 2, 2)
    by_type = found.dataplanes_by_type
    assert (by_type.standard.total, by_type.gateway.total, by_type.gateway_builtin.total) == (2, 2, 1)
    assert (found.services.total, found.services.internal, found.services.external) == (5, 4, 1)
    assert found.policies["MeshTrafficPermission"].total == 2
    assert set(found.resources) == {"Dataplane"}
    assert {k: v.total for k, v in found.mtls.issued_backends.items()} == {"ca-0": 1, "ca-1": 2}
    assert found.mtls.supported_backends["old"].total == 3
    assert {k: v.total for k, v in found.dp_versions.kuma_dp.items()} == {"1.0": 3, "unknown": 1}


def test_service_insight_says_how_much_of_each_service_is_up_and_where():
    proxies = join(
        [
            dataplane("a", "x"),
            dataplane("b", "x", zone="zone-b"),
            dataplane("c", "y"),
            dataplane("d", "z", "w", states=(NOT_READY, InboundState.READY)),
            gateway("g"),
        ],
        [insight("a", OPEN, backend="ca-1"), insight("d", OPEN), insight("g", OPEN)],
    )
    found = finished(compute_service_insight(proxies, [external("e", "db"), external("f", "x")], "mesh", 80)).services
    assert list(found) == ["db", "g", "w", "x", "y", "z"]
    assert {k: v.status for k, v in found.items()} == {
        "db": Status.NOT_AVAILABLE,
        "g": Status.ONLINE,
        "w": Status.ONLINE,
        "x": Status.PARTIALLY_DEGRADED,
        "y": Status.OFFLINE,
        "z": Status.OFFLINE,
    }
    x = found["x"]
    assert (x.dataplanes.total, x.dataplanes.online, x.zones) == (2, 1, ("zone-a", "zone-b"))
    assert (x.issued_backends, x.address_port) == ({"ca-1": 1}, "x.mesh:80")
    assert (found["g"].address_port, found["x"].address_port) == ("", "x.mesh:80")
    assert (found["g"].service_type, found["db"].service_type) == (ServiceType.GATEWAY_DELEGATED, ServiceType.EXTERNAL)


def test_the_same_resources_in_another_order_give_the_same_insight():
    dataplanes = [dataplane("a", "x"), dataplane("b", "y"), dataplane("c", "x")]
    insights = [insight("a", OPEN, backend="ca-1"), insight("c", OPEN, backend="ca-0")]
    one = finished(compute_service_insight(join(dataplanes, insights), [], "mesh", 80))
    other = finished(compute_service_insight(join(reversed(dataplanes), reversed(insights)), [], "mesh", 80))
    assert one.model_dump_json() == other.model_dump_json()
