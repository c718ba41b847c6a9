"""The rules of all policies about a destination as one list, in the order in which they are tried.

Rules with equal matches are one rule, whose conf is merged; the more specific policy has the say. Of the conditions of
all rules the more specific one is tried first, and where they are equally so, the one of the more specific policy,
then the one that was written first.

Source: Kuma ``pkg/plugins/policies/meshhttproute/{api,plugin}``, ``pkg/plugins/policies/core/rules/merge`` (behaviour,
not code). Kuma tries a "/" before every regular expression and before what has no path at all, so that these are never
met beside it; here what says nothing about the path comes last.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from meshd.model.resource import Resource, Spec
from meshd.policies.mesh_http_route.spec import Match, MeshHTTPRoute, PathMatchType, Rule, RuleConf
from meshd.rules.explain import document
from meshd.rules.merge import merge_confs
from meshd.rules.outbound import ToEntry

_PATH_RANK = {PathMatchType.EXACT: 0, PathMatchType.PATH_PREFIX: 1, PathMatchType.REGULAR_EXPRESSION: 2}
_ANY_PATH = 3
_GO_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""What Go's JSON never writes as it is."""


@dataclass(frozen=True, slots=True)
class MergedRule:
    """A rule and the policies that it comes from, least specific first."""

    matches: tuple[Match, ...]
    conf: RuleConf
    origins: tuple[Resource, ...]


def merged_rules(entries: Sequence[ToEntry[tuple[Rule, ...]]]) -> tuple[MergedRule, ...]:
    """The rules of entries sorted least specific first; the ones with the most say come first."""
    found: list[tuple[tuple[Match, ...], list[RuleConf], list[Resource]]] = []
    for entry in entries:
        for rule in reversed(entry.conf):
            same = next((item for item in found if item[0] == rule.matches), None)
            if same is not None:
                found.remove(same)
            _, confs, origins = same or (rule.matches, [], [])
            found.append((rule.matches, [*confs, rule.default], [*origins, entry.policy]))
    return tuple(MergedRule(matches, merge_confs(confs), tuple(origins)) for matches, confs, origins in reversed(found))


def merged_document(entries: Sequence[ToEntry[tuple[Rule, ...]]]) -> dict[str, Any]:
    """The rules of entries as one conf in JSON."""
    return {
        "rules": [
            {"matches": [document(match) for match in rule.matches], "default": document(rule.conf)}
            for rule in merged_rules(entries)
        ]
    }


def conditions(spec: Spec) -> dict[str, list[dict[str, Any]]]:
    """The conditions of each rule of a MeshHTTPRoute, by the name of its routes."""
    rules = [rule for item in cast("MeshHTTPRoute", spec).to or () for rule in item.rules]
    return {route_name(rule.matches): [document(match) for match in rule.matches] for rule in rules}


def in_order(rules: Sequence[MergedRule]) -> list[tuple[Match, MergedRule]]:
    """Each condition of the rules, in the order in which they are tried."""
    pairs = [(match, rule) for rule in rules for match in rule.matches]
    return sorted(pairs, key=lambda pair: _rank(pair[0]))


def takes_all(match: Match) -> bool:
    """Whether every request meets the condition."""
    return _rank(match) == _rank(Match())


def route_name(matches: Sequence[Match]) -> str:
    """Kuma's name of the routes made of a rule: a hash of its conditions, written as Go's JSON has them."""
    text = json.dumps([_go(match) for match in matches], separators=(",", ":"), ensure_ascii=False)
    for character, escape in _GO_ESCAPES.items():
        text = text.replace(character, escape)
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _rank(match: Match) -> tuple[int, int, int, int, int]:
    path, length = _ANY_PATH, 0
    if match.path is not None and (match.path.type, match.path.value) != (PathMatchType.PATH_PREFIX, "/"):
        path = _PATH_RANK[match.path.type]
        length = len(match.path.value) if match.path.type is not PathMatchType.EXACT else 0
    has_method = match.method is not None
    return path, -length, int(not has_method), -len(match.headers or ()), -len(match.query_params or ())


def _go(match: Match) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if match.path is not None:
        document["path"] = {"value": match.path.value, "type": match.path.type.value}
    if match.method is not None:
        document["method"] = match.method.value
    if match.query_params is not None:
        document["queryParams"] = [{"type": p.type.value, "name": p.name, "value": p.value} for p in match.query_params]
    if match.headers is not None:
        document["headers"] = [
            {"type": h.type.value, "name": h.name, **({"value": h.value} if h.value else {})} for h in match.headers
        ]
    return document
