"""A received batch against what is stored: the edits that apply it, and what of it is refused. Pure.

Source: Kuma ``pkg/kds/v2/store/sync.go`` (behaviour); reference/kds.md 5.3, 5.7 and 7.2.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from meshd.discovery.receiver import Received
from meshd.kds import surgery
from meshd.kds.crossing import at_home
from meshd.kds.envelope import Arrived, UnreadableError, decode
from meshd.kds.names import hashed_name, keys_of
from meshd.kds.quarantine import Refusal
from meshd.model import codec
from meshd.model import labels as label
from meshd.model.errors import InvalidError, shortened
from meshd.model.resource import Resource, ResourceKey
from meshd.model.resource_type import Flow, ResourceType
from meshd.store.store import Create, Delete, Edit, Update

MADE_HERE = "user error: a resource of that name was made in this zone; delete or rename it"
"""Why a zone does not take what the global sent. It begins with Kuma's words: a Kuma global shows it to its users."""

MAX_SPEC_BYTES = 256 * 1024
"""Of one resource that a zone sends: a Dataplane has a few KiB, a Kubernetes object never above 1.5 MiB."""
MAX_LIST_BYTES = 1024 * 1024
"""Of the kinds that grow with a zone: an ingress lists 28,000 services in so much."""
LIST_KINDS = surgery.SUBSCRIBED_KINDS | {"ZoneIngress"}


class Stored(Protocol):
    """What a merge reads of a store."""

    def get(self, key: ResourceKey) -> Resource | None:
        """The stored resource, or None."""

    def list(self, kind: str, mesh: str | None = None) -> tuple[Resource, ...]:
        """Every stored resource of a kind."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One response, or a piece of it, with its envelopes opened.

    ``opaque``: some resource is so broken that not even its key is known. ``named`` are keys of other pieces: they are
    there, whatever this piece says.
    """

    type_: ResourceType
    complete: bool
    arrived: tuple[Arrived, ...]
    removed: tuple[ResourceKey, ...]
    refused: tuple[Refusal, ...]
    opaque: bool = False
    named: frozenset[ResourceKey] = frozenset()

    @property
    def seen(self) -> frozenset[ResourceKey]:
        """Every key that it names."""
        return self.present.union(self.removed)

    @property
    def present(self) -> frozenset[ResourceKey]:
        """Every key that is there at the sender, readable or not."""
        return self.named.union((a.key for a in self.arrived), (r.key for r in self.refused))


@dataclass(frozen=True, slots=True)
class Merged:
    """What to write, and what stayed out. ``relabelled`` are values of zones that others claimed in specs.

    ``overruled`` are resources that were made here and go because the global, whose kind it is, does not have them.
    """

    edits: tuple[Edit, ...]
    refused: tuple[Refusal, ...]
    relabelled: tuple[str, ...] = ()
    overruled: tuple[ResourceKey, ...] = ()


def open_batch(type_: ResourceType, received: Received) -> Batch:
    """Open the envelopes of a response; what cannot be opened is refused alone."""
    arrived: dict[ResourceKey, Arrived] = {}
    refused: list[Refusal] = []
    opaque = False
    for entry in received.resources:
        try:
            one = decode(type_, entry)
        except UnreadableError as error:
            opaque = opaque or error.key is None
            refused.append(refusal(error.key or ResourceKey(type_.kind, "", ""), str(error)))
        else:
            arrived[one.key] = one
    removed = tuple(key for name in received.removed for key in keys_of(type_.kind, name))
    return Batch(
        type_, received.complete, tuple(arrived.values()), () if received.complete else removed, tuple(refused), opaque
    )


def pieces(type_: ResourceType, received: Received, size: int) -> Iterator[Batch]:
    """A response in pieces of ``size`` resources, each an increment, then one with what it removes or says is complete.

    Decoding is the work here; the caller may let others run between two pieces.
    """
    named: set[ResourceKey] = set()
    opaque = False
    for start in range(0, len(received.resources), size):
        part = received.resources[start : start + size]
        piece = open_batch(type_, replace(received, complete=False, resources=part, removed=()))
        named |= piece.present
        opaque = opaque or piece.opaque
        yield piece
    rest = open_batch(type_, replace(received, resources=()))
    yield replace(rest, opaque=opaque, named=frozenset(named))


def joined(parts: Iterable[Merged]) -> Merged:
    """What pieces of a response come to, the edits again in the order create, delete, update.

    Of a key that came more than once the last one counts.
    """
    merged = tuple(parts)
    edits = {
        edit.key if isinstance(edit, Delete) else edit.resource.key: edit for part in merged for edit in part.edits
    }
    order = (Create, Delete, Update)
    return Merged(
        tuple(edit for kind in order for edit in edits.values() if isinstance(edit, kind)),
        tuple(refused for part in merged for refused in part.refused),
        tuple(value for part in merged for value in part.relabelled),
        tuple(key for part in merged for key in part.overruled),
    )


def on_global(batch: Batch, stored: Stored, zone: str) -> Merged:
    """Apply what ``zone`` sent: only what is labelled as its own is touched, and everything is made its own.

    New resources are owned by the Zone, which must be stored.
    """
    owner = ResourceKey("Zone", "", zone)
    relabelled: list[str] = []

    def receive(one: Arrived, existing: Resource | None) -> Resource:
        if existing is not None and existing.labels.get(label.ZONE) != zone:
            raise ValueError(f"it belongs to {belongs_to(existing)}")
        check_size(one)
        labels = {**at_home(one.labels), label.ZONE: zone, label.ORIGIN: label.ORIGIN_ZONE}
        expected = hashed_name(one.key.mesh, labels.get(label.DISPLAY_NAME) or one.key.name, labels)
        if one.key.name != expected:
            # Names are the hash of the zone, so that no zone can take a name that another will need.
            raise ValueError(f"its name is not the one that its mesh, display name and zone give: {expected!r}")
        other = mistaken_for(zone, labels.get(label.NAMESPACE, ""), stored)
        if other:
            raise ValueError(
                f"its namespace {labels[label.NAMESPACE]!r} behind the zone's name gives the names of zone {other!r}"
            )
        wire, claimed = surgery.pin_zone(one.key.kind, one.spec, zone)
        relabelled.extend(claimed)
        resource = build(batch.type_, one, existing, labels, wire)
        status = None if one.status is None else codec.status_from_wire(batch.type_, one.status)
        return replace(resource, owner=owner, status=status)

    def in_scope(resource: Resource) -> bool:
        return resource.labels.get(label.ZONE) == zone

    merged = merge(batch, stored, in_scope, receive)
    return replace(merged, relabelled=tuple(relabelled))


def check_size(one: Arrived) -> None:
    """Refuse what would hold up everybody while it is decoded: 1 MiB of messages takes seconds.

    Raises:
        ValueError: it is larger than any honest one.
    """
    limit = MAX_LIST_BYTES if one.key.kind in LIST_KINDS else MAX_SPEC_BYTES
    size = len(one.spec) + len(one.status or b"")
    if size > limit:
        raise ValueError(f"it has {size} bytes; of a {one.key.kind} at most {limit} are taken from a zone")


def mistaken_for(zone: str, namespace: str, stored: Stored) -> str:
    """The zone whose names ``zone`` would take with this namespace, empty if there is none.

    The hash in a name has no separators (reference/kds.md T24): zone "east" with namespace "2" hashes as zone "east2".
    """
    whole = zone + namespace
    longer = (whole[:end] for end in range(len(zone) + 1, len(whole) + 1))
    return next((name for name in longer if stored.get(ResourceKey("Zone", "", name)) is not None), "")


def on_zone(batch: Batch, stored: Stored) -> Merged:
    """Apply what the global sent: of kinds that a zone may own, only what is labelled as the global's is touched.

    The status of a stored resource is the zone's own and stays.
    """
    shared = Flow.ZONE_LOCAL in batch.type_.flow

    def in_scope(resource: Resource) -> bool:
        return not shared or resource.labels.get(label.ORIGIN) == label.ORIGIN_GLOBAL

    def receive(one: Arrived, existing: Resource | None) -> Resource:
        if shared and one.labels.get(label.ORIGIN) != label.ORIGIN_GLOBAL:
            raise ValueError(f"it came without the label {label.ORIGIN}={label.ORIGIN_GLOBAL}")
        if existing is not None and not in_scope(existing):
            raise ValueError(MADE_HERE)
        resource = build(batch.type_, one, existing, at_home(one.labels), one.spec)
        return replace(resource, status=existing.status if existing else None)

    merged = merge(batch, stored, in_scope, receive)
    gone = [stored.get(edit.key) for edit in merged.edits if isinstance(edit, Delete)]
    own = (r.key for r in gone if r is not None and r.labels.get(label.ORIGIN) != label.ORIGIN_GLOBAL)
    return merged if batch.type_.read_only else replace(merged, overruled=tuple(own))


def merge(
    batch: Batch,
    stored: Stored,
    in_scope: Callable[[Resource], bool],
    receive: Callable[[Arrived, Resource | None], Resource],
) -> Merged:
    """The edits in the order create, delete, update. ``receive`` raises ``ValueError`` for what is refused."""
    creates: list[Edit] = []
    updates: list[Edit] = []
    refused = list(batch.refused)
    for one in batch.arrived:
        existing = stored.get(one.key)
        try:
            resource = receive(one, existing)
        except (ValueError, InvalidError) as error:
            refused.append(refusal(one.key, str(error)))
            continue
        if existing is None:
            creates.append(Create(resource))
        elif not existing.same_content(resource):
            updates.append(Update(resource))
    kept = batch.present
    gone: list[Resource] = []
    if not batch.complete:
        found = (stored.get(key) for key in batch.removed if key not in kept)
        gone = [resource for resource in found if resource is not None and in_scope(resource)]
    elif not batch.opaque:
        # With an unknown key among the broken ones nobody can say what is really gone.
        gone = [r for r in stored.list(batch.type_.kind) if r.key not in kept and in_scope(r)]
    deletes: list[Edit] = [Delete(resource.key, resource.version) for resource in gone]
    return Merged((*creates, *deletes, *updates), tuple(refused))


def build(
    type_: ResourceType, one: Arrived, existing: Resource | None, labels: Mapping[str, str], wire: bytes
) -> Resource:
    """The resource to store; what is stored already is not decoded again.

    Raises:
        ValueError, InvalidError: the spec cannot be decoded or its kind's rules refuse it.
    """
    if existing is not None and existing.wire == wire:
        return replace(existing, labels=labels)
    spec = codec.spec_from_wire(type_, wire)
    resource = Resource(key=one.key, spec=spec, labels=labels, wire=wire)
    violations = type_.validate(resource)
    if violations:
        raise ValueError("; ".join(str(v) for v in violations))
    if existing is None:
        return resource
    return replace(existing, spec=spec, labels=labels, wire=wire)


def refusal(key: ResourceKey, reason: str) -> Refusal:
    """A refusal with its reason cut to a length fit for logs."""
    return Refusal(key, shortened(reason))


def belongs_to(resource: Resource) -> str:
    """Whose a stored resource is, for people."""
    zone = resource.labels.get(label.ZONE)
    return f"zone {zone!r}" if zone else "the global"


def complaint(refused: tuple[Refusal, ...]) -> str:
    """What a NACK says."""
    text = "; ".join(f"{r.key}: {r.reason}" for r in refused[:10])
    return text if len(refused) <= 10 else f"{text}; and {len(refused) - 10} more"
