"""The end of a delta discovery stream that owns the resources."""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from meshd.discovery.messages import WILDCARD, DeltaRequest, DeltaResponse, Entry, Rejection


class Resources(Protocol):
    """The newest resources that this stream may see. Read when a response is built, never copied."""

    def get(self, type_url: str, name: str) -> Entry | None:
        """The resource, or None if there is none (any more)."""

    def names(self, type_url: str) -> Iterable[str]:
        """The names of all resources of a type; empty for a type that is unknown here."""


class Answer(enum.Enum):
    """What a request said about an earlier response."""

    NONE = "none"
    """Nothing: a subscription, or a nonce that is not the newest of its type."""
    ACK = "ack"
    NACK = "nack"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A response that was sent and not yet answered. ``since`` is the ``now`` that ``poll`` was given."""

    nonce: str
    since: float


@dataclass(slots=True)
class _Subscription:
    """One type on one stream."""

    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    # What the other end was sent, by name: that it NACKed makes no difference, unchanged things are not sent again.
    sent: dict[str, str] = field(default_factory=dict)
    waiting: Waiting | None = None
    # Names to look at when the next response is built; `everything` stands for all of them.
    dirty: set[str] = field(default_factory=set)
    everything: bool = False
    # Names asked for by name: they are answered even if unchanged or absent.
    asked: set[str] = field(default_factory=set)
    # A response is owed even if it is empty: the first one, and after the wildcard was asked for anew.
    owed: bool = False
    rejection: Rejection | None = None

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names


class Sender:
    """One stream's subscriptions and what the other end was told.

    Per type there is at most one unanswered response; changes in between are coalesced. Tell it what changed with
    ``changed`` and take responses from ``poll`` until there are none. Nonces count up per stream, for all types.
    """

    def __init__(self, resources: Resources, control_plane: str = "") -> None:
        self._resources = resources
        self._control_plane = control_plane
        self._nonce = 0
        self._types: dict[str, _Subscription] = {}

    @property
    def types(self) -> tuple[str, ...]:
        """The types that were asked for, in the order of their first requests."""
        return tuple(self._types)

    def receive(self, request: DeltaRequest) -> Answer:
        """Take in one request: its answer to an earlier response and its changes of the subscription."""
        subscription = self._types.get(request.type_url)
        if subscription is None:
            self._types[request.type_url] = self._open(request)
            return Answer.NONE
        answer = self._answer(subscription, request)
        self._resubscribe(subscription, request)
        return answer

    def _open(self, request: DeltaRequest) -> _Subscription:
        names = set(request.subscribe) - {WILDCARD}
        # A first request without names is the legacy wildcard (xDS protocol, "wildcard").
        wildcard = not request.subscribe or WILDCARD in request.subscribe
        held = dict(request.initial_versions)
        return _Subscription(
            wildcard=wildcard,
            names=names,
            sent=held if wildcard else {name: version for name, version in held.items() if name in names},
            # Only what it holds already need not be answered by name.
            asked=names - held.keys(),
            dirty=set(held) | names,
            everything=wildcard,
            owed=True,
        )

    def _answer(self, subscription: _Subscription, request: DeltaRequest) -> Answer:
        waiting = subscription.waiting
        if waiting is None or request.nonce != waiting.nonce:
            return Answer.NONE
        subscription.waiting = None
        subscription.rejection = request.error
        return Answer.ACK if request.error is None else Answer.NACK

    def _resubscribe(self, subscription: _Subscription, request: DeltaRequest) -> None:
        for name in request.subscribe:
            if name == WILDCARD:
                if not request.nonce:
                    # Asked for anew. With a nonce it is how KDS peers spell a NACK and asks for nothing.
                    subscription.sent.clear()
                    subscription.owed = True
                subscription.everything = subscription.everything or not subscription.wildcard or subscription.owed
                subscription.wildcard = True
            else:
                subscription.names.add(name)
                subscription.asked.add(name)
        for name in request.unsubscribe:
            self._unsubscribe(subscription, name)

    def _unsubscribe(self, subscription: _Subscription, name: str) -> None:
        if name == WILDCARD:
            subscription.wildcard = subscription.everything = False
            subscription.sent = {n: v for n, v in subscription.sent.items() if n in subscription.names}
            return
        subscription.names.discard(name)
        if subscription.wildcard:
            # The asking end drops what it unsubscribes from; as it is still wanted, it is announced again (xDS
            # protocol, "unsubscribing from resources").
            subscription.asked.add(name)
        else:
            subscription.asked.discard(name)
            subscription.sent.pop(name, None)

    def changed(self, type_url: str, names: Iterable[str]) -> None:
        """These resources were added, changed or removed since they were last looked at. Extra names do no harm."""
        subscription = self._types.get(type_url)
        if subscription is not None:
            subscription.dirty.update(name for name in names if subscription.wants(name) or name in subscription.sent)

    def poll(self, now: float, types: Iterable[str] | None = None) -> DeltaResponse | None:
        """The next response to send, or None. ``types`` restricts and orders (xDS: clusters before endpoints)."""
        for type_url in self._types if types is None else types:
            subscription = self._types.get(type_url)
            if subscription is None or subscription.waiting is not None:
                continue
            response = self._build(type_url, subscription)
            if response is not None:
                subscription.waiting = Waiting(response.nonce, now)
                return response
        return None

    def _build(self, type_url: str, subscription: _Subscription) -> DeltaResponse | None:
        if not (subscription.owed or subscription.dirty or subscription.asked or subscription.everything):
            return None
        candidates = subscription.dirty | subscription.asked
        if subscription.everything:
            candidates.update(self._resources.names(type_url))
            candidates.update(subscription.sent)
        entries: list[Entry] = []
        removed: list[str] = []
        for name in sorted(candidates):
            asked = name in subscription.asked
            entry = self._resources.get(type_url, name) if subscription.wants(name) else None
            if entry is None:
                if subscription.sent.pop(name, None) is not None or asked:
                    removed.append(name)
            elif asked or subscription.sent.get(name) != entry.version:
                subscription.sent[name] = entry.version
                entries.append(entry)
        owed, subscription.owed, subscription.everything = subscription.owed, False, False
        subscription.dirty.clear()
        subscription.asked.clear()
        if not (owed or entries or removed):
            return None
        self._nonce += 1
        return DeltaResponse(type_url, tuple(entries), tuple(removed), str(self._nonce), self._control_plane)

    def unacknowledged(self) -> Mapping[str, Waiting]:
        """Every response that is not answered yet, by type."""
        return {t: s.waiting for t, s in self._types.items() if s.waiting is not None}

    def rejections(self) -> Mapping[str, Rejection]:
        """The types whose newest answered response was NACKed, and why."""
        return {t: s.rejection for t, s in self._types.items() if s.rejection is not None}
