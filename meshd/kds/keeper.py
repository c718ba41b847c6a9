"""The two halves of a KDS connection, the same for both roles: a stream that sends and a stream that receives.

Each raises when it is over, whatever the end was: a stream that ends cleanly is an end too.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import trio
from prometheus_client import CollectorRegistry

from meshd.discovery import Answer, DeltaRequest, Node, Received, Receiver, Resources, Sender, Waiting, wire
from meshd.discovery.messages import WILDCARD, DeltaResponse
from meshd.kds.health import Counts, overdue
from meshd.kds.merge import Batch, Merged, complaint, joined, pieces, shortened
from meshd.kds.metrics import Metrics
from meshd.kds.outbox import Outbox
from meshd.kds.quarantine import Direction, Held, Quarantined, Refusal, after_batch, quarantined
from meshd.model.errors import ConflictError, NotFoundError, PeerError, UnavailableError
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.model.resource_type import ResourceType
from meshd.runtime.latest import Latest
from meshd.store.store import ChangeFeed, Store

log = logging.getLogger(__name__)

DEBOUNCE_S = 0.02
"""A burst of changes is waited for so long and then crosses as one; a single change is this much late."""
OTHER = "other"
MAX_TYPES = 256
"""Kinds a peer may ask for on one stream, known here or not; Kuma has under 60."""
MAX_KIND = 128
"""Characters of a kind that a peer asks for: even what is unknown here is remembered and answered."""
PIECE = 16
"""Resources that are coded before others run: about 20 ms of work at worst."""
WRITE_ATTEMPTS = 10
"""Others may write the same resources; after so many lost races something else is wrong."""


class Pipe(Protocol):
    """A bidirectional call of either role."""

    async def send(self, message: bytes) -> None:
        """Send one message."""

    async def receive(self) -> bytes | None:
        """The next message, None after a clean end."""


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


class SendingStream:
    """Sends what a peer subscribes to, on one call.

    ``kinds`` are those that can have resources; ``counts`` is by kind, all others under "other". ``on_answer`` is told
    kind and error (empty: ACK) of every answer. Of a kind that ``is_withheld`` nothing is sent, not even that there is
    none; call ``changed`` once that is over.
    """

    def __init__(
        self,
        pipe: Pipe,
        resources: Resources,
        kinds: frozenset[str],
        *,
        control_plane: str,
        limit_s: float,
        metrics: Metrics,
        on_answer: Callable[[str, str], None],
        is_withheld: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._pipe = pipe
        self._is_withheld = is_withheld
        self._sender = Sender(resources, control_plane)
        self._kinds = kinds
        self._limit_s = limit_s
        self._metrics = metrics
        self._on_answer = on_answer
        self._work = trio.Event()
        self._sent = trio.Event()
        self.counts: dict[str, Counts] = {}

    def changed(self, kind: str, names: Iterable[str]) -> None:
        """These resources changed; wakes the stream."""
        self._sender.changed(kind, names)
        self._work.set()

    def take(self, request: DeltaRequest) -> None:
        """Take in one request of the peer.

        Raises:
            PeerError: it asks for more than there can be.
        """
        self._check(request)
        if request.initial_versions:
            # A first response is everything there is; leaving out what the peer says it has would delete it there.
            request = replace(request, initial_versions={})
        answer = self._sender.receive(request)
        self._work.set()
        if answer is Answer.NONE:
            return
        counts = self.counts.setdefault(self._label(request.type_url), Counts())
        if answer is Answer.ACK:
            counts.acknowledged += 1
        else:
            counts.rejected += 1
        self._metrics.responses.labels(self._label(request.type_url), "sent", answer.value).inc()
        self._on_answer(
            request.type_url, shortened(request.error.message or "no reason given") if request.error else ""
        )

    def _check(self, request: DeltaRequest) -> None:
        """Bound what a peer can make us remember: KDS peers ask for whole kinds, and there are not many."""
        if not {*request.subscribe, *request.unsubscribe} <= {WILDCARD}:
            raise PeerError(f"{request.type_url[:64]!r}: resources are asked for by name; KDS knows only whole kinds")
        if len(request.type_url) > MAX_KIND:
            raise PeerError(f"a kind of {len(request.type_url)} characters is asked for: {request.type_url[:64]!r}...")
        types = self._sender.types
        if len(types) >= MAX_TYPES and request.type_url not in types:
            raise PeerError(f"more than {MAX_TYPES} kinds are asked for on one stream")

    def _label(self, kind: str) -> str:
        """The kind if it is known here: a peer's words make no metrics."""
        return kind if kind in self._kinds else OTHER

    async def run(self) -> None:
        """Serve the call until it ends; always raises.

        Raises:
            PeerError: the peer broke the protocol.
            UnavailableError: it left something unacknowledged for too long, or ended the call.
            RpcError: the call ended with a status.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            nursery.start_soon(self._write)
            nursery.start_soon(watch_overdue, self._sender.unacknowledged, lambda: self._sent, self._limit_s)

    async def _read(self) -> None:
        while True:
            data = await self._pipe.receive()
            if data is None:
                raise UnavailableError("the peer ended its side of the stream")
            try:
                request = wire.decode_request(data)
            except ValueError as error:
                raise PeerError(f"a message that is no DeltaDiscoveryRequest: {error}") from error
            self.take(request)

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while (response := self._poll()) is not None:
                kind = self._label(response.type_url)
                self.counts.setdefault(kind, Counts()).sent += 1
                self._metrics.responses.labels(kind, "sent", "sent").inc()
                self._metrics.resources.labels(kind, "sent").inc(len(response.resources))
                sent, self._sent = self._sent, trio.Event()
                sent.set()
                await self._pipe.send(wire.encode_response(response))

    def _poll(self) -> DeltaResponse | None:
        types = [kind for kind in self._sender.types if not self._is_withheld(kind)]
        return self._sender.poll(trio.current_time(), types)


async def watch_overdue(
    unacknowledged: Callable[[], Mapping[str, Waiting]], news: Callable[[], trio.Event], limit_s: float
) -> None:
    """Sleep until a response is unanswered for ``limit_s``, then raise UnavailableError. Idle while none is out."""
    while True:
        event, waiting = news(), unacknowledged()
        if not waiting:
            await event.wait()
            continue
        late = overdue(waiting, trio.current_time(), limit_s)
        if late:
            raise UnavailableError(f"{late}: a response was not acknowledged within {limit_s:g} s")
        await trio.sleep_until(min(w.since for w in waiting.values()) + limit_s)


Plan = Callable[[Batch, Store], Merged]
"""``merge.on_global`` for one zone, or ``merge.on_zone``."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where a receiving stream keeps what it gets, and how. ``zone`` is the zone at either end."""

    zone: str
    control_plane: ControlPlane
    plan: Plan
    quarantine: Quarantine
    metrics: Metrics


class ReceivingStream:
    """Asks a peer for kinds on one call and keeps their copies in the store."""

    def __init__(
        self,
        pipe: Pipe,
        node: Node,
        kinds: Iterable[str],
        keeping: Keeping,
        *,
        limit_s: float,
        on_progress: Callable[[frozenset[str]], None],
    ) -> None:
        self._pipe = pipe
        self._receiver = Receiver(node, kinds)
        self._keeping = keeping
        self._limit_s = limit_s
        self._on_progress = on_progress
        self._received = trio.Event()

    async def run(self) -> None:
        """Serve the call until it ends; always raises, see ``SendingStream.run``."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            nursery.start_soon(watch_overdue, self._receiver.unacknowledged, lambda: self._received, self._limit_s)

    async def _read(self) -> None:
        for request in self._receiver.first_requests():
            await self._pipe.send(wire.encode_request(request))
        while True:
            data = await self._pipe.receive()
            if data is None:
                raise UnavailableError("the peer ended its side of the stream")
            try:
                received = self._receiver.receive(wire.decode_response(data), trio.current_time())
            except ValueError as error:
                raise PeerError(f"a message that is no fitting DeltaDiscoveryResponse: {error}") from error
            event, self._received = self._received, trio.Event()
            event.set()
            with self._keeping.metrics.apply_seconds.time():
                answer = await self._apply(received)
            await self._pipe.send(wire.encode_request(answer))
            self._on_progress(self._receiver.complete_types)

    async def _apply(self, received: Received) -> DeltaRequest:
        """Store what was received; the answer to send."""
        keeping, kind = self._keeping, received.type_url
        here = keeping.control_plane
        batch, merged = await apply(here.store, here.registry[kind], received, keeping.plan)
        keeping.quarantine.after_batch(
            keeping.zone, Direction.RECEIVED, kind, merged.refused, complete=batch.complete, seen=batch.seen
        )
        if merged.relabelled:
            keeping.metrics.relabelled.labels(kind).inc(len(merged.relabelled))
            claimed = shortened(", ".join(map(repr, sorted(set(merged.relabelled)))))
            log.warning("zone=%s kind=%s claimed to be of other zones: %s", keeping.zone, kind, claimed)
        for key in merged.overruled:
            log.warning("zone=%s %s was made here, the global has none: deleted, with all it owns", keeping.zone, key)
        keeping.metrics.resources.labels(kind, "received").inc(len(received.resources))
        keeping.metrics.responses.labels(kind, "received", "nack" if merged.refused else "ack").inc()
        if merged.refused:
            return self._receiver.reject(received, complaint(merged.refused))
        return self._receiver.acknowledge(received)


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
