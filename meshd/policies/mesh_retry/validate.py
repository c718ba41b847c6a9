"""What the schema of a MeshRetry cannot say.

Source: Kuma ``pkg/plugins/policies/meshretry/api/v1alpha1/validator.go`` (behaviour, not code).
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import cast

from meshd.model.errors import Violation
from meshd.model.resource import Resource
from meshd.policies.mesh_retry.conditions import HTTP_CONDITIONS, METHODS
from meshd.policies.mesh_retry.spec import (
    BackOff,
    Conf,
    Grpc,
    Http,
    MeshRetry,
    Predicate,
    PredicateType,
    RateLimitedBackOff,
    Tcp,
)
from meshd.rules import header_match, target_ref
from meshd.rules.checks import header_name, longer_than_zero
from meshd.rules.target_ref import PROXIES, WHOLE_MESH, Kind

DESTINATIONS = (
    Kind.MESH,
    Kind.MESH_SERVICE,
    Kind.MESH_EXTERNAL_SERVICE,
    Kind.MESH_MULTI_ZONE_SERVICE,
    Kind.MESH_HTTP_ROUTE,
)
AT_GATEWAY_OR_ROUTE = (Kind.MESH, Kind.MESH_EXTERNAL_SERVICE)
_STATUS_CODES = {str(status.value) for status in HTTPStatus}


def validate(resource: Resource) -> tuple[Violation, ...]:
    """Everything wrong with a policy whose schema is right, in the order of the document."""
    spec = cast("MeshRetry", resource.spec)
    top = (spec.target_ref or WHOLE_MESH).kind
    found: list[Violation] = []
    if spec.target_ref is not None:
        more = (Kind.MESH_GATEWAY, Kind.MESH_HTTP_ROUTE) if target_ref.is_system(resource.labels) else ()
        found += target_ref.violations(spec.target_ref, "spec.targetRef", (*PROXIES, *more), gateway_tags=True)
    destinations = AT_GATEWAY_OR_ROUTE if top in (Kind.MESH_GATEWAY, Kind.MESH_HTTP_ROUTE) else DESTINATIONS
    for index, item in enumerate(spec.to or ()):
        found += target_ref.violations(item.target_ref, f"spec.to[{index}].targetRef", destinations)
        found += _conf(item.default, f"spec.to[{index}].default")
    return tuple(found)


def _conf(conf: Conf, path: str) -> Iterator[Violation]:
    if conf.tcp is None and conf.http is None and conf.grpc is None:
        yield Violation(path, "at least one of 'tcp', 'http', 'grpc' must be set")
    if conf.tcp is not None:
        yield from _tcp(conf.tcp, f"{path}.tcp")
    if conf.http is not None:
        yield from _http(conf.http, f"{path}.http")
    if conf.grpc is not None:
        yield from _grpc(conf.grpc, f"{path}.grpc")


def _tcp(tcp: Tcp, path: str) -> Iterator[Violation]:
    if tcp.max_connect_attempt is None:
        yield Violation(f"{path}.maxConnectAttempt", "must be set")
    elif tcp.max_connect_attempt == 0:
        yield Violation(f"{path}.maxConnectAttempt", "must be greater than 0: 1 is the first attempt, without a retry")


def _http(http: Http, path: str) -> Iterator[Violation]:
    settings = (
        http.num_retries,
        http.per_try_timeout,
        http.back_off,
        http.retry_on,
        http.retriable_request_headers,
        http.retriable_response_headers,
        http.rate_limited_back_off,
        http.host_selection,
    )
    if all(setting is None for setting in settings):
        yield Violation(path, "must not be empty")
    yield from _waiting(http.back_off, http.rate_limited_back_off, path)
    for index, condition in enumerate(http.retry_on or ()):
        if condition not in HTTP_CONDITIONS and condition not in METHODS and condition not in _STATUS_CODES:
            allowed = ", ".join((*HTTP_CONDITIONS, *METHODS))
            yield Violation(f"{path}.retryOn[{index}]", f'"{condition}" must be a status code or one of {allowed}')
    yield from header_match.violations(http.retriable_response_headers, f"{path}.retriableResponseHeaders")
    yield from header_match.violations(http.retriable_request_headers, f"{path}.retriableRequestHeaders")
    yield from _host_selection(http.host_selection or (), f"{path}.hostSelection")


def _grpc(grpc: Grpc, path: str) -> Iterator[Violation]:
    settings = (grpc.num_retries, grpc.per_try_timeout, grpc.back_off, grpc.retry_on, grpc.rate_limited_back_off)
    if all(setting is None for setting in settings):
        yield Violation(path, "must not be empty")
    yield from _waiting(grpc.back_off, grpc.rate_limited_back_off, path)


def _waiting(back_off: BackOff | None, limited: RateLimitedBackOff | None, path: str) -> Iterator[Violation]:
    if back_off is not None:
        if back_off.base_interval is None and back_off.max_interval is None:
            yield Violation(f"{path}.backOff", "must not be empty")
        # Kuma takes 0 and less, which Envoy then refuses together with the whole listener.
        yield from longer_than_zero(f"{path}.backOff.baseInterval", back_off.base_interval)
        yield from longer_than_zero(f"{path}.backOff.maxInterval", back_off.max_interval)
    if limited is not None:
        yield from longer_than_zero(f"{path}.rateLimitedBackOff.maxInterval", limited.max_interval)
        if limited.reset_headers is None:
            yield Violation(f"{path}.rateLimitedBackOff.resetHeaders", "must be set")
        for index, header in enumerate(limited.reset_headers or ()):
            yield from header_name(f"{path}.rateLimitedBackOff.resetHeaders[{index}].name", header.name)


def _host_selection(predicates: tuple[Predicate, ...], path: str) -> Iterator[Violation]:
    has_priorities = False
    for index, predicate in enumerate(predicates):
        match predicate.predicate:
            case PredicateType.OMIT_HOSTS_WITH_TAGS:
                if predicate.tags is None:
                    yield Violation(f"{path}[{index}].tags", f"must be set with {predicate.predicate}")
            case PredicateType.OMIT_PREVIOUS_PRIORITIES:
                if has_priorities:
                    yield Violation(f"{path}[{index}].predicate", f"{predicate.predicate} must be there only once")
                if predicate.update_frequency <= 0:
                    message = f"must be greater than 0, not {predicate.update_frequency}"
                    yield Violation(f"{path}[{index}].updateFrequency", message)
                has_priorities = True
            case PredicateType.OMIT_PREVIOUS_HOSTS:
                pass
