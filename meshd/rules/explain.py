"""What the policies of a kind say about one proxy, laid open as Kuma's ``_rules`` prints it. Pure.

It is made of the same parts by which traffic is decided, so that it cannot say anything else. Source: Kuma 2.14.3
``pkg/api-server/resource_endpoints.go`` (rulesForResource) and recorded answers of it.

What differs: what is said about traffic by a MeshHTTPRoute stands under that route (``toResourceRules``) also where it
is the policy's ``targetRef``; Kuma has it there as tags of ``toRules``. Routes that are not the proxy's are left out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from meshd.kinds.dataplane import Dataplane, Inbound
from meshd.model import labels as label
from meshd.model.resource import Resource, Spec
from meshd.rules import match as matching
from meshd.rules.client_match import ClientMatch, SpiffeIdMatchType
from meshd.rules.inbound import Item
from meshd.rules.merge import merge_confs
from meshd.rules.outbound import ToEntry, to_entries
from meshd.rules.regions import covers, entries, partition
from meshd.rules.target_ref import Kind, TargetRef, subset_of

Document = dict[str, Any]
ROUTE = "MeshHTTPRoute"
SUPPORTED = (Kind.MESH, Kind.MESH_SERVICE, Kind.MESH_HTTP_ROUTE)
"""What an entry of ``to`` must be about to have an effect."""


def nothing(_: Spec) -> Sequence[Any]:
    """The entries of a section that a policy does not have."""
    return ()


def no_conditions(_: Spec) -> Mapping[str, list[Document]]:
    """The ``conditions`` of a policy that is no route."""
    return {}


def merged(listed: Sequence[ToEntry[Any]]) -> Document:
    """The merge of entries about one destination, least specific first."""
    return document(merge_confs([entry.conf for entry in listed]))


def document(conf: Spec) -> Document:
    """A conf in JSON."""
    return conf.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


def no_rules() -> dict[str, list[Document]]:
    """The lists of rules of a kind that says nothing."""
    return {"toRules": [], "toResourceRules": [], "fromRules": [], "inboundRules": []}


@dataclass(frozen=True, slots=True)
class Sections:
    """How a policy's spec is read, section by section; those that it has not stay empty.

    ``to`` are destinations, ``clients`` the clients of ``from`` by their tags, ``inbound`` what is done at an inbound
    with traffic of whomever the item matches. ``merge`` is what several entries about one destination come to.
    ``conditions`` are those of requests that a route has, by Kuma's name of the rule.
    """

    to: Callable[[Spec], Sequence[tuple[TargetRef, Any]]] = nothing
    clients: Callable[[Spec], Sequence[tuple[TargetRef, Any]]] = nothing
    inbound: Callable[[Spec], Sequence[Item[Any]]] = nothing
    merge: Callable[[Sequence[ToEntry[Any]]], Document] = merged
    conditions: Callable[[Spec], Mapping[str, list[Document]]] = no_conditions


Print = Callable[[Resource], Document]
"""Prints what a resource is (type, mesh, name, labels), without what it says."""


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains one proxy: ``dataplane`` in ``mesh``, whose MeshHTTPRoutes are ``routes``."""

    mesh: Resource
    dataplane: Resource
    routes: Sequence[Resource]
    print_: Print

    def rule(self, kind: str, sections: Sections, policies: Iterable[Resource]) -> Document | None:
        """What the policies of a kind say, None if none of them says anything."""
        policies = tuple(policies)
        listed = to_entries(matching.of_proxy(policies, self.dataplane), sections.to)
        warnings = list(_unsupported(listed))
        found = no_rules()
        found["toRules"] = list(self._to_rules(listed, sections))
        found["toResourceRules"] = sorted(self._resource_rules(listed, sections), key=_name)
        for inbound in cast("Dataplane", self.dataplane.spec).networking.inbound:
            about = matching.of_inbound(policies, self.dataplane, inbound)
            try:
                by_tags = list(self._from_rules(about, sections))
            except ValueError as error:
                by_tags = []
                warnings.append(f"inbound {inbound.port}: cannot be written as rules: {error}")
            for name, rules in (("fromRules", by_tags), ("inboundRules", self._inbound_rules(about, sections))):
                if rules:
                    found[name].append({"inbound": _inbound(inbound), "rules": rules})
        for name in ("fromRules", "inboundRules"):
            found[name].sort(key=lambda entry: entry["inbound"]["port"])
        if not any(found.values()) and not warnings:
            return None
        return {"type": kind, **found, "warnings": warnings}

    def _to_rules(self, listed: Sequence[ToEntry[Any]], sections: Sections) -> Iterator[Document]:
        plain = [e for e in listed if matching.top_level(e.policy).kind is not Kind.MESH_HTTP_ROUTE]
        services = dict.fromkeys(e.ref.name or "" for e in plain if e.ref.kind is Kind.MESH_SERVICE)
        for service in services:
            about = [e for e in plain if e.is_about(service)]
            yield self._to_rule(about, sections, [{"key": label.SERVICE, "not": False, "value": service}])
        everything = [e for e in plain if e.ref.kind is Kind.MESH]
        if everything:
            yield self._to_rule(everything, sections, [])

    def _to_rule(self, about: Sequence[ToEntry[Any]], sections: Sections, matchers: list[Document]) -> Document:
        origins = dict.fromkeys(e.policy.key for e in about)
        policies = {e.policy.key: e.policy for e in about}
        return {
            "conf": sections.merge(about),
            "matchers": matchers,
            "origin": [self.print_(policies[key]) for key in origins],
        }

    def _resource_rules(self, listed: Sequence[ToEntry[Any]], sections: Sections) -> Iterator[Document]:
        plain = [e for e in listed if matching.top_level(e.policy).kind is not Kind.MESH_HTTP_ROUTE]
        everything = [e for e in plain if e.ref.kind is Kind.MESH]
        if everything:
            yield self._resource_rule(self.mesh, everything, sections)
        for route in matching.of_proxy(self.routes, self.dataplane):
            about = [e for e in listed if e.is_about("", [route])]
            if len(about) > len(everything):
                yield self._resource_rule(route, about, sections)

    def _resource_rule(self, of: Resource, about: Sequence[ToEntry[Any]], sections: Sections) -> Document:
        return {
            "conf": [sections.merge(about)],
            "origin": [{"resourceMeta": self.print_(e.policy), "ruleIndex": e.index} for e in about],
            "resourceMeta": self.print_(of),
            "resourceSectionName": "",
        }

    def _from_rules(self, policies: Sequence[Resource], sections: Sections) -> Iterator[Document]:
        subsets = [(policy, [subset_of(ref) for ref, _ in sections.clients(policy.spec)]) for policy in policies]
        for rule in partition(entries(policies, sections.clients)):
            yield {
                "conf": document(rule.conf),
                "matchers": [{"key": t.key, "not": t.negated, "value": t.value} for t in rule.region],
                "origin": [self.print_(p) for p, all_ in subsets if any(covers(tags, rule.region) for tags in all_)],
            }

    def _inbound_rules(self, policies: Sequence[Resource], sections: Sections) -> list[Document]:
        items = [
            (match, conf, policy, index)
            for policy in policies
            for index, (matches, conf) in enumerate(sections.inbound(policy.spec))
            for match in (matches or (None,))
        ]
        return [
            {
                "conf": [document(conf)],
                **({"match": document(match)} if match is not None else {}),
                "origin": [{"resourceMeta": self.print_(policy), "ruleIndex": index}],
            }
            for match, conf, policy, index in sorted(items, key=lambda item: _match_rank(item[0]))
        ]


def conditions(sections: Sections, policies: Iterable[Resource]) -> list[Document]:
    """``httpMatches``: the conditions of requests that routes have, by Kuma's name of the rule."""
    found: dict[str, list[Document]] = {}
    for policy in policies:
        found.update(sections.conditions(policy.spec))
    return [{"hash": name, "match": found[name]} for name in sorted(found)]


def _unsupported(listed: Sequence[ToEntry[Any]]) -> Iterator[str]:
    for entry in listed:
        if entry.ref.kind not in SUPPORTED:
            yield (
                f"{entry.policy.display_name}: spec.to[{entry.index}] is about a {entry.ref.kind}, which nothing here"
                f" acts upon; it has no effect"
            )


def _inbound(inbound: Inbound) -> Document:
    named = {"name": inbound.name} if inbound.name else {}
    return {**named, "port": inbound.port, "tags": dict(inbound.tags)}


def _name(rule: Document) -> tuple[str, str]:
    meta = rule["resourceMeta"]
    return meta["name"], meta["type"]


def _match_rank(match: ClientMatch | None) -> tuple[int, int]:
    """The order of Kuma: exact identities, prefixes, no identity; within each with an SNI first."""
    if match is None:
        return 2, 1
    identity = 2 if match.spiffe_id is None else int(match.spiffe_id.type is SpiffeIdMatchType.PREFIX)
    return identity, int(match.sni is None)
