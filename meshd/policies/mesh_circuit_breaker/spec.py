"""The spec of a MeshCircuitBreaker, field for field as Kuma 2.14 has it."""

from pydantic import Field

from meshd.model.fields import GoDuration, NumberOrText, UInt32
from meshd.model.resource import Spec
from meshd.rules.target_ref import TargetRef


class ConnectionLimits(Spec):
    """How much may be going on towards a destination at once; what is beyond is refused at once."""

    max_connections: UInt32 | None = None
    max_connection_pools: UInt32 | None = None
    max_pending_requests: UInt32 | None = None
    max_retries: UInt32 | None = None
    max_requests: UInt32 | None = None


class TotalFailures(Spec):
    """So many server errors (5xx; of TCP: failed connections) in a row."""

    consecutive: UInt32 | None = None


class GatewayFailures(Spec):
    """So many of 502, 503 and 504 in a row."""

    consecutive: UInt32 | None = None


class LocalOriginFailures(Spec):
    """So many failures of this side in a row (timeouts, resets); needs ``splitExternalAndLocalErrors``."""

    consecutive: UInt32 | None = None


class SuccessRate(Spec):
    """A success rate below the mean of all instances by ``standard_deviation_factor`` standard deviations.

    Only with ``minimum_hosts`` instances that had ``request_volume`` requests in an interval each.
    """

    minimum_hosts: UInt32 | None = None
    request_volume: UInt32 | None = None
    standard_deviation_factor: NumberOrText | None = None


class FailurePercentage(Spec):
    """``threshold`` percent of requests failed; the other fields are as in ``SuccessRate``."""

    minimum_hosts: UInt32 | None = None
    request_volume: UInt32 | None = None
    threshold: UInt32 | None = None


class Detectors(Spec):
    """What makes an instance an outlier: any of these."""

    total_failures: TotalFailures | None = None
    gateway_failures: GatewayFailures | None = None
    local_origin_failures: LocalOriginFailures | None = None
    success_rate: SuccessRate | None = None
    failure_percentage: FailurePercentage | None = None


class OutlierDetection(Spec):
    """Leaving out instances that fail, for ``base_ejection_time`` times the number of times it happened to them.

    ``max_ejection_percent`` of the instances at most, but always one. With less than ``healthy_panic_threshold``
    percent left, all are used again.
    """

    disabled: bool | None = None
    interval: GoDuration | None = None
    base_ejection_time: GoDuration | None = None
    max_ejection_percent: UInt32 | None = None
    split_external_and_local_errors: bool | None = None
    detectors: Detectors | None = None
    healthy_panic_threshold: NumberOrText | None = None


class Conf(Spec):
    """See its parts."""

    connection_limits: ConnectionLimits | None = None
    outlier_detection: OutlierDetection | None = None


class To(Spec):
    """What a client puts up with from some destinations."""

    target_ref: TargetRef
    default: Conf = Conf()


class From(Spec):
    """What a server takes on; ``target_ref`` is always the whole mesh."""

    target_ref: TargetRef
    default: Conf = Conf()


class Rule(Spec):
    """What a server takes on."""

    default: Conf = Conf()


class MeshCircuitBreaker(Spec):
    """``target_ref`` are the proxies; ``to`` is for their outbounds, ``from`` and ``rules`` for their inbounds."""

    target_ref: TargetRef | None = None
    to: tuple[To, ...] | None = None
    from_: tuple[From, ...] | None = Field(default=None, alias="from")
    rules: tuple[Rule, ...] | None = None
