"""What a MeshCircuitBreaker does to clusters of an Envoy.

Source: Kuma ``pkg/plugins/policies/meshcircuitbreaker/plugin`` (behaviour, not code).
"""

from collections.abc import Sequence
from typing import Any, cast

from meshd.model.duration import format_duration
from meshd.model.resource import Resource, Spec
from meshd.policies.mesh_circuit_breaker.spec import (
    Conf,
    ConnectionLimits,
    Detectors,
    FailurePercentage,
    GatewayFailures,
    LocalOriginFailures,
    MeshCircuitBreaker,
    OutlierDetection,
    SuccessRate,
    TotalFailures,
)
from meshd.rules.checks import decimal
from meshd.rules.inbound import Item, conf_for_all, inbound_rules
from meshd.rules.outbound import conf_of, to_entries
from meshd.rules.target_ref import TargetRef
from meshd.xds.encode import Document
from meshd.xds.shaping import ClusterDraft, InboundDraft, Shaper

ALWAYS, NEVER = 100, 0
"""The share of outliers, in percent, that are really left out."""

PANIC = "healthyPanicThreshold"


class CircuitBreakerShaper(Shaper):
    """See the module."""

    def cluster(self, draft: ClusterDraft, matched: Sequence[Resource]) -> None:
        """What a client puts up with from a destination."""
        configure(draft.document, conf_of(to_entries(matched, to_items), draft.destination.service) or Conf())

    def inbound(self, draft: InboundDraft, matched: Sequence[Resource]) -> None:
        """What a server takes on."""
        conf = conf_for_all(inbound_rules(matched, inbound_items)) if draft.dataplane is not None else None
        configure(draft.cluster, conf or Conf())


def to_items(spec: Spec) -> list[tuple[TargetRef, Conf]]:
    """The entries of ``to``."""
    return [(item.target_ref, item.default) for item in cast("MeshCircuitBreaker", spec).to or ()]


def from_items(spec: Spec) -> list[tuple[TargetRef, Conf]]:
    """The entries of ``from``."""
    return [(item.target_ref, item.default) for item in cast("MeshCircuitBreaker", spec).from_ or ()]


def inbound_items(spec: Spec) -> list[Item[Conf]]:
    """The entries of ``rules``, of ``from`` if there are none."""
    policy = cast("MeshCircuitBreaker", spec)
    if policy.rules:
        return [((), rule.default) for rule in policy.rules]
    return [((), item.default) for item in policy.from_ or ()]


def configure(cluster: Document, conf: Conf) -> None:
    """Put the limits and the detection of outliers into a cluster; it always counts what is left of its limits."""
    thresholds = _limits(conf.connection_limits or ConnectionLimits())
    cluster["circuitBreakers"] = {"thresholds": [{**thresholds, "trackRemaining": True}]}
    outliers = conf.outlier_detection
    if outliers is None:
        return
    # What a cluster has by itself against endpoints that cannot be reached goes: the policy has the say.
    cluster.pop("outlierDetection", None)
    balancing = {k: v for k, v in cluster.pop("commonLbConfig", {}).items() if k != PANIC}
    panic = decimal(outliers.healthy_panic_threshold)
    if panic is not None and not outliers.disabled:
        balancing[PANIC] = {"value": float(panic)}
    if balancing:
        cluster["commonLbConfig"] = balancing
    if not outliers.disabled:
        cluster["outlierDetection"] = _detection(outliers)


def _limits(limits: ConnectionLimits) -> Document:
    return _said(
        maxConnections=limits.max_connections,
        maxConnectionPools=limits.max_connection_pools,
        maxPendingRequests=limits.max_pending_requests,
        maxRetries=limits.max_retries,
        maxRequests=limits.max_requests,
    )


def _detection(outliers: OutlierDetection) -> Document:
    interval, ejection = outliers.interval, outliers.base_ejection_time
    detectors = outliers.detectors or Detectors()
    return {
        **_said(
            interval=format_duration(interval) if interval is not None else None,
            baseEjectionTime=format_duration(ejection) if ejection is not None else None,
            splitExternalLocalOriginErrors=outliers.split_external_and_local_errors,
            maxEjectionPercent=outliers.max_ejection_percent,
        ),
        **_in_a_row("Consecutive5xx", detectors.total_failures),
        **_in_a_row("ConsecutiveLocalOriginFailure", detectors.local_origin_failures),
        **_in_a_row("ConsecutiveGatewayFailure", detectors.gateway_failures),
        **_success_rate(detectors.success_rate),
        **_failure_percentage(detectors.failure_percentage),
    }


def _in_a_row(name: str, failures: TotalFailures | LocalOriginFailures | GatewayFailures | None) -> Document:
    consecutive = failures.consecutive if failures is not None else None
    field = f"{name[0].lower()}{name[1:]}"
    return {f"enforcing{name}": ALWAYS if consecutive else NEVER, **_said(**{field: consecutive or None})}


def _success_rate(rate: SuccessRate | None) -> Document:
    enforcing = ALWAYS if rate is not None else NEVER
    rate = rate or SuccessRate()
    factor = decimal(rate.standard_deviation_factor)
    return {
        "enforcingSuccessRate": enforcing,
        "enforcingLocalOriginSuccessRate": enforcing,
        **_said(
            successRateMinimumHosts=rate.minimum_hosts,
            successRateRequestVolume=rate.request_volume,
            successRateStdevFactor=int(factor * 1000) if factor is not None else None,
        ),
    }


def _failure_percentage(rate: FailurePercentage | None) -> Document:
    enforcing = ALWAYS if rate is not None else NEVER
    rate = rate or FailurePercentage()
    return {
        "enforcingFailurePercentage": enforcing,
        "enforcingFailurePercentageLocalOrigin": enforcing,
        **_said(
            failurePercentageMinimumHosts=rate.minimum_hosts,
            failurePercentageRequestVolume=rate.request_volume,
            failurePercentageThreshold=rate.threshold,
        ),
    }


def _said(**fields: Any) -> Document:
    return {name: value for name, value in fields.items() if value is not None}
