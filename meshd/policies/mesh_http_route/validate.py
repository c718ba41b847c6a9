"""What the schema of a MeshHTTPRoute cannot say; ``validate_filters.py`` has the part about filters.

Source: Kuma ``pkg/plugins/policies/meshhttproute/api/v1alpha1/validation.go`` (behaviour, not code).
"""

from collections.abc import Iterator, Sequence
from typing import cast

from meshd.model.errors import Violation
from meshd.model.resource import Resource
from meshd.policies.mesh_http_route.spec import (
    FilterType,
    Match,
    MeshHTTPRoute,
    PathMatch,
    PathMatchType,
    QueryParamsMatch,
    RuleConf,
    To,
)
from meshd.policies.mesh_http_route.validate_filters import filter_violations
from meshd.rules import header_match, target_ref
from meshd.rules.backend_ref import backend_violations
from meshd.rules.target_ref import PROXIES, ROUTED, WHOLE_MESH, Kind


def validate(resource: Resource) -> tuple[Violation, ...]:
    """Everything wrong with a policy whose schema is right, in the order of the document."""
    spec = cast("MeshHTTPRoute", resource.spec)
    is_gateway = (spec.target_ref or WHOLE_MESH).kind is Kind.MESH_GATEWAY
    found: list[Violation] = []
    if spec.target_ref is not None:
        more = (Kind.MESH_GATEWAY,) if target_ref.is_system(resource.labels) else ()
        found += target_ref.violations(spec.target_ref, "spec.targetRef", (*PROXIES, *more), gateway_tags=True)
    for index, item in enumerate(spec.to or ()):
        found += _to(item, f"spec.to[{index}]", is_gateway=is_gateway)
    return tuple(found)


def _to(item: To, path: str, *, is_gateway: bool) -> Iterator[Violation]:
    kinds = (Kind.MESH,) if is_gateway else ROUTED
    yield from target_ref.violations(item.target_ref, f"{path}.targetRef", kinds)
    if item.hostnames and not is_gateway:
        yield Violation(f"{path}.hostnames", "can only be set when the top-level targetRef is a MeshGateway")
    for index, rule in enumerate(item.rules):
        place = f"{path}.rules[{index}]"
        if not rule.matches:
            yield Violation(f"{place}.matches", "must have at least one item: [{}] is met by every request")
        for number, match in enumerate(rule.matches):
            yield from _match(match, f"{place}.matches[{number}]")
        for number, filter_ in enumerate(rule.default.filters or ()):
            at = f"{place}.default.filters[{number}]"
            yield from filter_violations(filter_, rule.matches, at, is_gateway=is_gateway)
        yield from _backends(rule.default, f"{place}.default.backendRefs", is_gateway=is_gateway)


def _backends(conf: RuleConf, path: str, *, is_gateway: bool) -> Iterator[Violation]:
    redirects = any(filter_.type is FilterType.REQUEST_REDIRECT for filter_ in conf.filters or ())
    if is_gateway and not conf.backend_refs and not redirects:
        yield Violation(path, "must not be empty at a MeshGateway, but for a rule that redirects")
    for index, ref in enumerate(conf.backend_refs or ()):
        yield from backend_violations(ref, f"{path}[{index}]")


def _match(match: Match, path: str) -> Iterator[Violation]:
    if match.path is not None:
        yield from _path(match.path, f"{path}.path.value")
    yield from _query_params(match.query_params or (), f"{path}.queryParams")
    yield from header_match.violations(match.headers, f"{path}.headers")


def _path(match: PathMatch, path: str) -> Iterator[Violation]:
    if not match.value:
        yield Violation(path, "must not be empty")
        return
    if match.type is PathMatchType.REGULAR_EXPRESSION:
        return
    if not match.value.startswith("/"):
        yield Violation(path, f'must be an absolute path, "/{match.value}"')
    if match.type is PathMatchType.PATH_PREFIX and match.value != "/" and match.value.endswith("/"):
        message = "must not end with a slash: a prefix is always of whole segments"
        yield Violation(path, f'{message}, "{match.value.rstrip("/") or "/"}"')


def _query_params(matches: Sequence[QueryParamsMatch], path: str) -> Iterator[Violation]:
    seen: set[str] = set()
    for index, match in enumerate(matches):
        if not match.name:
            yield Violation(f"{path}[{index}].name", "must not be empty")
        if match.name in seen:
            yield Violation(f"{path}[{index}].name", f'"{match.name}" is there twice')
        seen.add(match.name)
