"""What the schema of a MeshTimeout cannot say.

Source: Kuma ``pkg/plugins/policies/meshtimeout/api/v1alpha1/validator.go`` (behaviour, not code).
"""

from collections.abc import Iterator
from typing import cast

from meshd.model.errors import Violation
from meshd.model.resource import Resource
from meshd.policies.mesh_timeout.spec import Conf, Http, MeshTimeout, Rule
from meshd.rules import client_match, target_ref
from meshd.rules.checks import longer_than_zero, not_negative
from meshd.rules.sections import sections_violations
from meshd.rules.target_ref import PROXIES, WHOLE_MESH, Kind

DESTINATIONS = (
    Kind.MESH,
    Kind.MESH_SERVICE,
    Kind.MESH_EXTERNAL_SERVICE,
    Kind.MESH_MULTI_ZONE_SERVICE,
    Kind.MESH_HTTP_ROUTE,
)
AT_GATEWAY_OR_ROUTE = (Kind.MESH, Kind.MESH_EXTERNAL_SERVICE)
_ROUTE_MESSAGE = "cannot be set when the top-level targetRef is a MeshHTTPRoute"
_CLIENT_MESSAGE = "cannot be set when matches have a spiffeID: it is settled before the client is known"


def validate(resource: Resource) -> tuple[Violation, ...]:
    """Everything wrong with a policy whose schema is right, in the order of the document."""
    spec = cast("MeshTimeout", resource.spec)
    top = (spec.target_ref or WHOLE_MESH).kind
    found: list[Violation] = []
    if spec.target_ref is not None:
        more = (Kind.MESH_GATEWAY, Kind.MESH_HTTP_ROUTE) if target_ref.is_system(resource.labels) else ()
        found += target_ref.violations(
            spec.target_ref,
            "spec.targetRef",
            (*PROXIES, *more),
            inbound_policy=bool(spec.from_ or spec.rules),
            gateway_tags=True,
        )
    found += sections_violations(spec.to, spec.from_, spec.rules)
    if spec.from_ and top in (Kind.MESH_HTTP_ROUTE, Kind.MESH_GATEWAY):
        found.append(Violation("spec.from", f"must not be set when the top-level targetRef is a {top}"))
    destinations = AT_GATEWAY_OR_ROUTE if top in (Kind.MESH_HTTP_ROUTE, Kind.MESH_GATEWAY) else DESTINATIONS
    for index, item in enumerate(spec.to or ()):
        found += target_ref.violations(item.target_ref, f"spec.to[{index}].targetRef", destinations)
        found += _conf(item.default, f"spec.to[{index}].default", top)
    for index, client in enumerate(spec.from_ or ()):
        found += target_ref.violations(client.target_ref, f"spec.from[{index}].targetRef", (Kind.MESH,))
        found += _conf(client.default, f"spec.from[{index}].default", top)
    for index, rule in enumerate(spec.rules or ()):
        found += _matches(rule, f"spec.rules[{index}]")
        found += _conf(rule.default, f"spec.rules[{index}].default", top)
    return tuple(found)


def _matches(rule: Rule, path: str) -> Iterator[Violation]:
    for index, match in enumerate(rule.matches or ()):
        place = f"{path}.matches[{index}]"
        if match.spiffe_id is None and match.sni is None:
            yield Violation(place, "must have spiffeID or sni")
        yield from client_match.violations(match, place)
    if any(match.spiffe_id is not None for match in rule.matches or ()):
        http = rule.default.http or Http()
        for field, value in (
            ("connectionTimeout", rule.default.connection_timeout),
            ("idleTimeout", rule.default.idle_timeout),
            ("http.maxStreamDuration", http.max_stream_duration),
            ("http.maxConnectionDuration", http.max_connection_duration),
            ("http.requestHeadersTimeout", http.request_headers_timeout),
        ):
            if value is not None:
                yield Violation(f"{path}.default.{field}", _CLIENT_MESSAGE)


def _conf(conf: Conf, path: str, top: Kind) -> Iterator[Violation]:
    http = conf.http or Http()
    if conf.connection_timeout is None and conf.idle_timeout is None and conf.http is None:
        yield Violation(path, "at least one timeout must be set")
    if top is Kind.MESH_HTTP_ROUTE:
        for field, value in (
            ("connectionTimeout", conf.connection_timeout),
            ("idleTimeout", conf.idle_timeout),
            ("http.maxStreamDuration", http.max_stream_duration),
            ("http.maxConnectionDuration", http.max_connection_duration),
        ):
            if value is not None:
                yield Violation(f"{path}.{field}", _ROUTE_MESSAGE)
    yield from longer_than_zero(f"{path}.connectionTimeout", conf.connection_timeout)
    yield from not_negative(f"{path}.idleTimeout", conf.idle_timeout)
    if conf.http is not None:
        yield from _http(conf.http, f"{path}.http")


def _http(http: Http, path: str) -> Iterator[Violation]:
    timeouts = (
        ("requestTimeout", http.request_timeout),
        ("streamIdleTimeout", http.stream_idle_timeout),
        ("maxStreamDuration", http.max_stream_duration),
        ("maxConnectionDuration", http.max_connection_duration),
        ("requestHeadersTimeout", http.request_headers_timeout),
    )
    if all(value is None for _, value in timeouts):
        yield Violation(path, "at least one timeout must be set in this section")
    for field, value in timeouts:
        yield from not_negative(f"{path}.{field}", value)
