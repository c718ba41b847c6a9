"""The end of a delta discovery stream that owns the resources."""

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from operator import itemgetter
from types import MappingProxyType
from typing import Protocol

from meshd.discovery.isolation import Blame, Isolation, Refused
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


_name = itemgetter(0)

Flight = dict[str, tuple[str | None, str | None]]
"""The names in an unanswered response, with the version the other end had before and the one sent; None: absent."""


MANY = 1000
"""All names of a type, where nobody counts them."""


@dataclass(slots=True)
class _Subscription:
    """One type on one stream."""

    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    # What the other end was sent, by name; of what it is known not to have applied, what it had before.
    sent: dict[str, str] = field(default_factory=dict)
    waiting: Waiting | None = None
    flight: Flight = field(default_factory=dict)
    # Names to look at when the next response is built; `everything` stands for all of them.
    dirty: set[str] = field(default_factory=set)
    everything: bool = False
    # Names asked for by name: they are answered even if unchanged or absent.
    asked: set[str] = field(default_factory=set)
    # A response is owed even if it is empty: the first one, and after the wildcard was asked for anew.
    owed: bool = False
    # Whether names and versions are the objects that the resources have, as soon as there are resources.
    is_shared: bool = False
    rejection: Rejection | None = None
    isolation: Isolation = field(default_factory=Isolation)

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names

    @property
    def has_work(self) -> bool:
        """Whether a response may be due."""
        return bool(self.dirty or self.asked or self.owed or self.everything or self.isolation.trials)

    @property
    def news(self) -> int:
        """About how many names the next response may be about, if one may be due."""
        return max(1, len(self.dirty) + len(self.asked), MANY * self.everything)

    def forget(self, name: str) -> None:
        """It is asked for no more."""
        self.asked.discard(name)
        self.sent.pop(name, None)
        self.isolation.refused.pop(name, None)


@dataclass(slots=True)
class _Draft:
    """A response in the making."""

    entries: list[Entry] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    flight: Flight = field(default_factory=dict)
    size: int = 0


class Sender:
    """One stream's subscriptions and what the other end was told.

    Per type there is at most one unanswered response; changes in between are coalesced. Tell it what changed with
    ``changed`` and take responses from ``poll`` until there are none. Nonces count up per stream, for all types.

    What was rejected is not sent again until it changes. Without ``blame`` a NACK says no more than that, as KDS peers
    mean it: they have applied what they could. With it the other end may have rejected good resources along with a bad
    one, and those are sent again without it (see ``Isolation``).

    ``renews`` maps a type to one whose resources of the same names are sent again when those of the first are updated.
    ``needs`` maps a type to those of which all that is there is sent first, since it refers to them.
    ``limit_bytes`` is about the most that one response carries, unless one resource alone is larger; 0: no limit.
    """

    def __init__(
        self,
        resources: Resources,
        control_plane: str = "",
        *,
        blame: Blame | None = None,
        limit_bytes: int = 0,
        renews: Mapping[str, str] = MappingProxyType({}),
        needs: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> None:
        self._resources = resources
        self._control_plane = control_plane
        self._blame = blame
        self._limit_bytes = limit_bytes
        self._renews = renews
        self._needs = needs
        self._nonce = 0
        self._types: dict[str, _Subscription] = {}

    @property
    def types(self) -> tuple[str, ...]:
        """The types that were asked for, in the order of their first requests."""
        return tuple(self._types)

    @property
    def size(self) -> int:
        """How many names the other end makes us remember."""
        return sum(max(len(s.names), len(s.sent)) for s in self._types.values())

    def strange(self, request: DeltaRequest) -> int:
        """How many names of nothing that there is would be remembered with this request. Looks at each."""
        get, remembered = self._resources.get, {t: s.names | s.sent.keys() for t, s in self._types.items()}
        new = {*request.subscribe, *request.initial_versions}
        remembered[request.type_url] = remembered.get(request.type_url, set()) | new
        return sum(get(type_url, name) is None for type_url, names in remembered.items() for name in names)

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
        held = request.initial_versions
        return _Subscription(
            wildcard=wildcard,
            names=names,
            sent=dict(held) if wildcard else {name: version for name, version in held.items() if name in names},
            # Only what it holds already need not be answered by name.
            asked=names - held.keys(),
            dirty=set(held) | names,
            everything=wildcard,
            owed=True,
        )

    def _shared(self, type_url: str, names: Iterable[str]) -> set[str]:
        """The names as the resources spell them: a thousand streams need not each hold a copy of every name."""
        get = self._resources.get
        return {name if (entry := get(type_url, name)) is None else entry.name for name in names}

    def _known(self, type_url: str, versions: Mapping[str, str]) -> dict[str, str]:
        """The same, with the names and versions of the resources themselves where they are equal; see ``_shared``."""
        found = {}
        for name, version in versions.items():
            entry = self._resources.get(type_url, name)
            if entry is not None and entry.version == version:
                found[entry.name] = entry.version
            else:
                found[name] = version
        return found

    def _answer(self, subscription: _Subscription, request: DeltaRequest) -> Answer:
        waiting = subscription.waiting
        if waiting is None or request.nonce != waiting.nonce:
            return Answer.NONE
        flight, subscription.flight = subscription.flight, {}
        subscription.waiting = None
        subscription.rejection = request.error
        if request.error is None:
            subscription.isolation.accepted(flight)
            return Answer.ACK
        if self._blame is not None and flight:
            blamed = self._blame(request.type_url, request.error, flight)
            for name in subscription.isolation.rejected(flight, blamed, request.error.message):
                before = flight[name][0]
                if not subscription.wants(name):
                    subscription.forget(name)
                elif before is None:
                    subscription.sent.pop(name, None)
                else:
                    subscription.sent[name] = before
        return Answer.NACK

    def _resubscribe(self, subscription: _Subscription, request: DeltaRequest) -> None:
        for name in request.subscribe:
            if name == WILDCARD:
                if not request.nonce:
                    # Asked for anew. With a nonce it is how KDS peers spell a NACK and asks for nothing.
                    subscription.sent.clear()
                    subscription.owed = True
                subscription.everything = subscription.everything or not subscription.wildcard or subscription.owed
                subscription.wildcard = True
        asked = self._shared(request.type_url, (name for name in request.subscribe if name != WILDCARD))
        subscription.names |= asked
        subscription.asked |= asked
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
            subscription.forget(name)

    def changed(self, type_url: str, names: Iterable[str]) -> None:
        """These resources were added, changed or removed since they were last looked at. Extra names do no harm."""
        subscription = self._types.get(type_url)
        if subscription is None:
            return
        known = names if isinstance(names, AbstractSet) else frozenset(names)
        if subscription.wildcard:
            subscription.dirty |= known
        else:
            subscription.dirty |= (known & subscription.names) | (known & subscription.sent.keys())

    def again(self, type_url: str, names: Iterable[str]) -> None:
        """Send these once more although they are unchanged, as far as they are asked for."""
        subscription = self._types.get(type_url)
        if subscription is not None:
            subscription.asked.update(name for name in names if name in subscription.sent)

    @property
    def news(self) -> int:
        """About how many names the next ``poll`` looks at; 0 is certain."""
        return max((s.news for s in self._types.values() if s.waiting is None and s.has_work), default=0)

    def poll(self, now: float, types: Sequence[str] | None = None, late: Collection[str] = ()) -> DeltaResponse | None:
        """The next response to send, or None.

        ``types`` restricts and orders (xDS: clusters before endpoints). Resources of the ``late`` ones are removed only
        when nothing of the others is to be sent or answered, or is refused: what refers to them goes first, and where a
        resource is refused, an older one may refer to them still.
        """
        ordered = tuple(self._types) if types is None else types
        held = []
        for type_url in ordered:
            subscription = self._types.get(type_url)
            if subscription is None or subscription.waiting is not None or not subscription.has_work:
                continue
            if self._comes_later(type_url):
                return None
            hold = type_url in late
            response = self._next(type_url, subscription, now, hold=hold)
            if response is not None:
                return response
            if hold and subscription.has_work:
                held.append((type_url, subscription))
        others = [s for t, s in self._types.items() if t not in late] if held else []
        if held and all(s.waiting is None and not s.isolation.refused for s in others):
            for type_url, subscription in held:
                response = self._next(type_url, subscription, now, hold=False)
                if response is not None:
                    return response
        return None

    def _comes_later(self, type_url: str) -> bool:
        """Whether a type waits for resources of another that cannot be sent yet: the one before is not answered."""
        for needed in self._needs.get(type_url, ()):
            s = self._types.get(needed)
            if s is None or s.waiting is None:
                continue
            if s.everything or s.isolation.trials or any(self._has(needed, name) for name in (*s.dirty, *s.asked)):
                return True
        return False

    def _next(self, type_url: str, subscription: _Subscription, now: float, *, hold: bool) -> DeltaResponse | None:
        draft = self._build(type_url, subscription, hold=hold)
        if draft is None:
            return None
        self._nonce += 1
        subscription.flight = draft.flight
        subscription.waiting = Waiting(str(self._nonce), now)
        if type_url in self._renews:
            self.again(self._renews[type_url], [entry.name for entry in draft.entries])
        return DeltaResponse(
            type_url, tuple(draft.entries), tuple(draft.removed), str(self._nonce), self._control_plane
        )

    def _build(self, type_url: str, subscription: _Subscription, *, hold: bool) -> _Draft | None:
        while subscription.isolation.trials:
            draft = _Draft()
            for name in subscription.isolation.trials.pop(0):
                self._add(subscription, name, self._wanted(type_url, subscription, name), draft, asked=False)
            if draft.flight:
                return draft
        if not subscription.has_work:
            return None
        if not subscription.is_shared:
            subscription.is_shared = True
            subscription.names = self._shared(type_url, subscription.names)
            subscription.sent = self._known(type_url, subscription.sent)
        candidates = subscription.dirty | subscription.asked
        if subscription.everything:
            candidates.update(self._resources.names(type_url))
            candidates.update(subscription.sent)
        asked, subscription.asked = subscription.asked, set()
        owed, subscription.owed, subscription.everything = subscription.owed, False, False
        subscription.dirty = set()
        draft = _Draft()
        for name, entry in self._news(type_url, subscription, candidates, asked):
            if self._limit_bytes and draft.size >= self._limit_bytes:
                (subscription.asked if name in asked else subscription.dirty).add(name)
            elif entry is None and hold and name not in asked and self._is_late(type_url, subscription, name):
                subscription.dirty.add(name)
            else:
                self._add(subscription, name, entry, draft, asked=name in asked)
        return draft if owed or draft.flight else None

    def _has(self, type_url: str, name: str) -> bool:
        return self._resources.get(type_url, name) is not None

    def _news(
        self, type_url: str, subscription: _Subscription, candidates: set[str], asked: set[str]
    ) -> list[tuple[str, Entry | None]]:
        """What there may be something to say of, by name: of a thousand that are looked at, often one."""
        get, sent = self._resources.get, subscription.sent
        wildcard, names, refused = subscription.wildcard, subscription.names, subscription.isolation.refused
        found = []
        for name in candidates:
            entry = get(type_url, name) if wildcard or name in names else None
            if entry is None or sent.get(name) != entry.version or name in asked or refused:
                found.append((name, entry))
        found.sort(key=_name)
        return found

    def _wanted(self, type_url: str, subscription: _Subscription, name: str) -> Entry | None:
        """What the other end is to have under a name."""
        return self._resources.get(type_url, name) if subscription.wants(name) else None

    def _is_late(self, type_url: str, subscription: _Subscription, name: str) -> bool:
        """Whether the other end has what does not exist any more."""
        return name in subscription.sent and not self._has(type_url, name)

    def _add(self, subscription: _Subscription, name: str, entry: Entry | None, draft: _Draft, *, asked: bool) -> None:
        """Put what is to be said of a name into the draft: the resource, that there is none, or nothing."""
        before = subscription.sent.get(name)
        refused = subscription.isolation.refused
        if entry is None:
            refused.pop(name, None)
            subscription.sent.pop(name, None)
            if before is not None or asked:
                draft.removed.append(name)
                draft.flight[name] = (before, None)
        elif asked or before != entry.version:
            if refused and subscription.isolation.is_refused(name, entry.version):
                return
            subscription.sent[entry.name] = entry.version
            draft.entries.append(entry)
            draft.flight[entry.name] = (before, entry.version)
            draft.size += len(entry.body) + len(name)
        elif refused:
            refused.pop(name, None)  # it is again what the other end has

    def unacknowledged(self) -> Mapping[str, Waiting]:
        """Every response that is not answered yet, by type."""
        return {t: s.waiting for t, s in self._types.items() if s.waiting is not None}

    def flight(self, type_url: str) -> Mapping[str, tuple[str | None, str | None]]:
        """The names in a type's unanswered response, each with the version before and the one sent; None: absent."""
        subscription = self._types.get(type_url)
        return subscription.flight if subscription is not None else {}

    def is_settled(self, type_url: str) -> bool:
        """Whether nothing of a type is to be sent or answered."""
        subscription = self._types.get(type_url)
        return subscription is None or (subscription.waiting is None and not subscription.has_work)

    def rejections(self) -> Mapping[str, Rejection]:
        """The types whose newest answered response was NACKed, and why."""
        return {t: s.rejection for t, s in self._types.items() if s.rejection is not None}

    def refusals(self) -> Mapping[str, Mapping[str, Refused]]:
        """The resources that the other end does not take, by type and name; empty without ``blame``."""
        return {t: dict(s.isolation.refused) for t, s in self._types.items() if s.isolation.refused}

    def accepted(self, type_url: str) -> Mapping[str, str]:
        """What the other end has of a type, as far as it has said so: versions by name."""
        subscription = self._types.get(type_url)
        if subscription is None:
            return {}
        flight = subscription.flight
        held = {name: version for name, version in subscription.sent.items() if name not in flight}
        return held | {name: before for name, (before, _) in flight.items() if before is not None}
