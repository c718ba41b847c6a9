"""The two halves of a KDS connection, the same for both roles: a stream that sends and a stream that receives.

Each raises when it is over, whatever the end was: a stream that ends cleanly is an end too. What a stream knows of the
two ends' agreement (``ledger``) can be asked of it after its end as well.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

import trio

from meshd.discovery import Answer, DeltaRequest, Node, Received, Receiver, Resources, Sender, Waiting, wire
from meshd.discovery.messages import WILDCARD, DeltaResponse
from meshd.kds.health import UNACKNOWLEDGED_S, Counts, overdue
from meshd.kds.keeper import DEBOUNCE_S, ControlPlane, Plan, Quarantine, apply, settled
from meshd.kds.ledger import EMPTY, Kept, KindSync, State, Sum, behind, contradicts, listed, sum_of
from meshd.kds.merge import Batch, Merged, complaint
from meshd.kds.metrics import Metrics
from meshd.kds.quarantine import Direction
from meshd.model.errors import PeerError, UnavailableError, shortened
from meshd.model.resource import ResourceKey
from meshd.store.store import Delete

log = logging.getLogger(__name__)

OTHER = "other"
REJECTED_AGAIN_S = 30.0
"""How often what a peer rejected is offered again."""
MAX_TYPES = 256
"""Kinds a peer may ask for on one stream, known here or not; Kuma has under 60."""
MAX_KIND = 128
"""Characters of a kind that a peer asks for: even what is unknown here is remembered and answered."""


AnswersSince = Callable[[], Awaitable[float]]
"""The time since when the transport has answered; while it does not, this waits."""


async def always() -> float:
    """For who gives up a connection that does not answer: what is late there is late."""
    await trio.lowlevel.checkpoint()
    return 0.0


class Offer(Resources, Protocol):
    """What a stream may send: resources, and what is to be said of those that are kept back."""

    @property
    def kinds(self) -> frozenset[str]:
        """Those that can have resources."""

    def is_withheld(self, kind: str) -> bool:
        """Whether nothing is sent of a kind, not even that there is none; once it is over, ``changed`` says so."""

    def kept_back(self, kind: str) -> str:
        """Which resources of a kind are not sent and why, for people; empty if all are."""


class Pipe(Protocol):
    """A bidirectional call of either role."""

    async def send(self, message: bytes) -> None:
        """Send one message."""

    async def receive(self) -> bytes | None:
        """The next message, None after a clean end."""


@dataclass(slots=True)
class _Sent:
    """What is known of one kind that is sent. ``sum`` is of what the peer has once it took in the last response."""

    sequence: int = 0
    sum: Sum = EMPTY
    answered_at: datetime | None = None
    rejected: frozenset[str] = frozenset()
    behind_since: datetime | None = None


class SendingStream:
    """Sends what a peer subscribes to, on one call.

    ``counts`` is by kind, those that are unknown here under "other". ``on_answer`` is told kind and error (empty: ACK)
    of every answer. ``now`` is UTC. What is late counts only from when the transport answers.
    """

    def __init__(
        self,
        pipe: Pipe,
        offer: Offer,
        *,
        control_plane: str,
        metrics: Metrics,
        now: Callable[[], datetime],
        on_answer: Callable[[str, str], None],
        answers_since: AnswersSince = always,
    ) -> None:
        self._pipe = pipe
        self._offer = offer
        self._sender = Sender(offer, control_plane)
        self._now = now
        self._ledger: dict[str, _Sent] = {}
        self._kinds = offer.kinds
        self._metrics = metrics
        self._on_answer = on_answer
        self._answers_since = answers_since
        self._answers = trio.lowlevel.ParkingLot()
        self._work = trio.Event()
        self._sent = trio.Event()
        self._rejected = trio.Event()
        self.counts: dict[str, Counts] = {}

    def changed(self, kind: str, names: Iterable[str]) -> None:
        """These resources changed; wakes the stream."""
        self._sender.changed(kind, names)
        self._note_news(kind)
        self._work.set()

    def _note_news(self, kind: str) -> None:
        sent = self._ledger.get(kind)
        if sent is not None and sent.behind_since is None:
            sent.behind_since = self._now()

    def _note_settled(self) -> None:
        for kind, sent in self._ledger.items():
            if sent.behind_since is not None and self._sender.is_settled(kind):
                sent.behind_since = None

    def take(self, request: DeltaRequest) -> None:
        """Take in one request of the peer.

        Raises:
            PeerError: it asks for more than there can be.
        """
        self._check(request)
        if request.initial_versions:
            # A first response is everything there is; leaving out what the peer says it has would delete it there.
            request = replace(request, initial_versions={})
        flight = self._sender.flight(request.type_url)
        answer = self._sender.receive(request)
        self._answers.unpark_all()
        self._work.set()
        if request.type_url in self._kinds:
            sent = self._ledger.setdefault(request.type_url, _Sent())
            if WILDCARD in request.subscribe and not request.nonce:
                sent.sum = EMPTY  # asked for anew: everything is sent again
                self._note_news(request.type_url)
            if answer is not Answer.NONE:
                sent.answered_at = self._now()
                sent.rejected = frozenset(flight) if answer is Answer.NACK else frozenset()
                self._rejected.set()
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
            nursery.start_soon(self._send_rejected_again)
            nursery.start_soon(watch_overdue, self._sender.unacknowledged, lambda: self._sent, self._answers_since)

    async def caught_up(self) -> None:
        """Wait until all that is unacknowledged now was answered; that it takes too long, ``run`` finds out."""
        begun = trio.current_time()
        while any(waiting.since <= begun for waiting in self._sender.unacknowledged().values()):
            await self._answers.park()

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

    async def _send_rejected_again(self) -> None:
        """Offer what was rejected now and then: what was in its way may be gone, and the peer says nothing of that."""
        while True:
            if not any(sent.rejected for sent in self._ledger.values()):
                self._rejected = trio.Event()
                await self._rejected.wait()
                continue
            await trio.sleep(REJECTED_AGAIN_S)
            for kind, sent in self._ledger.items():
                if sent.rejected:
                    self._sender.again(kind, sent.rejected)
            self._work.set()

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
                await self._pipe.send(wire.encode_response(self._summed(response)))
            self._note_settled()

    def _summed(self, response: DeltaResponse) -> DeltaResponse:
        """The response with the sum of what the peer has after it."""
        sent = self._ledger.get(response.type_url)
        if sent is None:
            return response
        sent.sequence += 1
        for name, (before, after) in self._sender.flight(response.type_url).items():
            sent.sum = sent.sum.changed(name, before, after)
        return replace(response, version=sent.sum.mark)

    def _poll(self) -> DeltaResponse | None:
        types = [kind for kind in self._sender.types if not self._offer.is_withheld(kind)]
        return self._sender.poll(trio.current_time(), types)

    def account(self) -> tuple[KindSync, ...]:
        """What the peer has of every kind that it asked for, as far as it said so. Looks at everything: for people."""
        return tuple(self._account_of(kind, sent) for kind, sent in sorted(self._ledger.items()))

    def _account_of(self, kind: str, sent: _Sent) -> KindSync:
        entries = ((name, self._offer.get(kind, name)) for name in self._offer.names(kind))
        wanted = {name: entry.version for name, entry in entries if entry is not None}
        held = self._sender.accepted(kind)
        missing = behind(wanted, held)
        rejection = self._sender.rejections().get(kind)
        state, reason = State.IN_SYNC, ""
        if rejection is not None:
            state, reason = State.REFUSED, shortened(rejection.message or "no reason given")
        elif self._offer.is_withheld(kind):
            state, reason = State.WITHHELD, "some of it cannot be read from the store"
        elif missing or sent.answered_at is None:
            state = State.BEHIND
        elif kept_back := self._offer.kept_back(kind):
            state, reason = State.REFUSED, kept_back
        since = sent.behind_since if state is State.BEHIND else None
        return KindSync(kind, state, sent.sequence, sum_of(held), sent.answered_at, missing, since, reason)


async def watch_overdue(
    unacknowledged: Callable[[], Mapping[str, Waiting]], news: Callable[[], trio.Event], answers_since: AnswersSince
) -> None:
    """Sleep until a response is unanswered for too long, then raise UnavailableError. Idle while none is out.

    Where the transport was silent the time counts from when it is back.
    """
    heard = 0.0  # the time since when it answers, as far as anybody had to ask
    while True:
        event, waiting = news(), unacknowledged()
        if not waiting:
            await event.wait()
            continue
        counted = {kind: replace(w, since=max(w.since, heard)) for kind, w in waiting.items()}
        late = overdue(counted, trio.current_time())
        if not late:
            await trio.sleep_until(min(w.since for w in counted.values()) + UNACKNOWLEDGED_S)
            continue
        before, heard = heard, await answers_since()
        if heard <= before and unacknowledged().get(late) == waiting[late]:
            raise UnavailableError(f"{late}: a response was not acknowledged within {UNACKNOWLEDGED_S:g} s")


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where a receiving stream keeps what it gets, and how. ``zone`` is the zone at either end."""

    zone: str
    control_plane: ControlPlane
    plan: Plan
    quarantine: Quarantine
    metrics: Metrics


@dataclass(slots=True)
class _Held:
    """What arrived of one kind on one stream. ``names`` are versions; ``kept`` is what was stored of it."""

    sequence: int = 0
    names: dict[str, str] = field(default_factory=dict)
    kept: dict[ResourceKey, Kept] = field(default_factory=dict)
    sum: Sum = EMPTY
    at: datetime | None = None
    lost: str = ""

    def take(self, received: Received) -> None:
        """Add up a response."""
        if received.complete:
            self.names, self.kept, self.sum = {}, {}, EMPTY
        named = {entry.name for entry in received.resources}
        for name in received.removed if not received.complete else ():
            if name not in named:
                self.sum = self.sum.changed(name, self.names.pop(name, None), None)
        for entry in received.resources:
            self.sum = self.sum.changed(entry.name, self.names.get(entry.name), entry.version)
            self.names[entry.name] = entry.version
        self.sequence += 1


class ReceivingStream:
    """Asks a peer for kinds on one call and keeps their copies in the store.

    A copy that something else changed is waited for as long as an answer is; then the stream ends, and the next
    one begins with everything there is.
    """

    def __init__(
        self,
        pipe: Pipe,
        node: Node,
        kinds: Iterable[str],
        keeping: Keeping,
        *,
        on_progress: Callable[[frozenset[str]], None],
        answers_since: AnswersSince = always,
    ) -> None:
        self._pipe = pipe
        self._answers_since = answers_since
        self._kinds = tuple(kinds)
        self._receiver = Receiver(node, self._kinds)
        self._keeping = keeping
        self._on_progress = on_progress
        self._received = trio.Event()
        self._ledger = {kind: _Held() for kind in self._kinds}

    async def run(self) -> None:
        """Serve the call until it ends; always raises, see ``SendingStream.run``."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            nursery.start_soon(
                watch_overdue, self._receiver.unacknowledged, lambda: self._received, self._answers_since
            )
            nursery.start_soon(self._watch_copies)

    async def _watch_copies(self) -> None:
        """Raise once copies are not for a while what they should be; asks the store only about what changed in it."""
        with self._keeping.control_plane.store.watch(self._kinds) as feed:
            while True:
                changed = self._altered(await settled(feed, DEBOUNCE_S))
                if not changed:
                    continue
                await trio.sleep(UNACKNOWLEDGED_S)
                still = self._altered(changed)
                if still:
                    raise UnavailableError(f"{listed(still)}: not here as it was received; asking for everything anew")

    def _altered(self, keys: Iterable[ResourceKey]) -> frozenset[ResourceKey]:
        """Those of the keys whose copies are not what was stored."""
        store = self._keeping.control_plane.store
        found = []
        for key in keys:
            held = self._ledger.get(key.kind)
            kept = held.kept.get(key) if held is not None else None
            if kept is not None and not kept.is_still(store.get(key)):
                found.append(key)
        return frozenset(found)

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
            self._check_sum(received)
            await self._pipe.send(wire.encode_request(answer))
            self._on_progress(self._receiver.complete_types)

    def _check_sum(self, received: Received) -> None:
        """Compare what arrived with what the peer says that it sent.

        Raises:
            UnavailableError: an increment that does not fit. Of a kind that does not fit even as a whole it is only
                noted, for nothing would be gained by another stream.
        """
        held = self._ledger[received.type_url]
        held.lost = ""
        if not contradicts(received.version, held.sum):
            return
        held.lost = f"the peer sent {received.version}, what arrived is {held.sum.mark}"
        if not received.complete:
            raise UnavailableError(f"{received.type_url}: {held.lost}; asking for everything anew")
        log.error("zone=%s %s: %s", self._keeping.zone, received.type_url, held.lost)

    def account(self, *, is_open: bool, reason: str = "") -> tuple[KindSync, ...]:
        """What arrived of every kind. Looks at everything: for people. ``reason`` says why the stream is not open."""
        return tuple(self._account_of(kind, held, is_open, reason) for kind, held in sorted(self._ledger.items()))

    def _account_of(self, kind: str, held: _Held, is_open: bool, reason: str) -> KindSync:
        state, why = State.IN_SYNC, ""
        altered = self._altered(held.kept)
        refused = self._keeping.quarantine.of(self._keeping.zone, Direction.RECEIVED, kind)
        if held.lost or altered:
            state, why = State.DIVERGED, held.lost or f"{listed(altered)} was changed here"
        elif refused:
            first = refused[0]
            state, why = State.REFUSED, f"{first.mesh + '/' if first.mesh else ''}{first.name}: {first.reason}"
            why += f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        elif not is_open:
            state, why = State.UNKNOWN, reason
        elif held.at is None:
            state = State.WAITING
        return KindSync(kind, state, held.sequence, held.sum, held.at, reason=why)

    async def _apply(self, received: Received) -> DeltaRequest:
        """Store what was received; the answer to send."""
        keeping, kind = self._keeping, received.type_url
        here = keeping.control_plane
        batch, merged = await apply(here.store, here.registry[kind], received, keeping.plan)
        self._note(received, batch, merged)
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

    def _note(self, received: Received, batch: Batch, merged: Merged) -> None:
        """Remember what was stored of a response."""
        here = self._keeping.control_plane
        held = self._ledger[received.type_url]
        held.take(received)
        held.at = here.now()
        written = {edit.resource.key: edit.resource for edit in merged.edits if not isinstance(edit, Delete)}
        refused = {refusal.key for refusal in merged.refused}
        for key in batch.removed:
            held.kept.pop(key, None)
        for key in batch.present:
            stored = written.get(key) or here.store.get(key)
            if key in refused or stored is None:
                held.kept.pop(key, None)
            else:
                held.kept[key] = Kept(stored.labels, stored.wire)
