"""Where a connection to one service may go: weights, priorities, and what stands at each address.

Weights are the design's (section 6), not Kuma's: every healthy instance, wherever it is, gets the same share. A local
instance counts 1. What a remote zone's ingresses report is divided among that zone's distinct ingress addresses. With
egress routing on, all remote instances together are divided among this zone's egresses. The shares are exact
fractions, scaled to the smallest integers. ``subsets.py`` does the same for some of the instances.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import gcd, lcm
from types import MappingProxyType
from typing import cast

from meshd.kinds.external_service import ExternalService
from meshd.model import labels as label
from meshd.model.resource import Resource
from meshd.topology.protocol import common_protocol
from meshd.topology.view import NO_GROUPS, Endpoint, Group, Groups, Reach, ServiceView


@dataclass(frozen=True, slots=True)
class Local:
    """An inbound of this zone. ``service`` is spelled as its author did; ``ready``: it may be sent traffic."""

    service: str
    address: str
    port: int
    tags: Mapping[str, str]
    ready: bool


@dataclass(frozen=True, slots=True)
class Remote:
    """What one ingress of another zone reports: ``instances`` with these tags; ``external``: they are outside."""

    service: str
    tags: Mapping[str, str]
    instances: int
    external: bool


@dataclass(frozen=True, slots=True)
class Gate:
    """A ZoneIngress of another zone, or a ZoneEgress of this one; ``port`` 0: it has no address to connect to."""

    zone: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all services of a mesh share. ``through_egress`` only with mTLS; ``ingresses`` by name, remote ones."""

    zone: str
    mtls: bool
    through_egress: bool
    locality_aware: bool
    ingresses: Mapping[str, Gate]
    egresses: tuple[Gate, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """What is known of one service: ``remotes`` by ingress name, ``externals`` by ExternalService name."""

    name: str
    locals: tuple[Local, ...] = ()
    remotes: Mapping[str, tuple[Remote, ...]] = field(default_factory=lambda: MappingProxyType({}))
    externals: Mapping[str, Resource] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Built:
    """One service as a proxy of this zone, its egress and its ingress see it; None: not reachable there at all."""

    service: ServiceView
    egress: ServiceView | None
    ingress: ServiceView | None


@dataclass(frozen=True, slots=True)
class _Zone:
    """A remote zone's instances of a service, and the distinct addresses that lead to them, sorted."""

    name: str
    instances: int
    gates: tuple[tuple[str, int], ...]
    tags: Mapping[str, str]
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """An endpoint before its weight is an integer."""

    address: str
    port: int
    zone: str
    share: Fraction
    priority: int
    reach: Reach
    tags: Mapping[str, str]


def build(parts: Parts, around: Surroundings) -> Built:
    """One service in all three roles. An ExternalService counts only while no instance has its name."""
    is_external = bool(parts.externals) and not parts.locals and not _remote_zones(parts, around, external=False)
    return _build_external(parts, around) if is_external else _build_internal(parts, around)


def _build_internal(parts: Parts, around: Surroundings) -> Built:
    zones = _remote_zones(parts, around, external=False)
    remote_tags = [remote.tags for remotes in parts.remotes.values() for remote in remotes if not remote.external]
    protocol = common_protocol(
        [tags.get(label.PROTOCOL, "") for tags in (*(i.tags for i in parts.locals), *remote_tags)]
    )
    local = [
        Share(i.address, i.port, around.zone, Fraction(1), 0, Reach.INSTANCE, i.tags) for i in parts.locals if i.ready
    ]
    reported = {zone.name: zone.instances for zone in zones}
    away = 1 if around.locality_aware else 0
    if around.through_egress:
        remote = _through_egress(zones, around, away)
    else:
        remote = _to_ingresses(zones, away) if around.mtls else []
    groups = _groups(zones)
    behind = groups if remote else NO_GROUPS
    service = ServiceView(parts.name, protocol, scaled([*local, *remote]), len(local), reported, groups=behind)
    egress = None
    if around.through_egress and zones:
        egress = ServiceView(parts.name, protocol, scaled(_to_ingresses(zones, 0)), 0, reported, groups=groups)
    ingress = None
    if parts.locals:
        here = {around.zone: _grouped((i.tags, int(i.ready)) for i in parts.locals)}
        ingress = ServiceView(parts.name, protocol, scaled(local), len(local), {}, groups=here)
    return Built(service, egress, ingress)


def _build_external(parts: Parts, around: Surroundings) -> Built:
    resources = [parts.externals[name] for name in sorted(parts.externals)]
    specs = [cast("ExternalService", resource.spec) for resource in resources]
    first = resources[0]
    protocol = common_protocol([spec.tags.get(label.PROTOCOL, "") for spec in specs])
    zones = _remote_zones(parts, around, external=True) if around.through_egress else ()
    reported = {zone.name: zone.instances for zone in zones}
    everywhere = [_outside(spec, around) for spec in specs]
    # An ExternalService tagged with a zone leaves the mesh there and nowhere else.
    here = [_outside(spec, around) for spec in specs if spec.tags.get(label.ZONE, around.zone) == around.zone]
    own = [spec for spec in specs if spec.tags.get(label.ZONE) == around.zone]

    def by_egress(chosen: Sequence[ExternalService]) -> tuple[Endpoint, ...]:
        where = {spec.tags.get(label.ZONE, "") for spec in chosen}
        zone = where.pop() if len(where) == 1 else ""
        away = int(around.locality_aware and zone not in ("", around.zone))
        tags = agreed([spec.tags for spec in chosen])
        return scaled([Share(e.address, e.port, zone, Fraction(1), away, Reach.EGRESS, tags) for e in around.egresses])

    leaving = by_egress(specs) if around.through_egress else scaled(everywhere)
    behind = _by_zone(specs) if around.through_egress else NO_GROUPS
    service = ServiceView(parts.name, protocol, leaving, 0, reported, first, behind)
    egress: ServiceView | None = None
    if around.mtls and here:
        egress = ServiceView(parts.name, protocol, scaled(here), 0, {}, first)
    elif around.mtls and zones:
        # It leaves by another zone's egress: here it is passed on by SNI like any remote service.
        egress = ServiceView(parts.name, protocol, scaled(_to_ingresses(zones, 0)), 0, reported, groups=_groups(zones))
    ingress: ServiceView | None = None
    if around.through_egress and own:
        ingress = ServiceView(parts.name, protocol, by_egress(own), 0, {}, first, _by_zone(own))
    return Built(service, egress, ingress)


def _outside(spec: ExternalService, around: Surroundings) -> Share:
    zone = spec.tags.get(label.ZONE, "")
    away = int(around.locality_aware and zone not in ("", around.zone))
    return Share(spec.host, spec.port, zone, Fraction(1), away, Reach.EXTERNAL, spec.tags)


def _remote_zones(parts: Parts, around: Surroundings, *, external: bool) -> tuple[_Zone, ...]:
    """The zones that report instances, sorted by name.

    Ingresses of a zone report the same instances; while they disagree (one has not heard yet) the highest report
    counts. One that reports nothing of the service takes no share of it.
    """
    gates: dict[str, set[tuple[str, int]]] = {}
    best: dict[str, tuple[int, tuple[Group, ...]]] = {}
    tags: dict[str, list[Mapping[str, str]]] = {}
    for ingress, remotes in parts.remotes.items():
        gate = around.ingresses.get(ingress)
        groups = tuple(Group(r.tags, r.instances) for r in remotes if r.external is external and r.instances)
        instances = sum(group.instances for group in groups)
        if gate is None or not instances:
            continue
        # Several ingresses behind one load balancer are one address.
        gates.setdefault(gate.zone, set()).add((gate.address, gate.port))
        if instances > best.get(gate.zone, (0, ()))[0]:
            best[gate.zone] = (instances, groups)
        tags.setdefault(gate.zone, []).extend(group.tags for group in groups)
    return tuple(
        _Zone(
            zone,
            best[zone][0],
            tuple(sorted(where for where in of_zone if where[1])),
            agreed(tags[zone]),
            best[zone][1],
        )
        for zone, of_zone in sorted(gates.items())
    )


def _groups(zones: Iterable[_Zone]) -> Groups:
    return MappingProxyType({zone.name: zone.groups for zone in zones if zone.gates})


def _by_zone(specs: Iterable[ExternalService]) -> Groups:
    """External services by the zone in which they leave the mesh, "" for any."""
    found: dict[str, list[tuple[Mapping[str, str], int]]] = {}
    for spec in specs:
        found.setdefault(spec.tags.get(label.ZONE, ""), []).append((spec.tags, 1))
    return MappingProxyType({zone: _grouped(several) for zone, several in sorted(found.items())})


def _grouped(counted: Iterable[tuple[Mapping[str, str], int]]) -> tuple[Group, ...]:
    found: Counter[tuple[tuple[str, str], ...]] = Counter()
    for tags, instances in counted:
        found[tuple(sorted(tags.items()))] += instances
    return tuple(Group(dict(tags), instances) for tags, instances in sorted(found.items()))


def _to_ingresses(zones: Iterable[_Zone], priority: int) -> list[Share]:
    return [
        Share(address, port, zone.name, Fraction(zone.instances, len(zone.gates)), priority, Reach.INGRESS, zone.tags)
        for zone in zones
        for address, port in zone.gates
    ]


def _through_egress(zones: Sequence[_Zone], around: Surroundings, priority: int) -> list[Share]:
    reachable = [zone for zone in zones if zone.gates]
    total = sum(zone.instances for zone in reachable)
    if not total:
        return []
    name = reachable[0].name if len(reachable) == 1 else ""
    tags = agreed([zone.tags for zone in reachable])
    share = Fraction(total, len(around.egresses) or 1)
    return [Share(e.address, e.port, name, share, priority, Reach.EGRESS, tags) for e in around.egresses]


def agreed(tag_sets: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """The tags that all sets, at least one, have with the same value."""
    first, *others = tag_sets
    if not others:
        return first
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def scaled(shares: Sequence[Share]) -> tuple[Endpoint, ...]:
    """Endpoints with the smallest integer weights in the proportion of the shares, sorted."""
    scale = lcm(*(s.share.denominator for s in shares))
    common = gcd(*(int(s.share * scale) for s in shares)) or 1
    found = [
        Endpoint(s.address, s.port, s.zone, int(s.share * scale) // common, s.priority, s.reach, s.tags) for s in shares
    ]
    return tuple(sorted(found, key=lambda e: (e.priority, e.zone, e.address, e.port)))
