"""Proxies as Envoy is one, for the machines of both forms of the protocol: they apply, and reject, what comes.

A version that begins with "bad" is not taken. A proxy that ``names`` the bad ones applies the others of a response;
one that does not rejects the response as a whole.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from meshd.discovery import (
    DeltaRequest,
    DeltaResponse,
    Entry,
    Rejection,
    Sender,
    StateOfTheWorld,
    StateRequest,
    StateResponse,
)

CLUSTERS, ENDPOINTS, LISTENERS = "clusters", "endpoints", "listeners"
ORDER = (CLUSTERS, ENDPOINTS, LISTENERS)
LATE = (CLUSTERS, ENDPOINTS)
WHOLE = frozenset({CLUSTERS, LISTENERS})


class Shelf:
    """Resources of one or more types in plain dictionaries."""

    def __init__(self, **types: dict[str, str]) -> None:
        self.types = types

    def get(self, type_url: str, name: str) -> Entry | None:
        version = self.types.get(type_url, {}).get(name)
        return None if version is None else Entry(name, version, f"{name}={version}".encode())

    def names(self, type_url: str) -> Iterable[str]:
        return self.types.get(type_url, {})


def blame(type_url: str, error: Rejection, names: Collection[str]) -> Mapping[str, str]:
    del type_url
    return {name: error.message for name in names if f"<{name}>" in error.message}


def is_bad(version: str) -> bool:
    return version.startswith("bad")


def complaint(bad: Iterable[str], *, names: bool) -> Rejection:
    return Rejection(" ".join(f"<{name}>" for name in bad) if names else "something is wrong", 13)


@dataclass
class Proxy:
    """What a proxy holds, the endpoints it asks for, and every response it was sent."""

    names: bool = True
    held: dict[str, dict[str, str]] = field(default_factory=lambda: {t: {} for t in ORDER})
    asked: set[str] = field(default_factory=set)
    log: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)


class DeltaProxy(Proxy):
    """A proxy that speaks delta."""

    def connect(self, sender: Sender) -> None:
        for type_url in WHOLE:
            sender.receive(DeltaRequest(type_url, initial_versions=self.held[type_url]))
        if self.asked:
            held = {n: v for n, v in self.held[ENDPOINTS].items() if n in self.asked}
            sender.receive(DeltaRequest(ENDPOINTS, subscribe=tuple(self.asked), initial_versions=held))

    def take(self, response: DeltaResponse) -> DeltaRequest:
        """Apply a response; the answer."""
        held = self.held[response.type_url]
        names = tuple(e.name for e in response.resources)
        self.log.append((response.type_url, names, response.removed))
        bad = [e.name for e in response.resources if is_bad(e.version)]
        if not bad or self.names:
            held.update({e.name: e.version for e in response.resources if not is_bad(e.version)})
            for name in response.removed:
                held.pop(name, None)
        error = complaint(bad, names=self.names) if bad else None
        return DeltaRequest(response.type_url, nonce=response.nonce, error=error)

    def follow(self, sender: Sender) -> None:
        """Ask for the endpoints of the clusters it has, and for no others."""
        wanted = set(self.held[CLUSTERS])
        more, less = wanted - self.asked, self.asked - wanted
        if more or less:
            for name in less:
                self.held[ENDPOINTS].pop(name, None)
            sender.receive(DeltaRequest(ENDPOINTS, subscribe=tuple(more), unsubscribe=tuple(less)))
        self.asked = wanted

    def settle(self, sender: Sender) -> None:
        """Exchange messages until there are none."""
        while (response := sender.poll(0, ORDER, LATE)) is not None:
            sender.receive(self.take(response))
            self.follow(sender)


class StateProxy(Proxy):
    """A proxy that speaks state of the world."""

    def __init__(self, names: bool = True) -> None:
        super().__init__(names)
        self.version: dict[str, str] = {}
        self.nonce: dict[str, str] = {}

    def request(self, type_url: str, error: Rejection | None = None) -> StateRequest:
        names = tuple(sorted(self.asked)) if type_url == ENDPOINTS else ()
        return StateRequest(type_url, names, self.version.get(type_url, ""), self.nonce.get(type_url, ""), error)

    def connect(self, machine: StateOfTheWorld) -> None:
        self.nonce = {}
        for type_url in (CLUSTERS, LISTENERS, *([ENDPOINTS] if self.asked else [])):
            machine.receive(self.request(type_url))

    def take(self, response: StateResponse) -> StateRequest:
        held = self.held[response.type_url]
        self.nonce[response.type_url] = response.nonce
        names = tuple(e.name for e in response.resources)
        self.log.append((response.type_url, names, ()))
        bad = [e.name for e in response.resources if is_bad(e.version)]
        if not bad or self.names:
            if response.type_url in WHOLE:
                for name in held.keys() - set(names):
                    del held[name]
            held.update({e.name: e.version for e in response.resources if not is_bad(e.version)})
        if bad:
            return self.request(response.type_url, complaint(bad, names=self.names))
        self.version[response.type_url] = response.version
        return self.request(response.type_url)

    def follow(self, machine: StateOfTheWorld) -> None:
        wanted = set(self.held[CLUSTERS])
        if wanted != self.asked:
            for name in self.asked - wanted:
                self.held[ENDPOINTS].pop(name, None)
            self.asked = wanted
            machine.receive(self.request(ENDPOINTS))

    def settle(self, machine: StateOfTheWorld) -> None:
        while (response := machine.poll(0, ORDER, LATE)) is not None:
            machine.receive(self.take(response))
            self.follow(machine)


def delta(shelf: Shelf, limit_bytes: int = 0) -> Sender:
    return Sender(shelf, "cp", blame=blame, limit_bytes=limit_bytes)


def state(shelf: Shelf) -> StateOfTheWorld:
    return StateOfTheWorld(shelf, "cp", whole=WHOLE, blame=blame)
