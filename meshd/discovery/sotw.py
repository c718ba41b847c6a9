"""The end of a state-of-the-world discovery stream that owns the resources.

Of a type that is asked for as a whole every response has everything there is; of one that is asked for by name, what
is new of the names. Versions are hashes over all that the other end has once it has applied a response, so that after
a reconnect, also to another process, what is current is not sent again.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from meshd.discovery import sums
from meshd.discovery.isolation import Blame, Isolation, Refused
from meshd.discovery.messages import WILDCARD, Entry, Rejection, StateRequest, StateResponse
from meshd.discovery.sender import MANY, Answer, Resources, Waiting
from meshd.model.errors import MAX_REASON


def digest(entry: Entry) -> int:
    """A number for a resource and its version; the entry keeps it. A version is the sum of those of its resources."""
    if not entry.digest:
        object.__setattr__(entry, "digest", sums.of_one(entry.name, entry.version))
    return entry.digest


@dataclass(slots=True)
class _State:
    """One type on one stream."""

    # All there is, or `names`.
    whole: bool
    names: set[str]
    # What the other end has, as far as it has said so, and the sum of it.
    held: dict[str, Entry] = field(default_factory=dict)
    total: int = 0
    # The nonce of the newest response; it may be answered already.
    nonce: str = ""
    waiting: Waiting | None = None
    # What the unanswered response changes: the new resource, or None where one is left out.
    flight: dict[str, Entry | None] = field(default_factory=dict)
    dirty: set[str] = field(default_factory=set)
    everything: bool = True
    # Names that are answered even if they are unchanged.
    asked: set[str] = field(default_factory=set)
    # A response is owed even if it changes nothing.
    owed: bool = False
    isolation: Isolation = field(default_factory=Isolation)
    # What the other end said it had when it came, until it is compared with what there is.
    claimed: str = ""
    # Whether `held` is all that it has. If not, what is left out of a response of a whole type may be lost there.
    is_known: bool = True
    # Refused resources that are sent all the same: without them the other end would drop versions we do not know.
    carried: dict[str, Entry] = field(default_factory=dict)

    def wants(self, name: str) -> bool:
        return self.whole or name in self.names

    @property
    def has_work(self) -> bool:
        """Whether a response may be due."""
        return bool(self.dirty or self.asked or self.owed or self.isolation.trials)

    @property
    def news(self) -> int:
        """About how many resources the next response has, if one may be due."""
        if self.whole:
            return MANY if self.everything else max(1, len(self.held))
        return max(1, len(self.dirty) + len(self.asked))

    def put(self, name: str, entry: Entry | None) -> None:
        """The other end has this now."""
        before = self.held.pop(name, None) if entry is None else self.held.get(name)
        self.total -= digest(before) if before is not None else 0
        if entry is not None:
            self.held[entry.name] = entry
            self.total += digest(entry)

    def version(self, changes: Mapping[str, Entry | None]) -> str:
        """The version of what it has once ``changes`` are applied."""
        total = self.total
        for name, entry in changes.items():
            before = self.held.get(name)
            total += (digest(entry) if entry is not None else 0) - (digest(before) if before is not None else 0)
        return sums.shown(total)


class StateOfTheWorld:
    """One stream's subscriptions and what the other end was told; to be used like ``Sender``.

    ``whole`` are the types of which a request without names asks for everything; of others it asks for nothing, and of
    a type without resources nothing is answered. ``blame``: see ``Isolation``; ``renews``, ``needs``: see ``Sender``.
    """

    def __init__(
        self,
        resources: Resources,
        control_plane: str,
        *,
        whole: Collection[str],
        blame: Blame,
        renews: Mapping[str, str] = MappingProxyType({}),
        needs: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> None:
        self._resources = resources
        self._control_plane = control_plane
        self._whole = whole
        self._blame = blame
        self._renews = renews
        self._needs = needs
        self._nonce = 0
        self._types: dict[str, _State] = {}

    @property
    def types(self) -> tuple[str, ...]:
        """The types that were asked for, in the order of their first requests."""
        return tuple(self._types)

    @property
    def size(self) -> int:
        """How many names the other end makes us remember."""
        return sum(len(s.names) for s in self._types.values())

    def strange(self, request: StateRequest) -> int:
        """How many names of nothing that there is would be remembered with this request. Looks at each."""
        get, remembered = self._resources.get, {t: s.names for t, s in self._types.items()}
        remembered[request.type_url] = set(request.names)
        return sum(get(type_url, name) is None for type_url, names in remembered.items() for name in names)

    def receive(self, request: StateRequest) -> Answer:
        """Take in one request. One that answers a response which is not the newest of its type counts for nothing."""
        state = self._types.get(request.type_url)
        if state is None:
            self._types[request.type_url] = self._open(request)
            return Answer.NONE
        if request.nonce and request.nonce != state.nonce:
            return Answer.NONE
        answer = self._answer(state, request) if request.nonce else Answer.NONE
        self._resubscribe(state, request)
        return answer

    def _open(self, request: StateRequest) -> _State:
        whole, names = self._wanted(request)
        # Without a version the other end has nothing: it is answered even if there is nothing.
        is_known = not request.version or not whole
        return _State(whole, names, asked=set(names), owed=whole, claimed=request.version, is_known=is_known)

    def _wanted(self, request: StateRequest) -> tuple[bool, set[str]]:
        if request.type_url in self._whole and (not request.names or WILDCARD in request.names):
            return True, set()
        found = ((name, self._resources.get(request.type_url, name)) for name in request.names)
        return False, {name if entry is None else entry.name for name, entry in found}

    def _answer(self, state: _State, request: StateRequest) -> Answer:
        if state.waiting is None:
            return Answer.NONE
        flight, state.flight = state.flight, {}
        state.waiting = None
        if request.error is None:
            state.isolation.accepted((*flight, WILDCARD))
            state.is_known = True
            failed: Collection[str] = ()
        else:
            failed = self._rejected(state, request.type_url, request.error, flight)
        for name, entry in flight.items():
            if name not in failed and (state.wants(name) or entry is None):
                state.put(name, entry)
                state.carried.pop(name, None)
        return Answer.ACK if request.error is None else Answer.NACK

    def _rejected(
        self, state: _State, type_url: str, error: Rejection, flight: Mapping[str, Entry | None]
    ) -> Collection[str]:
        """Take in a NACK; the names of which nothing was applied."""
        sent = {name: (_version(state.held.get(name)), _version(entry)) for name, entry in flight.items()}
        if not sent:
            return ()
        blamed = self._blame(type_url, error, [*flight, *state.carried])
        if blamed and not flight.keys() & set(blamed):
            state.isolation.accepted(flight)  # only what is carried was rejected, again
            return ()
        if not state.is_known:
            if not blamed:
                # Halves would take the rest away from it. It keeps all it has, and gets all again with the next change.
                state.isolation.refused[WILDCARD] = Refused("", error.message[:MAX_REASON])
                state.everything = True
                return flight
            state.is_known = True
            state.carried = {name: entry for name in blamed if (entry := flight.get(name)) is not None}
        failed = state.isolation.rejected(sent, blamed, error.message)
        if len(failed) < len(flight):
            # Some of it was applied, but the version it goes by is the old one. If it came back with that, it could be
            # taken for having what it had then: so it is given a version of what it has now.
            state.owed = state.whole
            state.asked |= {name for name in flight if name not in failed} if not state.whole else set()
        for name in failed:
            if not state.wants(name):
                state.isolation.refused.pop(name, None)
        return failed

    def _resubscribe(self, state: _State, request: StateRequest) -> None:
        if not state.whole and len(request.names) == len(state.names) and state.names.issuperset(request.names):
            return  # by far the most: every ACK repeats all names
        whole, names = self._wanted(request)
        if whole == state.whole and names == state.names:
            return
        if whole and not state.whole:
            state.everything = state.owed = True
        state.asked |= names - state.names
        state.whole, state.names = whole, names
        for name in [n for n in {**state.held, **state.isolation.refused} if not state.wants(n)]:
            state.put(name, None)
            state.isolation.refused.pop(name, None)

    def changed(self, type_url: str, names: Iterable[str]) -> None:
        """These resources were added, changed or removed since they were last looked at. Extra names do no harm."""
        state = self._types.get(type_url)
        if state is not None:
            state.dirty.update(name for name in names if state.wants(name))

    def again(self, type_url: str, names: Iterable[str]) -> None:
        """Send these once more although they are unchanged, as far as they are asked for by name."""
        state = self._types.get(type_url)
        if state is not None and not state.whole:
            state.asked.update(name for name in names if name in state.names)

    @property
    def news(self) -> int:
        """About how many names the next ``poll`` looks at; 0 is certain."""
        return max((s.news for s in self._types.values() if s.waiting is None and s.has_work), default=0)

    def poll(self, now: float, types: Sequence[str], late: Collection[str] = ()) -> StateResponse | None:
        """The next response to send, or None; see ``Sender.poll``."""
        held = []
        for type_url in types:
            state = self._types.get(type_url)
            if state is None or state.waiting is not None or not state.has_work:
                continue
            if self._comes_later(type_url):
                return None
            hold = type_url in late
            response = self._next(type_url, state, now, hold=hold)
            if response is not None:
                return response
            if hold and state.has_work:
                held.append((type_url, state))
        others = [s for t, s in self._types.items() if t not in late] if held else []
        if held and all(s.waiting is None and not s.isolation.refused for s in others):
            for type_url, state in held:
                response = self._next(type_url, state, now, hold=False)
                if response is not None:
                    return response
        return None

    def _comes_later(self, type_url: str) -> bool:
        """See ``Sender``."""
        for needed in self._needs.get(type_url, ()):
            s = self._types.get(needed)
            if s is None or s.waiting is None:
                continue
            if s.isolation.trials or any(self._resources.get(needed, n) is not None for n in (*s.dirty, *s.asked)):
                return True
        return False

    def _next(self, type_url: str, state: _State, now: float, *, hold: bool) -> StateResponse | None:
        changes = self._trial(type_url, state)
        if changes is None:
            changes = self._changes(type_url, state, hold=hold)
        if changes is None:
            return None
        self._nonce += 1
        state.nonce, state.flight = str(self._nonce), changes
        state.waiting = Waiting(state.nonce, now)
        if type_url in self._renews:
            self.again(self._renews[type_url], [name for name, entry in changes.items() if entry is not None])
        entries = {**state.carried, **state.held, **changes} if state.whole else changes
        resources = tuple(entry for _, entry in sorted(entries.items()) if entry is not None)
        return StateResponse(type_url, state.version(changes), resources, state.nonce, self._control_plane)

    def _trial(self, type_url: str, state: _State) -> dict[str, Entry | None] | None:
        """What of a rejected response is to be tried next."""
        while state.isolation.trials:
            changes: dict[str, Entry | None] = {}
            for name in state.isolation.trials.pop(0):
                self._add(type_url, state, name, changes, asked=False)
            if changes:
                return changes
        return None

    def _changes(self, type_url: str, state: _State, *, hold: bool) -> dict[str, Entry | None] | None:
        """What there is to say; None for nothing."""
        if state.claimed:
            self._compare(type_url, state)
        if not state.has_work:
            return None
        candidates = state.dirty | state.asked
        if state.everything and state.whole:
            candidates.update(self._resources.names(type_url))
            candidates.update(state.held)
        asked, owed = state.asked, state.owed
        state.asked, state.dirty, state.everything, state.owed = set(), set(), False, False
        changes: dict[str, Entry | None] = {}
        for name in candidates:
            if hold and (name in state.held or name in state.carried) and self._resources.get(type_url, name) is None:
                state.dirty.add(name)
            else:
                self._add(type_url, state, name, changes, asked=name in asked)
        return changes if changes or owed else None

    def _compare(self, type_url: str, state: _State) -> None:
        """If the version that the other end came with is that of what there is, it has all of it."""
        claimed, state.claimed = state.claimed, ""
        names = self._resources.names(type_url) if state.whole else state.names
        entries = [entry for name in names if (entry := self._resources.get(type_url, name)) is not None]
        if sums.shown(sum(map(digest, entries))) == claimed:
            for entry in entries:
                state.put(entry.name, entry)
            state.owed = state.everything = False
            state.is_known = True
            state.asked -= state.held.keys()

    def _add(self, type_url: str, state: _State, name: str, changes: dict[str, Entry | None], *, asked: bool) -> None:
        """Put what is to be said of a name into the changes: the resource, that there is none, or nothing."""
        entry = self._resources.get(type_url, name) if state.wants(name) else None
        before = state.held.get(name)
        refused = state.isolation.refused
        if entry is None:
            refused.pop(name, None)
            if state.carried.pop(name, None) is None and before is None:
                return
            if state.whole:
                changes[name] = None
            else:
                state.put(name, None)  # cannot be said: the other end keeps it until it asks for it no more
        elif asked or before is None or before.version != entry.version:
            if not state.isolation.is_refused(name, entry.version):
                changes[entry.name] = entry
        elif refused:
            refused.pop(name, None)  # it is again what the other end has

    def unacknowledged(self) -> Mapping[str, Waiting]:
        """Every response that is not answered yet, by type."""
        return {t: s.waiting for t, s in self._types.items() if s.waiting is not None}

    def refusals(self) -> Mapping[str, Mapping[str, Refused]]:
        """The resources that the other end does not take, by type and name."""
        return {t: dict(s.isolation.refused) for t, s in self._types.items() if s.isolation.refused}

    def accepted(self, type_url: str) -> Mapping[str, str]:
        """What the other end has of a type, as far as it has said so: versions by name."""
        state = self._types.get(type_url)
        return {} if state is None else {name: entry.version for name, entry in state.held.items()}


def _version(entry: Entry | None) -> str | None:
    return None if entry is None else entry.version
