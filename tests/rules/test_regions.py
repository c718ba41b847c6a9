import itertools
import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshd.model.resource import Spec
from meshd.rules.regions import Entry, Origin, Tag, conf_of, confs_of_client, connected, partition


class Conf(Spec):
    action: str | None = None
    note: str | None = None


def entry(index: int, action: str, **tags: str) -> Entry[Conf]:
    return Entry(tags, Conf(action=action), Origin(f"p{index}", index))


def listed(*items: tuple[str, dict[str, str]]) -> list[Entry[Conf]]:
    return [entry(i, action, **tags) for i, (action, tags) in enumerate(items)]


def in_region(region, tags):
    """Whether a client with these values of its tags is in the region, each condition for itself, as RBAC asks."""
    return all((tag.value in tags.get(tag.key, ())) is not tag.negated for tag in region)


def test_allow_all_and_two_denials_deny_both():
    # with Kuma's cliques each denied one is let in by the negation of the other
    rules = partition(listed(("Allow", {}), ("Deny", {"team": "a"}), ("Deny", {"team": "b"})))
    assert [(r.region, r.conf.action) for r in rules] == [
        ((Tag("team", "a"),), "Deny"),
        ((Tag("team", "b"),), "Deny"),
        ((Tag("team", "a", negated=True), Tag("team", "b", negated=True)), "Allow"),
    ]


def test_rules_over_two_tags_are_all_combinations_with_negations_most_specific_first():
    rules = partition(listed(("Allow", {"team": "a"}), ("Deny", {"zone": "x"})))
    assert [(r.region, r.conf.action) for r in rules] == [
        ((Tag("team", "a"), Tag("zone", "x")), "Deny"),
        ((Tag("team", "a"), Tag("zone", "x", negated=True)), "Allow"),
        ((Tag("team", "a", negated=True), Tag("zone", "x")), "Deny"),
    ]


def test_entries_that_contradict_each_other_are_apart():
    rules = partition(listed(("Allow", {"team": "a"}), ("Deny", {"team": "b", "zone": "x"})))
    assert [(r.region, r.conf.action) for r in rules] == [
        ((Tag("team", "b"), Tag("zone", "x")), "Deny"),
        ((Tag("team", "a"),), "Allow"),
    ]


def test_a_partition_that_would_explode_is_refused():
    entries = [entry(i, "Allow", **{f"k{i}": "v"}) for i in range(14)]
    with pytest.raises(ValueError, match="too many regions"):
        partition(entries)
    assert conf_of(entries, {"k3": "v"}) is not None


def test_a_client_of_two_services_is_in_the_region_of_each():
    rules = list(
        confs_of_client(connected(listed(("Allow", {"s": "a"}), ("Deny", {"s": "b"}))), {"s": {"a", "b", "z"}})
    )
    assert [(r.conf.action, r.origins[-1].policy) for r in rules] == [("Allow", "p0"), ("Deny", "p1")]


def test_a_client_that_claims_too_many_things_is_looked_at_no_further():
    entries = [entry(i, "Deny", **{f"k{i % 6}": f"v{i // 6}"}) for i in range(60)]
    client = {f"k{k}": {f"v{v}" for v in range(10)} for k in range(6)}
    assert sum(1 for _ in itertools.islice(confs_of_client(connected(entries), client), 20_000)) == 10_000


TAGS = st.dictionaries(st.sampled_from(["s", "z", "v"]), st.sampled_from(["a", "b", "c"]), max_size=3)
ENTRIES = st.lists(st.tuples(st.sampled_from(["Allow", "Deny", "Shadow"]), TAGS), max_size=5)
CLIENTS = st.dictionaries(st.sampled_from(["s", "z", "v"]), st.sets(st.sampled_from("abcd"), max_size=3), max_size=3)


@settings(max_examples=100)
@given(ENTRIES, TAGS)
@example([("Allow", {}), ("Deny", {"s": "a"}), ("Deny", {"s": "b"})], {"s": "b"})
def test_a_partition_says_of_every_proxy_what_conf_of_says(items, tags):
    entries = listed(*items)
    expected = conf_of(entries, tags)
    matching = [r for r in partition(entries) if in_region(r.region, {k: {v} for k, v in tags.items()})]
    if expected is None:
        assert matching == []
    else:
        # two groups may both hold it only if they say the same: groups contradict each other, so there is one
        assert [(r.conf, r.origins) for r in matching] == [(expected.conf, expected.origins)]


@settings(max_examples=100)
@given(ENTRIES, CLIENTS)
def test_a_client_with_several_values_gets_what_rbac_over_the_partition_gives(items, client):
    entries = listed(*items)
    by_partition = {r.conf.action for r in partition(entries) if in_region(r.region, client)}
    by_regions = {r.conf.action for r in confs_of_client(connected(entries), client)}
    assert by_regions == by_partition


@settings(max_examples=50)
@given(ENTRIES)
def test_the_regions_of_a_partition_do_not_overlap(items):
    for one, other in itertools.combinations(partition(listed(*items)), 2):
        a, b = dict.fromkeys(one.region), dict.fromkeys(other.region)
        opposite = any(Tag(t.key, t.value, not t.negated) in b for t in a)
        different = any(t.key == u.key and t.value != u.value and not t.negated and not u.negated for t in a for u in b)
        assert opposite or different


KUMA = json.loads((Path(__file__).parent / "data" / "kuma_from_rules.json").read_text())


@pytest.mark.parametrize("case", KUMA)
def test_partitions_are_those_of_kuma(case):
    """What Kuma 2.14.3's BuildRules gave for random entries with its clique algorithm disabled."""
    rules = partition(listed(*(tuple(item) for item in case["entries"])))
    found = [(sorted(f"{'!' * t.negated}{t.key}={t.value}" for t in r.region), r.conf.action) for r in rules]
    assert sorted(found) == sorted((region, action) for region, action in case["rules"])
