"""What the schema of a MeshCircuitBreaker cannot say.

Source: Kuma ``pkg/plugins/policies/meshcircuitbreaker/api/v1alpha1/validator.go`` (behaviour, not code).
"""

from collections.abc import Iterator
from typing import cast

from meshd.model.errors import Violation
from meshd.model.resource import Resource
from meshd.policies.mesh_circuit_breaker.spec import (
    Conf,
    ConnectionLimits,
    Detectors,
    MeshCircuitBreaker,
    OutlierDetection,
    SuccessRate,
)
from meshd.rules import target_ref
from meshd.rules.checks import decimal, longer_than_zero, more_than_zero, percentage
from meshd.rules.sections import sections_violations
from meshd.rules.target_ref import PROXIES, Kind

DESTINATIONS = (Kind.MESH, Kind.MESH_SERVICE, Kind.MESH_EXTERNAL_SERVICE, Kind.MESH_MULTI_ZONE_SERVICE)


def validate(resource: Resource) -> tuple[Violation, ...]:
    """Everything wrong with a policy whose schema is right, in the order of the document."""
    spec = cast("MeshCircuitBreaker", resource.spec)
    found: list[Violation] = []
    if spec.target_ref is not None:
        found += target_ref.violations(
            spec.target_ref,
            "spec.targetRef",
            (*PROXIES, Kind.MESH_GATEWAY),
            inbound_policy=bool(spec.from_ or spec.rules),
            gateway_tags=True,
        )
    found += sections_violations(spec.to, spec.from_, spec.rules)
    for index, item in enumerate(spec.to or ()):
        found += target_ref.violations(item.target_ref, f"spec.to[{index}].targetRef", DESTINATIONS)
        found += _conf(item.default, f"spec.to[{index}].default")
    for index, client in enumerate(spec.from_ or ()):
        found += target_ref.violations(client.target_ref, f"spec.from[{index}].targetRef", (Kind.MESH,))
        found += _conf(client.default, f"spec.from[{index}].default")
    for index, rule in enumerate(spec.rules or ()):
        found += _conf(rule.default, f"spec.rules[{index}].default")
    return tuple(found)


def _conf(conf: Conf, path: str) -> Iterator[Violation]:
    if conf.connection_limits is None and conf.outlier_detection is None:
        yield Violation(path, "at least one of 'connectionLimits' or 'outlierDetection' must be set")
    if conf.connection_limits is not None:
        yield from _limits(conf.connection_limits, f"{path}.connectionLimits")
    if conf.outlier_detection is not None:
        yield from _outliers(conf.outlier_detection, f"{path}.outlierDetection")


def _limits(limits: ConnectionLimits, path: str) -> Iterator[Violation]:
    for field, value in (
        ("maxConnections", limits.max_connections),
        ("maxConnectionPools", limits.max_connection_pools),
        ("maxPendingRequests", limits.max_pending_requests),
        ("maxRetries", limits.max_retries),
        ("maxRequests", limits.max_requests),
    ):
        yield from more_than_zero(f"{path}.{field}", value)


def _outliers(outliers: OutlierDetection, path: str) -> Iterator[Violation]:
    yield from longer_than_zero(f"{path}.interval", outliers.interval)
    yield from longer_than_zero(f"{path}.baseEjectionTime", outliers.base_ejection_time)
    yield from percentage(f"{path}.maxEjectionPercent", outliers.max_ejection_percent)
    if outliers.detectors is None:
        yield Violation(f"{path}.detectors", "must be set")
    else:
        yield from _detectors(outliers.detectors, f"{path}.detectors")
    yield from percentage(f"{path}.healthyPanicThreshold", outliers.healthy_panic_threshold)


def _detectors(detectors: Detectors, path: str) -> Iterator[Violation]:
    in_a_row = (
        ("totalFailures", detectors.total_failures),
        ("gatewayFailures", detectors.gateway_failures),
        ("localOriginFailures", detectors.local_origin_failures),
    )
    by_rate = (("successRate", detectors.success_rate), ("failurePercentage", detectors.failure_percentage))
    if all(detector is None for _, detector in (*in_a_row, *by_rate)):
        names = ", ".join(name for name, _ in (*in_a_row, *by_rate))
        yield Violation(path, f"at least one of {names} must be set")
    for name, failures in in_a_row:
        if failures is not None:
            yield from more_than_zero(f"{path}.{name}.consecutive", failures.consecutive)
    for name, rate in by_rate:
        if rate is not None:
            yield from more_than_zero(f"{path}.{name}.minimumHosts", rate.minimum_hosts)
            yield from more_than_zero(f"{path}.{name}.requestVolume", rate.request_volume)
    if detectors.success_rate is not None:
        yield from _factor(f"{path}.successRate.standardDeviationFactor", detectors.success_rate)
    if detectors.failure_percentage is not None:
        yield from percentage(f"{path}.failurePercentage.threshold", detectors.failure_percentage.threshold)


def _factor(path: str, rate: SuccessRate) -> Iterator[Violation]:
    if rate.standard_deviation_factor is None:
        return
    number = decimal(rate.standard_deviation_factor)
    if number is None:
        yield Violation(path, f'must be a number, not "{rate.standard_deviation_factor}"')
    elif number <= 0:
        yield Violation(path, f"must be greater than 0, not {rate.standard_deviation_factor}")
