"""Which services a mesh has, from what its Dataplanes, ExternalServices and the zones' ingresses say.

``MeshIndex`` holds what is known by service, so that a change costs the services it names. Services are found by their
name in lower case: SNI and DNS know no case, so names that differ by case only are one service. Its spelling is
that of the local instances, else of the ExternalServices, else the first in order; others are not used.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar, cast

from meshd.kinds.dataplane import Dataplane, InboundState
from meshd.kinds.external_service import ExternalService
from meshd.kinds.zone_ingress import AvailableService, ZoneIngress
from meshd.model import labels as label
from meshd.model.resource import Resource
from meshd.topology.endpoints import Local, Parts, Remote

T = TypeVar("T")


class TagSet(NamedTuple):
    """Tags as a value, sorted; ``text`` is Kuma's ``k=v,k=v``, by which tag sets are ordered."""

    text: str
    tags: tuple[tuple[str, str], ...]


class Offer(NamedTuple):
    """One line of an ingress's ``availableServices``, as a value."""

    mesh: str
    tags: tuple[tuple[str, str], ...]
    instances: int
    external: bool


def locals_of(resource: Resource) -> tuple[Local, ...]:
    """The inbounds of a Dataplane that name a service; none of a gateway. Ignored inbounds are not there at all."""
    networking = cast("Dataplane", resource.spec).networking
    if networking.gateway is not None:
        return ()
    return tuple(
        Local(
            inbound.service,
            networking.advertised_address or inbound.address or networking.address,
            inbound.port,
            inbound.tags,
            inbound.is_ready,
        )
        for inbound in networking.inbound
        if inbound.service and inbound.state is not InboundState.IGNORED
    )


def offers_of(resource: Resource) -> frozenset[Offer]:
    """What a ZoneIngress says is behind it. Entries of another mesh's gateway (tag ``kuma.io/mesh``) are left out."""
    return frozenset(
        Offer(service.mesh, tuple(sorted(service.tags.items())), service.instances, service.external_service)
        for service in cast("ZoneIngress", resource.spec).available_services
        if label.SERVICE in service.tags and label.MESH not in service.tags
    )


def available_services(
    dataplanes: Iterable[Resource], externals: Iterable[Resource], zone: str
) -> tuple[AvailableService, ...]:
    """What the ingresses of ``zone`` have to offer: healthy inbounds grouped by mesh and equal tags, sorted.

    ``externals`` are ExternalServices of meshes that route through egress; those tagged with this zone are offered too,
    after the others.

    Source: reference/dataplane.md 3.9.
    """
    instances: Counter[tuple[str, TagSet]] = Counter()
    for dataplane in dataplanes:
        instances.update((dataplane.key.mesh, tags) for tags in tag_sets(dataplane))
    outside = Counter(
        (external.key.mesh, tag_set(cast("ExternalService", external.spec).tags))
        for external in externals
        if cast("ExternalService", external.spec).tags.get(label.ZONE) == zone
    )
    return (*offered(instances, external=False), *offered(outside, external=True))


def offered(counts: Mapping[tuple[str, TagSet], int], *, external: bool) -> Iterator[AvailableService]:
    """One entry for each (mesh, tags) that has a count, sorted by mesh and text of the tags."""
    for (mesh, tags), count in sorted(counts.items()):
        if count:
            yield AvailableService(tags=dict(tags.tags), instances=count, mesh=mesh, external_service=external)


def tag_sets(dataplane: Resource) -> tuple[TagSet, ...]:
    """The tags of each healthy inbound."""
    return tuple(tag_set(local.tags) for local in locals_of(dataplane) if local.ready)


def tag_set(tags: Mapping[str, str]) -> TagSet:
    """Tags as a value."""
    pairs = tuple(sorted(tags.items()))
    return TagSet(",".join(f"{key}={value}" for key, value in pairs), pairs)


class MeshIndex:
    """What is known of one mesh's services, by service in lower case and then by who said it."""

    def __init__(self) -> None:
        self._locals: _BySource[Local] = _BySource()
        self._remotes: _BySource[Remote] = _BySource()
        self._externals: _BySource[Resource] = _BySource()

    def set_dataplane(self, name: str, resource: Resource | None) -> set[str]:
        """Take what a Dataplane says (None: it is gone); returns the services that this touches."""
        found = locals_of(resource) if resource is not None else ()
        return self._locals.set(name, _grouped((local.service, local) for local in found))

    def set_external(self, name: str, resource: Resource | None) -> set[str]:
        """Take what an ExternalService says (None: it is gone); returns the services that this touches."""
        service = cast("ExternalService", resource.spec).service if resource is not None else ""
        return self._externals.set(name, {service.lower(): (resource,)} if resource is not None and service else {})

    def set_ingress(self, name: str, added: Iterable[Offer], removed: Iterable[Offer]) -> set[str]:
        """Take the difference between what a remote ingress offered and offers; returns the services it touches."""
        gone = _grouped((dict(offer.tags)[label.SERVICE], _remote(offer)) for offer in removed)
        new = _grouped((dict(offer.tags)[label.SERVICE], _remote(offer)) for offer in added)
        for service in gone.keys() | new.keys():
            kept = [r for r in self._remotes.of(service).get(name, ()) if r not in gone.get(service, ())]
            kept += new.get(service, ())
            self._remotes.put(service, name, tuple(sorted(kept, key=lambda r: (r.service, tag_set(r.tags)))))
        return gone.keys() | new.keys()

    def of_ingress(self, name: str) -> set[str]:
        """The services that an ingress offers."""
        return self._remotes.named_by(name)

    def has_offers(self, name: str) -> bool:
        """Whether an ingress offers anything of this mesh."""
        return self._remotes.has(name)

    def has_elsewhere(self) -> bool:
        """Whether any service depends on gates."""
        return bool(self._remotes or self._externals)

    def services(self) -> set[str]:
        """Every service, in lower case."""
        return self._locals.services() | self._remotes.services() | self._externals.services()

    def elsewhere(self) -> set[str]:
        """The services that depend on gates: those with remote instances and the external ones."""
        return self._remotes.services() | self._externals.services()

    def spelling(self, service: str) -> str:
        """How a service is written, "" if there is none."""
        local = {item.service for items in self._locals.of(service).values() for item in items}
        if local:
            return min(local)
        external = {
            cast("ExternalService", r.spec).service for items in self._externals.of(service).values() for r in items
        }
        if external:
            return min(external)
        return min((r.service for items in self._remotes.of(service).values() for r in items), default="")

    def parts(self, service: str) -> tuple[Parts, str] | None:
        """Everything known of a service and why some of it is not used ("" if all is); None: there is none."""
        name = self.spelling(service)
        if not name:
            return None
        locals_, others = self._locals.of(service), set[str]()
        chosen = [item for source in sorted(locals_) for item in locals_[source] if item.service == name]
        remotes: dict[str, tuple[Remote, ...]] = {}
        for source, items in sorted(self._remotes.of(service).items()):
            remotes[source] = tuple(item for item in items if item.service == name)
            others |= {item.service for item in items}
        externals = {source: items[0] for source, items in sorted(self._externals.of(service).items())}
        spelled = {source: r for source, r in externals.items() if cast("ExternalService", r.spec).service == name}
        others |= {item.service for items in locals_.values() for item in items}
        others |= {cast("ExternalService", r.spec).service for r in externals.values()}
        others.discard(name)
        reason = f"service {', '.join(sorted(others))} differs from {name} by case only; not used" if others else ""
        return Parts(name, tuple(chosen), remotes, spelled), reason

    def external_resources(self) -> list[Resource]:
        """Every ExternalService of the mesh."""
        return [
            r for service in self._externals.services() for items in self._externals.of(service).values() for r in items
        ]


class _BySource(dict[str, dict[str, tuple[T, ...]]]):
    """Facts by service and source, and which services each source speaks of."""

    def __init__(self) -> None:
        super().__init__()
        self._spoken: dict[str, set[str]] = {}

    def of(self, service: str) -> Mapping[str, tuple[T, ...]]:
        return self.get(service, {})

    def services(self) -> set[str]:
        return set(self)

    def named_by(self, source: str) -> set[str]:
        return set(self._spoken.get(source, ()))

    def has(self, source: str) -> bool:
        return bool(self._spoken.get(source))

    def put(self, service: str, source: str, facts: tuple[T, ...]) -> None:
        if facts:
            self.setdefault(service, {})[source] = facts
            self._spoken.setdefault(source, set()).add(service)
            return
        if (by_source := self.get(service)) is not None:
            by_source.pop(source, None)
            if not by_source:
                del self[service]
        if (spoken := self._spoken.get(source)) is not None:
            spoken.discard(service)
            if not spoken:
                del self._spoken[source]

    def set(self, source: str, facts: Mapping[str, tuple[T, ...]]) -> set[str]:
        touched = {s for s in self.named_by(source) | facts.keys() if self.of(s).get(source, ()) != facts.get(s, ())}
        for service in touched:
            self.put(service, source, facts.get(service, ()))
        return touched


def _grouped(pairs: Iterable[tuple[str, T]]) -> dict[str, tuple[T, ...]]:
    found: dict[str, list[T]] = {}
    for service, item in pairs:
        found.setdefault(service.lower(), []).append(item)
    return {service: tuple(items) for service, items in found.items()}


def _remote(offer: Offer) -> Remote:
    tags = dict(offer.tags)
    return Remote(tags[label.SERVICE], tags, offer.instances, offer.external)
