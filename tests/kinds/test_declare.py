from pathlib import Path

import pytest

from meshd.kinds import KINDS
from meshd.model.registry import Registry
from meshd.model.resource_type import Flow
from meshd.model.wire import schema_of
from meshd.policies import discover

GOLDEN = Path(__file__).parents[1] / "golden" / "registry.txt"


def test_registry_as_a_table(golden):
    golden(GOLDEN, Registry([*KINDS, *(p.type for p in discover())]).table())


@pytest.mark.parametrize("type_", [t for t in KINDS if t.message is not None], ids=lambda t: t.kind)
def test_spec_and_message_have_the_same_fields(type_):
    schema = schema_of(type_.spec, type_.message)
    assert len(schema.fields) == len(type_.spec.model_fields)
    namespace, name = type_.message_name.rsplit(".", 1)
    assert type_.message.__module__.endswith(namespace)
    assert type_.message.__name__ == name


@pytest.mark.parametrize(
    ("flow", "kinds"),
    [
        (
            Flow.GLOBAL_TO_ZONE,
            (
                "CircuitBreaker Config ExternalService FaultInjection GlobalSecret HealthCheck HostnameGenerator Mesh"
                " MeshAccessLog MeshCircuitBreaker MeshExternalService MeshFaultInjection MeshGateway MeshGatewayRoute"
                " MeshHTTPRoute MeshHealthCheck MeshIdentity MeshLoadBalancingStrategy MeshMetric MeshMultiZoneService"
                " MeshOpenTelemetryBackend MeshPassthrough MeshProxyPatch MeshRateLimit MeshRetry MeshTCPRoute MeshTLS"
                " MeshTimeout MeshTrace MeshTrafficPermission MeshTrust ProxyTemplate RateLimit Retry Secret "
                "ServiceInsight Timeout TrafficLog TrafficPermission TrafficRoute TrafficTrace VirtualOutbound"
            ),
        ),
        (
            Flow.ZONE_TO_GLOBAL,
            (
                "Dataplane DataplaneInsight HostnameGenerator MeshAccessLog MeshCircuitBreaker MeshExternalService"
                " MeshFaultInjection MeshGateway MeshHTTPRoute MeshHealthCheck MeshIdentity MeshLoadBalancingStrategy"
                " MeshMetric MeshOpenTelemetryBackend MeshPassthrough MeshProxyPatch MeshRateLimit MeshRetry "
                "MeshService MeshTCPRoute MeshTLS MeshTimeout MeshTrace MeshTrafficPermission MeshTrust "
                "MeshZoneAddress Workload ZoneEgress ZoneEgressInsight ZoneIngress ZoneIngressInsight"
            ),
        ),
        (
            Flow.ACROSS_ZONES,
            (
                "MeshAccessLog MeshCircuitBreaker MeshFaultInjection MeshHTTPRoute MeshHealthCheck"
                " MeshLoadBalancingStrategy MeshMetric MeshPassthrough MeshProxyPatch MeshRateLimit MeshRetry "
                "MeshService MeshTCPRoute MeshTLS MeshTimeout MeshTrace MeshTrafficPermission MeshZoneAddress "
                "ZoneIngress"
            ),
        ),
    ],
)
def test_what_travels_which_way(flow, kinds):
    """As a Kuma 2.14.3 requests them: with what the global forwards, 45 kinds come to a zone and 31 to the global."""
    registry = Registry([*KINDS, *(p.type for p in discover())])
    assert [t.kind for t in registry.flowing(flow)] == kinds.split()


def test_as_many_kinds_are_asked_for_as_kuma_asks_for():
    registry = Registry([*KINDS, *(p.type for p in discover())])
    to_zone = {*registry.flowing(Flow.GLOBAL_TO_ZONE), *registry.flowing(Flow.ACROSS_ZONES)}
    assert (len(to_zone), len(registry.flowing(Flow.ZONE_TO_GLOBAL))) == (45, 31)
