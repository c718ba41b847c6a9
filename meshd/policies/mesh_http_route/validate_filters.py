"""What the schema of a filter cannot say.

Source: Kuma ``pkg/plugins/policies/meshhttproute/api/v1alpha1/{meshhttproute,validation}.go`` (behaviour, not code).
"""

import re
from collections.abc import Iterator, Sequence

from meshd.model.errors import Violation
from meshd.model.names import MAX_NAME
from meshd.policies.mesh_http_route.spec import (
    Filter,
    FilterType,
    HeaderModifier,
    Match,
    PathMatchType,
    PathRewrite,
    PathRewriteType,
    RequestMirror,
    RequestRedirect,
    UrlRewrite,
)
from meshd.rules import target_ref
from meshd.rules.checks import header_name, percentage
from meshd.rules.target_ref import Kind

MAX_HEADERS = 16
SCHEMES = ("http", "https")
REDIRECT_CODES = (301, 302, 303, 307, 308)
_HOST_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_IP_V4 = re.compile(r"[0-9]+(\.[0-9]+){3}\Z")
_COMMAND = re.compile(r"%%|%[A-Z0-9_]+(\([^)]*\))?(:[0-9]+)?%")
"""What a percent sign may stand for in the value of a header: Envoy refuses the whole listener for any other."""
_FIELD = {
    FilterType.REQUEST_HEADER_MODIFIER: "requestHeaderModifier",
    FilterType.RESPONSE_HEADER_MODIFIER: "responseHeaderModifier",
    FilterType.REQUEST_REDIRECT: "requestRedirect",
    FilterType.URL_REWRITE: "urlRewrite",
    FilterType.REQUEST_MIRROR: "requestMirror",
}


def filter_violations(filter_: Filter, matches: Sequence[Match], path: str, *, is_gateway: bool) -> Iterator[Violation]:
    """Everything wrong with a filter of a rule with ``matches``; ``is_gateway``: the policy is about a MeshGateway."""
    place = f"{path}.{_FIELD[filter_.type]}"
    match filter_.type:
        case FilterType.REQUEST_HEADER_MODIFIER:
            part = filter_.request_header_modifier
            yield from _headers(part, place) if part is not None else _missing(filter_, place)
        case FilterType.RESPONSE_HEADER_MODIFIER:
            part = filter_.response_header_modifier
            yield from _headers(part, place) if part is not None else _missing(filter_, place)
        case FilterType.REQUEST_REDIRECT:
            redirect = filter_.request_redirect
            yield from _redirect(redirect, matches, place) if redirect is not None else _missing(filter_, place)
        case FilterType.URL_REWRITE:
            rewrite = filter_.url_rewrite
            if rewrite is None:
                yield from _missing(filter_, place)
            else:
                yield from _rewrite(rewrite, matches, place, is_gateway=is_gateway)
        case FilterType.REQUEST_MIRROR:
            mirror = filter_.request_mirror
            yield from _mirror(mirror, place) if mirror is not None else _missing(filter_, place)


def _missing(filter_: Filter, path: str) -> Iterator[Violation]:
    yield Violation(path, f"must be set with type {filter_.type}")


def _headers(modifier: HeaderModifier, path: str) -> Iterator[Violation]:
    if modifier.set is None and modifier.add is None and modifier.remove is None:
        yield Violation(path, "must have at least one of set, add and remove")
    for field, headers in (("set", modifier.set or ()), ("add", modifier.add or ())):
        for index, header in enumerate(headers):
            if "%" in _COMMAND.sub("", header.value):
                message = f'"{header.value}" is no command of Envoy: write %% for a percent sign'
                yield Violation(f"{path}.{field}[{index}].value", message)
    seen: set[str] = set()
    for field, names in (
        ("set", [header.name for header in modifier.set or ()]),
        ("add", [header.name for header in modifier.add or ()]),
        ("remove", list(modifier.remove or ())),
    ):
        if len(names) > MAX_HEADERS:
            yield Violation(f"{path}.{field}", f"must have at most {MAX_HEADERS} items, not {len(names)}")
        for index, name in enumerate(names):
            place = f"{path}.{field}[{index}]" + (".name" if field != "remove" else "")
            if field != "remove":
                yield from header_name(place, name)
            elif not name:
                yield Violation(place, "must not be empty")
            if name in seen:
                yield Violation(place, f'"{name}" is there twice: only one action is possible for a header')
            seen.add(name)


def _redirect(redirect: RequestRedirect, matches: Sequence[Match], path: str) -> Iterator[Violation]:
    if redirect.scheme is not None and redirect.scheme not in SCHEMES:
        yield Violation(f"{path}.scheme", f'must be http or https, not "{redirect.scheme}"')
    yield from _host_name(redirect.hostname, f"{path}.hostname")
    yield from _path_rewrite(redirect.path, matches, f"{path}.path")
    if redirect.port is not None and not 1 <= redirect.port <= 65535:
        yield Violation(f"{path}.port", f"must be a port from 1 to 65535, not {redirect.port}")
    if redirect.status_code not in REDIRECT_CODES:
        allowed = ", ".join(str(code) for code in REDIRECT_CODES)
        yield Violation(f"{path}.statusCode", f"must be one of {allowed}, not {redirect.status_code}")


def _rewrite(rewrite: UrlRewrite, matches: Sequence[Match], path: str, *, is_gateway: bool) -> Iterator[Violation]:
    yield from _host_name(rewrite.hostname, f"{path}.hostname")
    yield from _path_rewrite(rewrite.path, matches, f"{path}.path")
    if rewrite.host_to_backend_hostname:
        if not is_gateway:
            yield Violation(f"{path}.hostToBackendHostname", "can only be set with a MeshGateway")
        if rewrite.hostname is not None:
            yield Violation(f"{path}.hostToBackendHostname", "cannot be set together with hostname")


def _path_rewrite(rewrite: PathRewrite | None, matches: Sequence[Match], path: str) -> Iterator[Violation]:
    if rewrite is None:
        return
    if rewrite.type is PathRewriteType.REPLACE_FULL_PATH and rewrite.replace_full_path is None:
        yield Violation(f"{path}.replaceFullPath", f"must be set with type {rewrite.type}")
    if rewrite.type is PathRewriteType.REPLACE_PREFIX_MATCH and rewrite.replace_prefix_match is None:
        yield Violation(f"{path}.replacePrefixMatch", f"must be set with type {rewrite.type}")
    if rewrite.replace_prefix_match is not None and any(
        match.path is None or match.path.type is not PathMatchType.PATH_PREFIX for match in matches
    ):
        yield Violation(f"{path}.replacePrefixMatch", "can only be set if all matches of the rule are of path prefixes")


def _mirror(mirror: RequestMirror, path: str) -> Iterator[Violation]:
    yield from percentage(f"{path}.percentage", mirror.percentage)
    kinds = (Kind.MESH_SERVICE, Kind.MESH_SERVICE_SUBSET)
    yield from target_ref.violations(mirror.backend_ref, f"{path}.backendRef", kinds)


def _host_name(name: str | None, path: str) -> Iterator[Violation]:
    if name is None:
        return
    if _IP_V4.match(name) or ":" in name:
        yield Violation(path, f'"{name}" cannot be an IP address')
    elif len(name) > MAX_NAME or not _HOST_NAME.match(name):
        yield Violation(path, f'"{name}" is no host name: use lower case letters, digits, "-" and "."')
