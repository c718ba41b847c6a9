"""The routes of an Envoy's outbound to a service that speaks HTTP.

Source: Kuma ``pkg/plugins/policies/meshhttproute/{plugin,xds}`` (behaviour, not code). A rule whose ``backendRefs``
lead nowhere answers 500, as the Gateway API says; Kuma leaves it out, so that its requests go where another rule sends
them. A place that does not (yet) speak HTTP by its tags is left out by Kuma too; here it is sent HTTP/1.1.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

from meshd.model.resource import Resource, Spec
from meshd.policies.mesh_http_route.filters import action, mirror_refs, mirrors_of
from meshd.policies.mesh_http_route.merge import MergedRule, in_order, merged_rules, route_name, takes_all
from meshd.policies.mesh_http_route.spec import (
    Match,
    MeshHTTPRoute,
    PathMatch,
    PathMatchType,
    QueryParamsMatch,
    QueryParamsMatchType,
    Rule,
    RuleConf,
)
from meshd.rules.backend_ref import BackendRef
from meshd.rules.header_match import HeaderMatch
from meshd.rules.outbound import to_entries
from meshd.rules.target_ref import TargetRef
from meshd.xds import matchers
from meshd.xds.backends import Subset, backends_of, subsets_of
from meshd.xds.encode import Document
from meshd.xds.shaping import Backend, Destination, HttpRoute, Routes, Shaper

_NOTHING = RuleConf()
ALL = PathMatch(type=PathMatchType.PATH_PREFIX, value="/")


class HttpRouteShaper(Shaper):
    """See the module."""

    def routes(
        self, matched: Sequence[Resource], destination: Destination, protocols: Mapping[str, str]
    ) -> Routes | None:
        """The routes to a destination that speaks HTTP, if any policy is about it; the last takes what is left."""
        del protocols
        entries = [e for e in to_entries(matched, to_items) if e.is_about(destination.service)]
        if not entries or not destination.speaks_http:
            return None
        own = Backend(destination.service, 1, destination.tags)
        pairs = in_order(merged_rules(entries))
        if not any(takes_all(match) for match, _ in pairs):
            rest = Match(path=ALL)
            pairs.append((rest, MergedRule((rest,), _NOTHING, ())))
        return Routes(http=tuple(route for match, rule in pairs for route in _routes(match, rule, own)))

    def subsets(self, policies: Sequence[Resource]) -> Iterable[Subset]:
        """The parts of services that any policy sends requests to."""
        return subsets_of(ref for policy in policies for ref in _refs(policy.spec))


def to_items(spec: Spec) -> list[tuple[TargetRef, tuple[Rule, ...]]]:
    """The entries of ``to``."""
    return [(item.target_ref, item.rules) for item in cast("MeshHTTPRoute", spec).to or ()]


def route_matches(match: Match) -> Iterator[Document]:
    """The RouteMatches that a condition stands for: two for a prefix, which is of whole segments."""
    conditions: Document = {}
    headers = matchers.methods([match.method.value] if match.method is not None else [])
    headers += [matchers.header(header) for header in _first_of_each(match.headers or ())]
    if headers:
        conditions["headers"] = headers
    if match.query_params:
        conditions["queryParameters"] = [_query(parameter) for parameter in match.query_params]
    for path in _paths(match.path or ALL):
        yield {**path, **conditions}


def _routes(match: Match, rule: MergedRule, own: Backend) -> Iterator[HttpRoute]:
    filters = rule.conf.filters or ()
    refs = rule.conf.backend_refs or ()
    backends = backends_of(refs) if refs else (own,)
    mirrors = tuple(backend for _, backend in mirrors_of(filters))
    for document in route_matches(match):
        done = action(filters, document)
        is_redirect = "redirect" in done
        yield HttpRoute(
            name=route_name(rule.matches),
            match=document,
            backends=() if is_redirect else backends,
            action=done,
            mirrors=() if is_redirect else mirrors,
            origins=rule.origins,
        )


def _paths(path: PathMatch) -> Sequence[Document]:
    match path.type:
        case PathMatchType.EXACT:
            return ({"path": path.value},)
        case PathMatchType.REGULAR_EXPRESSION:
            return (matchers.regex(path.value),)
        case PathMatchType.PATH_PREFIX if path.value == "/":
            return ({"prefix": "/"},)
        case PathMatchType.PATH_PREFIX:
            # Envoy's own pathSeparatedPrefix would make a rewrite to "/" one to "//".
            prefix = path.value.rstrip("/")
            return ({"path": prefix}, {"prefix": f"{prefix}/"})


def _first_of_each(headers: Iterable[HeaderMatch]) -> list[HeaderMatch]:
    """Of several conditions on one header the first counts, as the Gateway API has it."""
    first: dict[str, HeaderMatch] = {}
    for header in headers:
        first.setdefault(header.name, header)
    return list(first.values())


def _query(parameter: QueryParamsMatch) -> Document:
    is_exact = parameter.type is QueryParamsMatchType.EXACT
    condition = matchers.exact(parameter.value) if is_exact else matchers.regex(parameter.value)
    return {"name": parameter.name, "stringMatch": condition}


def _refs(spec: Spec) -> Iterator[BackendRef]:
    for item in cast("MeshHTTPRoute", spec).to or ():
        for rule in item.rules:
            yield from rule.default.backend_refs or ()
            yield from mirror_refs(rule.default.filters or ())
