"""Which endpoints lead to some of a service's instances, those with certain tags.

An instance of this zone is one of them or not. A gate leads to them if there are any behind it, with the weight of
those that there are: a remote zone's are divided among its ingresses; through egress all remote ones together are
divided among this zone's egresses. So a subset gets from every zone what its instances there are worth, as the whole
service does (``endpoints.py``).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

from meshd.topology.endpoints import Share, agreed, scaled
from meshd.topology.view import Endpoint, Group, Groups, Reach


def narrowed(
    endpoints: Sequence[Endpoint], groups: Groups, tags: Mapping[str, str], *, any_case: bool = False
) -> tuple[Endpoint, ...]:
    """The endpoints of a service for its instances that have all of ``tags``, with weights; all if there are none.

    ``endpoints`` and ``groups`` are those of one ServiceView. ``any_case``: tags came in an SNI, which has no case.
    """
    if not tags:
        return tuple(endpoints)
    asked = _folded(tags) if any_case else tags
    behind: dict[str, list[Group]] = {}
    for zone, several in groups.items():
        found = [g for g in several if g.instances and agrees(_folded(g.tags) if any_case else g.tags, asked)]
        if found:
            behind[zone] = found
    gates = Counter((e.reach, e.zone if e.reach is Reach.INGRESS else "") for e in endpoints)
    shares: list[Share] = []
    for e in endpoints:
        if e.reach in (Reach.INSTANCE, Reach.EXTERNAL):
            if agrees(_folded(e.tags) if any_case else e.tags, asked):
                shares.append(Share(e.address, e.port, e.zone, Fraction(1), e.priority, e.reach, e.tags))
            continue
        through_egress = e.reach is Reach.EGRESS
        zones = sorted(behind) if through_egress else [e.zone]
        chosen = [group for zone in zones for group in behind.get(zone, ())]
        if chosen:
            share = Fraction(sum(group.instances for group in chosen), gates[e.reach, "" if through_egress else e.zone])
            zone = zones[0] if len(zones) == 1 else ""
            shares.append(
                Share(e.address, e.port, zone, share, e.priority, e.reach, agreed([group.tags for group in chosen]))
            )
    return scaled(shares)


def agrees(has: Mapping[str, str], asked: Mapping[str, str]) -> bool:
    """Whether an instance with tags ``has`` is one of those that are asked for."""
    return all(has.get(key) == value for key, value in asked.items())


def _folded(tags: Mapping[str, str]) -> Mapping[str, str]:
    return {key.lower(): value.lower() for key, value in tags.items()}
