"""The filters of a rule as parts of an Envoy's route.

Source: Kuma ``pkg/plugins/policies/meshhttproute/xds/filters`` (behaviour, not code). Kuma writes the replacement of a
prefix as it is given, so that ``/v1/users`` becomes ``/v2users``; here a slash stays between segments.
"""

from collections.abc import Sequence
from decimal import Decimal

from meshd.policies.mesh_http_route.spec import (
    Filter,
    FilterType,
    HeaderKeyValue,
    HeaderModifier,
    PathRewrite,
    PathRewriteType,
    RequestMirror,
    RequestRedirect,
    UrlRewrite,
)
from meshd.rules.backend_ref import BackendRef
from meshd.rules.checks import decimal
from meshd.xds.backends import backends_of
from meshd.xds.encode import Document
from meshd.xds.shaping import Backend

_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def action(filters: Sequence[Filter], match: Document) -> Document:
    """What the filters put into an Envoy's route with this RouteMatch; mirrors without their clusters."""
    document: Document = {}
    route: Document = {}
    for filter_ in filters:
        if filter_.type is FilterType.REQUEST_HEADER_MODIFIER and filter_.request_header_modifier is not None:
            _modify(document, "request", filter_.request_header_modifier)
        elif filter_.type is FilterType.RESPONSE_HEADER_MODIFIER and filter_.response_header_modifier is not None:
            _modify(document, "response", filter_.response_header_modifier)
        elif filter_.type is FilterType.REQUEST_REDIRECT and filter_.request_redirect is not None:
            document["redirect"] = _redirect(filter_.request_redirect, match)
        elif filter_.type is FilterType.URL_REWRITE and filter_.url_rewrite is not None:
            route |= _rewrite(filter_.url_rewrite, match)
    mirrors = [policy for policy, _ in mirrors_of(filters)]
    if mirrors:
        route["requestMirrorPolicies"] = mirrors
    if route and "redirect" not in document:
        document["route"] = route
    return document


def mirror_refs(filters: Sequence[Filter]) -> list[BackendRef]:
    """Where copies go, in the order of the filters."""
    return [mirror.backend_ref for mirror in _mirrors(filters)]


def mirrors_of(filters: Sequence[Filter]) -> list[tuple[Document, Backend]]:
    """Each place that copies go to, with its RequestMirrorPolicy but for the cluster."""
    return [(_mirror(mirror), backend) for mirror in _mirrors(filters) for backend in backends_of([mirror.backend_ref])]


def _mirrors(filters: Sequence[Filter]) -> list[RequestMirror]:
    return [f.request_mirror for f in filters if f.type is FilterType.REQUEST_MIRROR and f.request_mirror is not None]


def _modify(document: Document, side: str, modifier: HeaderModifier) -> None:
    changed = [_header(header, "OVERWRITE_IF_EXISTS_OR_ADD") for header in modifier.set or ()]
    changed += [_header(header, "APPEND_IF_EXISTS_OR_ADD") for header in modifier.add or ()]
    if changed:
        document.setdefault(f"{side}HeadersToAdd", []).extend(changed)
    if modifier.remove:
        document.setdefault(f"{side}HeadersToRemove", []).extend(modifier.remove)


def _header(header: HeaderKeyValue, how: str) -> Document:
    return {"header": {"key": header.name, "value": header.value}, "appendAction": how}


def _redirect(redirect: RequestRedirect, match: Document) -> Document:
    document: Document = {"responseCode": _CODES.get(redirect.status_code, _CODES[302])}
    if redirect.hostname is not None:
        document["hostRedirect"] = redirect.hostname
    if redirect.port is not None:
        document["portRedirect"] = redirect.port
    if redirect.scheme is not None:
        document["schemeRedirect"] = redirect.scheme
    return document | _path(redirect.path, match)


def _rewrite(rewrite: UrlRewrite, match: Document) -> Document:
    document = _path(rewrite.path, match)
    if rewrite.hostname is not None:
        document["hostRewriteLiteral"] = rewrite.hostname
    return document


def _path(rewrite: PathRewrite | None, match: Document) -> Document:
    """A replacement of the path; the query stays."""
    if rewrite is None:
        return {}
    if rewrite.type is PathRewriteType.REPLACE_FULL_PATH:
        return _whole(rewrite.replace_full_path or "/")
    replacement = (rewrite.replace_prefix_match or "").rstrip("/")
    if "path" in match:  # a prefix that is all of the path
        return _whole(replacement or "/")
    if "prefix" in match:
        return {"prefixRewrite": f"{replacement}/"}
    return {}


def _whole(path: str) -> Document:
    return {"regexRewrite": {"pattern": {"regex": ".*"}, "substitution": path.replace("\\", "\\\\")}}


def _mirror(mirror: RequestMirror) -> Document:
    percent = decimal(mirror.percentage)
    return {} if percent is None else {"runtimeFraction": {"defaultValue": fraction(percent)}}


def fraction(percent: Decimal) -> Document:
    """A FractionalPercent, of the smallest denominator that holds it."""
    for factor, denominator in ((1, "HUNDRED"), (100, "TEN_THOUSAND")):
        if percent * factor == int(percent * factor):
            return {"numerator": int(percent * factor), "denominator": denominator}
    return {"numerator": round(percent * 10_000), "denominator": "MILLION"}
