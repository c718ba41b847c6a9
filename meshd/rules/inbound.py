"""``rules`` (and ``from``, its older spelling): what a server's proxy does with traffic to one of its inbounds.

Source: Kuma ``pkg/plugins/policies/core/rules/inbound`` (behaviour, not code).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from meshd.model.resource import Resource, Spec
from meshd.rules.client_match import ClientMatch
from meshd.rules.merge import merge_confs

SpecT = TypeVar("SpecT", bound=Spec)


@dataclass(frozen=True, slots=True)
class InboundRule(Generic[SpecT]):
    """A conf for the clients that ``match`` is about, None for all."""

    match: ClientMatch | None
    conf: SpecT


Item = tuple[Sequence[ClientMatch], SpecT]
"""An entry of ``rules``; none of its matches means all clients, as an entry of ``from`` does."""


def inbound_rules(
    policies: Sequence[Resource], items: Callable[[Spec], Sequence[Item[SpecT]]]
) -> tuple[InboundRule[SpecT], ...]:
    """The rules of policies sorted least specific first, in that order, one for each match."""
    return tuple(
        InboundRule(match, conf)
        for policy in policies
        for matches, conf in items(policy.spec)
        for match in (matches or (None,))
    )


def conf_for_all(rules: Sequence[InboundRule[SpecT]]) -> SpecT | None:
    """The merge of what all clients get, None if there is nothing."""
    confs = [rule.conf for rule in rules if rule.match is None]
    return merge_confs(confs) if confs else None
