"""Between the store and the streams of KDS, the same for both roles: writing what came, and following what changes."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import trio
from prometheus_client import CollectorRegistry

from meshd.discovery import Received
from meshd.kds.merge import Batch, Merged, joined, pieces
from meshd.kds.metrics import Metrics
from meshd.kds.outbox import Outbox
from meshd.kds.quarantine import Direction, Held, Quarantined, Refusal, after_batch, quarantined
from meshd.model.errors import ConflictError, NotFoundError, UnavailableError, shortened
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.model.resource_type import ResourceType
from meshd.runtime.latest import Latest
from meshd.store.store import ChangeFeed, Store

log = logging.getLogger(__name__)

DEBOUNCE_S = 0.02
"""A burst of changes is waited for so long and then crosses as one; a single change is this much late."""
PIECE = 16
"""Resources that are coded before others run: about 20 ms of work at worst."""
WRITE_ATTEMPTS = 10
"""Others may write the same resources; after so many lost races something else is wrong."""


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """What a role of KDS needs of the process it lives in.

    ``instance_id`` names the process (``<host>-<4 characters>``), ``version`` is what peers are told. ``now`` is UTC.
    """

    store: Store
    registry: Registry
    now: Callable[[], datetime]
    metrics: CollectorRegistry
    instance_id: str
    version: str


class Quarantine:
    """What is refused now, by zone and direction; ``items`` is for REST. Logs once per transition."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._held: dict[tuple[str, Direction], dict[ResourceKey, str]] = {}
        self.items: Latest[tuple[Quarantined, ...]] = Latest(())

    def after_batch(
        self,
        zone: str,
        direction: Direction,
        kind: str,
        refused: Iterable[Refusal],
        *,
        complete: bool = False,
        seen: frozenset[ResourceKey] = frozenset(),
    ) -> None:
        """Take note of what came of a batch of one kind; see ``quarantine.after_batch``."""
        before = self._held.get((zone, direction), {})
        after = after_batch(before, kind, complete=complete, seen=seen, refused=refused)
        if after == before:
            return
        for key in sorted(after.keys() - before.keys()):
            log.warning("zone=%s %s %s is refused: %s", zone, direction.value, key, after[key])
        for key in sorted(before.keys() - after.keys()):
            log.info("zone=%s %s %s is refused no more", zone, direction.value, key)
        self._set(zone, direction, after)

    def replace(self, zone: str, direction: Direction, refused: Mapping[ResourceKey, str]) -> None:
        """Make ``refused`` all that is held of a zone and direction."""
        kinds = {key.kind for key in self._held.get((zone, direction), {})} | {key.kind for key in refused}
        for kind in sorted(kinds):
            of_kind = [Refusal(key, reason) for key, reason in refused.items() if key.kind == kind]
            self.after_batch(zone, direction, kind, of_kind, complete=True)

    def of(self, zone: str, direction: Direction, kind: str) -> tuple[Quarantined, ...]:
        """What is refused of one kind."""
        return tuple(q for q in self.items.value if (q.zone, q.direction, q.kind) == (zone, direction, kind))

    def forget(self, zone: str) -> None:
        """Drop everything of a zone that is gone."""
        for direction in Direction:
            if (zone, direction) in self._held:
                self._set(zone, direction, {})

    def _set(self, zone: str, direction: Direction, after: dict[ResourceKey, str]) -> None:
        if after:
            self._held[zone, direction] = after
        else:
            self._held.pop((zone, direction), None)
        held: Held = self._held
        count = sum(len(reasons) for (_, way), reasons in held.items() if way is direction)
        self._metrics.quarantined.labels(direction.value).set(count)
        self.items.publish(quarantined(held))


Plan = Callable[[Batch, Store], Merged]
"""``merge.on_global`` for one zone, or ``merge.on_zone``."""


async def apply(store: Store, type_: ResourceType, received: Received, plan: Plan) -> tuple[Batch, Merged]:
    """Write what a response comes to, in one transaction; what others wrote in between is looked at again.

    Others run between pieces of the work. Returns the closing piece, which names every key, and what came of it all.

    Raises:
        UnavailableError: the store is away, or the race was lost again and again.
    """
    for _ in range(WRITE_ATTEMPTS):
        parts = []
        for piece in pieces(type_, received, PIECE):
            parts.append(plan(piece, store))
            await trio.lowlevel.checkpoint()
        merged = joined(parts)
        if not merged.edits:
            return piece, merged
        try:
            await store.write(merged.edits)
        except (ConflictError, NotFoundError) as error:
            log.debug("kind=%s: %s; merging again", type_.kind, error)
            last = error
        else:
            return piece, merged
    raise UnavailableError(f"kind {type_.kind}: lost {WRITE_ATTEMPTS} races for the store, at last: {last}")


async def refresh(outbox: Outbox, keys: Iterable[ResourceKey], store: Store) -> Mapping[str, set[str]]:
    """``outbox.update`` in pieces, so that others run in between."""
    ordered = sorted(keys)
    changed: dict[str, set[str]] = defaultdict(set)
    for start in range(0, len(ordered), PIECE):
        for kind, names in outbox.update(ordered[start : start + PIECE], store.get).items():
            changed[kind] |= names
        await trio.lowlevel.checkpoint()
    return changed


async def settled(feed: ChangeFeed, debounce_s: float) -> frozenset[ResourceKey]:
    """The next burst of changes, as one set."""
    dirty = await feed.take()
    await trio.sleep(debounce_s)
    return dirty | feed.take_now()


def every_key(store: Store, kinds: Iterable[str]) -> list[ResourceKey]:
    """The keys of everything stored of these kinds."""
    found: list[Resource] = []
    for kind in kinds:
        found += store.list(kind)
    return [resource.key for resource in found]


def unreadable(store: Store) -> Mapping[ResourceKey, str]:
    """What the store holds and cannot decode: it crosses no border until somebody writes it anew."""
    return {key: shortened(f"cannot be read from the store: {why}") for key, why in store.unreadable().items()}
