"""What a MeshRetry does to routes and TCP proxies of an Envoy.

Source: Kuma ``pkg/plugins/policies/meshretry/plugin`` (behaviour, not code). HTTP/2 gets what HTTP gets, where Kuma
leaves it out.
"""

from collections.abc import Iterable, Sequence
from typing import cast

from meshd.model.duration import format_duration
from meshd.model.resource import Resource, Spec
from meshd.policies.mesh_retry.conditions import GRPC_CONDITIONS, HTTP_CONDITIONS, METHODS
from meshd.policies.mesh_retry.initial import BACK_OFF
from meshd.policies.mesh_retry.spec import (
    BackOff,
    Conf,
    Grpc,
    Http,
    MeshRetry,
    Predicate,
    PredicateType,
    RateLimitedBackOff,
    RateLimitFormat,
)
from meshd.rules.outbound import conf_of, to_entries
from meshd.rules.target_ref import TargetRef
from meshd.xds import listeners, matchers
from meshd.xds.encode import PREFIX, Document
from meshd.xds.shaping import OutboundDraft, Shaper

HTTP_DEFAULT = "gateway-error,connect-failure,refused-stream"
GRPC_DEFAULT = "cancelled,connect-failure,gateway-error,refused-stream,reset,resource-exhausted,unavailable"
STATUS_CODES = "retriable-status-codes"
ELSEWHERE_ATTEMPTS = 5
"""How often another endpoint is asked for: with two of equal weight, one that was tried stays the choice once in 32."""
_FORMATS = {RateLimitFormat.SECONDS: "SECONDS", RateLimitFormat.UNIX_TIMESTAMP: "UNIX_TIMESTAMP"}
_RETRY = PREFIX + "envoy.extensions.retry."


class RetryShaper(Shaper):
    """See the module."""

    def outbound(self, draft: OutboundDraft, matched: Sequence[Resource]) -> None:
        """How often a connection, or the requests of each route, are tried."""
        entries = to_entries(matched, to_items)
        service = draft.destination.service
        if draft.tcp is not None:
            conf = conf_of(entries, service)
            if conf is not None and conf.tcp is not None and conf.tcp.max_connect_attempt is not None:
                listeners.try_again(draft.tcp, conf.tcp.max_connect_attempt)
            return
        for route in draft.routes:
            policy = retry_policy(conf_of(entries, service, route.origins), draft.destination.protocol)
            if policy is not None and "route" in route.document:
                route.document["route"]["retryPolicy"] = policy


def to_items(spec: Spec) -> list[tuple[TargetRef, Conf]]:
    """The entries of ``to``."""
    return [(item.target_ref, item.default) for item in cast("MeshRetry", spec).to or ()]


def retry_policy(conf: Conf | None, protocol: str) -> Document | None:
    """The retries of requests in a protocol, None if there are to be none."""
    if conf is None:
        return None
    part: Http | Grpc | None = conf.grpc if protocol == "grpc" else conf.http
    if part is None or part.num_retries == 0:
        return None
    policy: Document = {}
    if part.num_retries is not None:
        policy["numRetries"] = part.num_retries
    if part.per_try_timeout is not None:
        policy["perTryTimeout"] = format_duration(part.per_try_timeout)
    if part.back_off is not None:
        policy["retryBackOff"] = _back_off(part.back_off)
    if part.rate_limited_back_off is not None and part.rate_limited_back_off.reset_headers:
        policy["rateLimitedRetryBackOff"] = _rate_limited(part.rate_limited_back_off)
    if isinstance(part, Grpc):
        said = [GRPC_CONDITIONS[condition] for condition in part.retry_on or ()]
        return {"retryOn": ",".join(said) or GRPC_DEFAULT, **policy, **_elsewhere()}
    return {**_retry_on(part), **policy, **_host_selection(part)}


def _back_off(back_off: BackOff) -> Document:
    base = back_off.base_interval or BACK_OFF.base_interval
    assert base is not None  # noqa: S101 - the default has it
    document = {"baseInterval": format_duration(base)}
    if back_off.max_interval is not None:
        # Two policies may each have said one of them; Envoy refuses a listener where they do not fit.
        document["maxInterval"] = format_duration(max(back_off.max_interval, base))
    return document


def _rate_limited(back_off: RateLimitedBackOff) -> Document:
    headers = [{"name": header.name, "format": _FORMATS[header.format]} for header in back_off.reset_headers or ()]
    document: Document = {"resetHeaders": headers}
    if back_off.max_interval is not None:
        document["maxInterval"] = format_duration(back_off.max_interval)
    return document


def _retry_on(http: Http) -> Document:
    words = http.retry_on or ()
    conditions = [HTTP_CONDITIONS[word] for word in words if word in HTTP_CONDITIONS]
    codes = [int(word) for word in words if word not in HTTP_CONDITIONS and word not in METHODS]
    document: Document = {"retryOn": ",".join(conditions) or HTTP_DEFAULT}
    if codes:
        document["retryOn"] += f",{STATUS_CODES}"
        document["retriableStatusCodes"] = codes
    requests = matchers.methods(METHODS[word] for word in words if word in METHODS)
    requests += [matchers.header(match) for match in http.retriable_request_headers or ()]
    if requests:
        document["retriableRequestHeaders"] = requests
    responses = [matchers.header(match) for match in http.retriable_response_headers or ()]
    if responses:
        document["retriableHeaders"] = responses
    return document


def _host_selection(http: Http) -> Document:
    document: Document = _elsewhere() if http.host_selection is None else {}
    predicates = [_predicate(predicate) for predicate in _of_hosts(http.host_selection or ())]
    if predicates:
        document["retryHostPredicate"] = predicates
    for predicate in http.host_selection or ():
        if predicate.predicate is PredicateType.OMIT_PREVIOUS_PRIORITIES:
            message = "priority.previous_priorities.v3.PreviousPrioritiesConfig"
            config = {"@type": _RETRY + message, "updateFrequency": predicate.update_frequency}
            document["retryPriority"] = {"name": "envoy.retry_priorities.previous_priorities", "typedConfig": config}
    if http.host_selection_max_attempts is not None:
        document["hostSelectionRetryMaxAttempts"] = http.host_selection_max_attempts
    return document


def _elsewhere() -> Document:
    """Where nothing is said: a retry goes to none that has just failed, if there are others."""
    previous = Predicate(predicate=PredicateType.OMIT_PREVIOUS_HOSTS)
    return {"retryHostPredicate": [_predicate(previous)], "hostSelectionRetryMaxAttempts": ELSEWHERE_ATTEMPTS}


def _of_hosts(predicates: Iterable[Predicate]) -> list[Predicate]:
    return [p for p in predicates if p.predicate is not PredicateType.OMIT_PREVIOUS_PRIORITIES]


def _predicate(predicate: Predicate) -> Document:
    config: Document
    if predicate.predicate is PredicateType.OMIT_PREVIOUS_HOSTS:
        name, config = "previous_hosts", {"@type": _RETRY + "host.previous_hosts.v3.PreviousHostsPredicate"}
    else:
        name = "omit_host_metadata"
        config = {
            "@type": _RETRY + "host.omit_host_metadata.v3.OmitHostMetadataConfig",
            "metadataMatch": {"filterMetadata": {"envoy.lb": dict(predicate.tags or {})}},
        }
    return {"name": f"envoy.retry_host_predicates.{name}", "typedConfig": config}
