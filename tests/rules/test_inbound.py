from typing import Any

from meshd.model.resource import Resource, ResourceKey, Spec
from meshd.rules.client_match import ClientMatch
from meshd.rules.inbound import conf_for_all, inbound_rules


class Conf(Spec):
    a: str | None = None
    b: str | None = None


class Rule(Spec):
    matches: tuple[ClientMatch, ...] = ()
    default: Conf


class Policy(Spec):
    rules: tuple[Rule, ...]


def policy(name: str, *rules: dict[str, Any]) -> Resource:
    return Resource(ResourceKey("P", "default", name), Policy.model_validate({"rules": rules}))


def items(spec: Any) -> list[tuple[tuple[ClientMatch, ...], Conf]]:
    return [(rule.matches, rule.default) for rule in spec.rules]


WEB, SHOP = ({"spiffeID": {"type": "Exact", "value": f"spiffe://default/{name}"}} for name in ("web", "shop"))


def test_one_rule_for_each_match_in_the_order_of_the_policies():
    found = inbound_rules(
        [policy("least", {"default": {"a": "1"}}), policy("most", {"matches": [WEB, SHOP], "default": {"a": "2"}})],
        items,
    )
    assert [(rule.match and rule.match.spiffe_id.value, rule.conf.a) for rule in found] == [
        (None, "1"),
        ("spiffe://default/web", "2"),
        ("spiffe://default/shop", "2"),
    ]


def test_all_clients_get_the_merge_of_what_is_for_all():
    found = inbound_rules(
        [
            policy("least", {"default": {"a": "1", "b": "1"}}),
            policy("most", {"default": {"a": "2"}}, {"matches": [WEB], "default": {"a": "3"}}),
        ],
        items,
    )
    assert conf_for_all(found) == Conf(a="2", b="1")


def test_nothing_for_all():
    assert conf_for_all(inbound_rules([policy("p", {"matches": [WEB], "default": {"a": "1"}})], items)) is None
    assert conf_for_all(inbound_rules([], items)) is None
