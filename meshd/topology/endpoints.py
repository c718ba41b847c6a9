"""Where a connection to one service may go: weights, priorities, and what stands at each address.

Weights are the design's (section 6), not Kuma's: every healthy instance, wherever it is, gets the same share. A local
instance counts 1. What a remote zone's ingresses report is divided among that zone's distinct ingress addresses. With
egress routing on, all remote instances together are divided among this zone's egresses. The shares are exact
fractions, scaled to the smallest integers.
"""

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
from meshd.topology.view import Endpoint, Reach, ServiceView


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


@dataclass(frozen=True, slots=True)
class _Share:
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
        _Share(i.address, i.port, around.zone, Fraction(1), 0, Reach.INSTANCE, i.tags) for i in parts.locals if i.ready
    ]
    reported = {zone.name: zone.instances for zone in zones}
    away = 1 if around.locality_aware else 0
    if around.through_egress:
        remote = _through_egress(zones, around, away)
    else:
        remote = _to_ingresses(zones, away) if around.mtls else []
    service = ServiceView(parts.name, protocol, _scaled([*local, *remote]), len(local), reported)
    egress = None
    if around.through_egress and zones:
        egress = ServiceView(parts.name, protocol, _scaled(_to_ingresses(zones, 0)), 0, reported)
    ingress = ServiceView(parts.name, protocol, _scaled(local), len(local), {}) if parts.locals else None
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
        tags = _agreed([spec.tags for spec in chosen])
        return _scaled(
            [_Share(e.address, e.port, zone, Fraction(1), away, Reach.EGRESS, tags) for e in around.egresses]
        )

    leaving = by_egress(specs) if around.through_egress else _scaled(everywhere)
    service = ServiceView(parts.name, protocol, leaving, 0, reported, first)
    egress: ServiceView | None = None
    if around.mtls and here:
        egress = ServiceView(parts.name, protocol, _scaled(here), 0, {}, first)
    elif around.mtls and zones:
        # It leaves by another zone's egress: here it is passed on by SNI like any remote service.
        egress = ServiceView(parts.name, protocol, _scaled(_to_ingresses(zones, 0)), 0, reported)
    ingress: ServiceView | None = None
    if around.through_egress and own:
        ingress = ServiceView(parts.name, protocol, by_egress(own), 0, {}, first)
    return Built(service, egress, ingress)


def _outside(spec: ExternalService, around: Surroundings) -> _Share:
    zone = spec.tags.get(label.ZONE, "")
    away = int(around.locality_aware and zone not in ("", around.zone))
    return _Share(spec.host, spec.port, zone, Fraction(1), away, Reach.EXTERNAL, spec.tags)


def _remote_zones(parts: Parts, around: Surroundings, *, external: bool) -> tuple[_Zone, ...]:
    """The zones that report instances, sorted by name.

    Ingresses of a zone report the same instances; while they disagree (one has not heard yet) the highest report
    counts. One that reports nothing of the service takes no share of it.
    """
    reports: dict[str, dict[tuple[str, int], int]] = {}
    tags: dict[str, list[Mapping[str, str]]] = {}
    for ingress, remotes in parts.remotes.items():
        gate = around.ingresses.get(ingress)
        instances = sum(remote.instances for remote in remotes if remote.external is external)
        if gate is None or not instances:
            continue
        # Several ingresses behind one load balancer are one address.
        of_zone = reports.setdefault(gate.zone, {})
        where = (gate.address, gate.port)
        of_zone[where] = max(instances, of_zone.get(where, 0))
        tags.setdefault(gate.zone, []).extend(r.tags for r in remotes if r.external is external and r.instances)
    return tuple(
        _Zone(
            zone,
            max(of_zone.values()),
            tuple(sorted(where for where in of_zone if where[1])),
            _agreed(tags[zone]),
        )
        for zone, of_zone in sorted(reports.items())
    )


def _to_ingresses(zones: Iterable[_Zone], priority: int) -> list[_Share]:
    return [
        _Share(address, port, zone.name, Fraction(zone.instances, len(zone.gates)), priority, Reach.INGRESS, zone.tags)
        for zone in zones
        for address, port in zone.gates
    ]


def _through_egress(zones: Sequence[_Zone], around: Surroundings, priority: int) -> list[_Share]:
    reachable = [zone for zone in zones if zone.gates]
    total = sum(zone.instances for zone in reachable)
    if not total:
        return []
    name = reachable[0].name if len(reachable) == 1 else ""
    tags = _agreed([zone.tags for zone in reachable])
    share = Fraction(total, len(around.egresses) or 1)
    return [_Share(e.address, e.port, name, share, priority, Reach.EGRESS, tags) for e in around.egresses]


def _agreed(tag_sets: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """The tags that all sets have with the same value."""
    first, *others = tag_sets
    if not others:
        return first
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def _scaled(shares: Sequence[_Share]) -> tuple[Endpoint, ...]:
    """Endpoints with the smallest integer weights in the proportion of the shares, sorted."""
    scale = lcm(*(s.share.denominator for s in shares))
    common = gcd(*(int(s.share * scale) for s in shares)) or 1
    found = [
        Endpoint(s.address, s.port, s.zone, int(s.share * scale) // common, s.priority, s.reach, s.tags) for s in shares
    ]
    return tuple(sorted(found, key=lambda e: (e.priority, e.zone, e.address, e.port)))
