"""``from`` and ``to`` entries: which conf a client (or a destination) gets, and the disjoint rules that say the same.

An entry is about all proxies that have some tags. Every proxy gets the merge of all entries about it, in the order of
the list (least specific first). ``conf_of`` and ``confs_of_client`` compute that for one proxy. ``partition`` writes
it down for all proxies, as rules over regions with negations that do not overlap: what Envoy's RBAC wants.

Kuma 2.14 by default makes one partition for each maximal clique of overlapping entries; the regions of two cliques
overlap, and since its RBAC allows what any region allows, "allow all, deny a, deny b" lets both through (b is in the
"not a" of the other clique). Here a partition is of a whole connected group, as Kuma did before and documents.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Generic, TypeVar

from meshd.model.resource import Resource, Spec
from meshd.rules.merge import merge_confs
from meshd.rules.target_ref import TargetRef, subset_of

ConfT = TypeVar("ConfT", bound=Spec)
MAX_REGIONS = 10_000
"""A partition larger than this is refused: it grows with the product of the values per tag."""


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where a conf was written: the policy's display name and the place of the entry in its list."""

    policy: str
    index: int


@dataclass(frozen=True, slots=True)
class Entry(Generic[ConfT]):
    """``conf`` for all proxies that have ``tags``."""

    tags: Mapping[str, str]
    conf: ConfT
    origin: Origin


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A condition on a proxy: has the tag with the value, or (``negated``) does not."""

    key: str
    value: str
    negated: bool = False


Region = tuple[Tag, ...]
"""The proxies for which every condition holds; the empty one is all proxies."""


@dataclass(frozen=True, slots=True)
class Rule(Generic[ConfT]):
    """The merged conf of every proxy in ``region``, and the entries it came from, least specific first."""

    region: Region
    conf: ConfT
    origins: tuple[Origin, ...]


Group = tuple[Entry[ConfT], ...]
"""Entries that may be about one proxy, directly or by way of another."""


def entries(
    policies: Sequence[Resource], items: Callable[[Spec], Sequence[tuple[TargetRef, ConfT]]]
) -> tuple[Entry[ConfT], ...]:
    """The entries of policies sorted least specific first; ``items`` gives the (targetRef, conf) pairs of a spec."""
    return tuple(
        Entry(subset_of(ref), conf, Origin(policy.display_name, index))
        for policy in policies
        for index, (ref, conf) in enumerate(items(policy.spec))
    )


def conf_of(listed: Sequence[Entry[ConfT]], tags: Mapping[str, str]) -> Rule[ConfT] | None:
    """What a proxy with exactly these tags gets, or None if no entry is about it."""
    about = [entry for entry in listed if all(tags.get(key) == value for key, value in entry.tags.items())]
    if not about:
        return None
    region = tuple(Tag(key, value) for key, value in sorted(tags.items()))
    return Rule(region, merge_confs([entry.conf for entry in about]), tuple(entry.origin for entry in about))


def connected(listed: Sequence[Entry[ConfT]]) -> tuple[Group[ConfT], ...]:
    """The entries in groups, each in the order given; two whose tags do not contradict each other are in one group."""
    groups: list[list[int]] = []
    for index, entry in enumerate(listed):
        touched = [g for g in groups if any(_compatible(entry.tags, listed[other].tags) for other in g)]
        joined = sorted({index, *(i for g in touched for i in g)})
        groups = [g for g in groups if g not in touched] + [joined]
    return tuple(tuple(listed[i] for i in group) for group in groups)


def confs_of_client(groups: Sequence[Group[ConfT]], tags: Mapping[str, Collection[str]]) -> Iterator[Rule[ConfT]]:
    """What a client gets in each region it is in; several only if it has several values of one tag.

    ``groups`` are ``connected(entries)``. The values of a tag that no entry of a group names do not count in it.
    Yields in the order of the sorted values, at most ``MAX_REGIONS`` a group: a client that claims to be more things
    at once is not looked at further.
    """
    for group in groups:
        named: dict[str, set[str]] = {}
        for entry in group:
            for key, value in entry.tags.items():
                named.setdefault(key, set()).add(value)
        choices = {key: sorted(values & set(tags.get(key, ()))) for key, values in sorted(named.items())}
        keys = [key for key, values in choices.items() if values]
        for values in islice(product(*(choices[key] for key in keys)), MAX_REGIONS):
            rule = conf_of(group, dict(zip(keys, values, strict=True)))
            if rule is not None:
                yield rule


def partition(listed: Sequence[Entry[ConfT]], limit: int = MAX_REGIONS) -> tuple[Rule[ConfT], ...]:
    """Disjoint rules that say for every proxy what ``conf_of`` says; most positive conditions first.

    Entries that cannot be about one proxy (two values of one tag) are kept apart, unless a third is about both.

    Raises:
        ValueError: the entries would need more than ``limit`` rules.

    Source: Kuma ``docs/madr/decisions/007-mesh-traffic-permission.md`` (behaviour, not code).
    """
    rules: list[Rule[ConfT]] = []
    budget = limit
    for group in connected(listed):
        values: dict[str, set[str]] = {}
        for entry in group:
            for key, value in entry.tags.items():
                values.setdefault(key, set()).add(value)
        size = 1
        for options in values.values():
            size *= len(options) + 1
        budget -= size
        if budget < 0:
            raise ValueError(f"{len(listed)} entries over the tags {', '.join(sorted(values))} need too many regions")
        for region in _regions(values):
            about = [entry for entry in group if covers(entry.tags, region)]
            if about:
                conf = merge_confs([entry.conf for entry in about])
                rules.append(Rule(region, conf, tuple(entry.origin for entry in about)))
    return tuple(sorted(rules, key=lambda rule: (-sum(not tag.negated for tag in rule.region), rule.region)))


def _regions(values: Mapping[str, Collection[str]]) -> Iterator[Region]:
    dimensions = [
        [(Tag(key, value),) for value in sorted(options)] + [tuple(Tag(key, v, negated=True) for v in sorted(options))]
        for key, options in sorted(values.items())
    ]
    for choice in product(*dimensions):
        yield tuple(tag for part in choice for tag in part)


def covers(tags: Mapping[str, str], region: Region) -> bool:
    """Whether an entry about these tags is about a region of a partition that it is in."""
    positive = {tag.key: tag.value for tag in region if not tag.negated}
    return all(positive.get(key) == value for key, value in tags.items())


def _compatible(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(other.get(key, value) == value for key, value in one.items())
