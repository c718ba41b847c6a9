"""Encoded Envoy resources, and what one proxy is to have: layers of them, most of which it shares with others."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from meshd.discovery.messages import Entry
from meshd.discovery.wire import any_bytes
from meshd.model.errors import Violation
from meshd.model.steps import Steps
from meshd.xds.encode import PREFIX, Document, encode

CLUSTER = PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINTS = PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = PREFIX + "envoy.config.listener.v3.Listener"
ROUTES = PREFIX + "envoy.config.route.v3.RouteConfiguration"
SECRET = PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
RUNTIME = PREFIX + "envoy.service.runtime.v3.Runtime"

ORDER = (CLUSTER, ENDPOINTS, SECRET, LISTENER, ROUTES, RUNTIME)
"""What is sent first: a listener must find its clusters (xDS protocol, "eventual consistency considerations")."""
WILDCARD = frozenset({CLUSTER, LISTENER})
"""Types that a proxy asks for all of; of the others it names what its clusters and listeners refer to."""

FEEDS_AT_A_TIME = 8

_NAME = {ENDPOINTS: "clusterName"}


@dataclass(frozen=True, slots=True)
class XdsResource:
    """One resource. ``entry.body`` is its encoded Any; ``entry.version`` the hash of it, so equal bytes are equal."""

    type_url: str
    entry: Entry

    @property
    def name(self) -> str:
        """Its name within its type."""
        return self.entry.name


def resource(type_url: str, document: Document) -> XdsResource:
    """The document encoded, under the name that it has in itself.

    Raises:
        SchemaError: Envoy's API has no such document.
    """
    return of_bytes(type_url, document[_NAME.get(type_url, "name")], encode(type_url, document))


def of_bytes(type_url: str, name: str, message: bytes) -> XdsResource:
    """An encoded message as a resource."""
    body = any_bytes(type_url, message)
    version = hashlib.blake2b(body, digest_size=8).hexdigest()
    return XdsResource(type_url, Entry(name, version, body))


Entries = dict[str, dict[str, Entry]]
"""Entries by type and name."""


class Layer:
    """Resources by type and name, with one writer, for all the feeds that include it."""

    def __init__(self) -> None:
        self._entries: Entries = {}
        self._feeds: set[ProxyFeed] = set()

    def of(self, type_url: str) -> dict[str, Entry]:
        """Those of one type by name; always the same dict, to be read only."""
        return self._entries.setdefault(type_url, {})

    def get(self, type_url: str, name: str) -> Entry | None:
        """The newest of that name."""
        return self.of(type_url).get(name)

    def names(self, type_url: str) -> Iterable[str]:
        """All names of a type."""
        return self.of(type_url).keys()

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Everything, with its type."""
        return ((type_url, entry) for type_url, entries in self._entries.items() for entry in entries.values())

    def put(self, resources: Iterable[XdsResource]) -> None:
        """Add or change resources; those that are as they were cost nothing. Feeds hear of all of it at once."""
        self._tell(self._put(resources))

    def spread(self, resources: Iterable[XdsResource]) -> Steps[None]:
        """The same in steps: what a thousand readers do when they hear of it is not to be in one turn of the loop."""
        changed = self._put(resources)
        for number, feed in enumerate(list(self._feeds) if changed else ()):
            feed.mark(changed)
            if number % FEEDS_AT_A_TIME == FEEDS_AT_A_TIME - 1:
                yield

    def _put(self, resources: Iterable[XdsResource]) -> "Changes":
        changed: dict[str, set[str]] = {}
        for item in resources:
            entries = self.of(item.type_url)
            before = entries.get(item.name)
            if before is None or before.version != item.entry.version:
                entries[item.name] = item.entry
                changed.setdefault(item.type_url, set()).add(item.name)
        return changed

    def remove(self, type_url: str, names: Iterable[str]) -> None:
        """Take resources away."""
        entries = self.of(type_url)
        gone = {name for name in names if entries.pop(name, None) is not None}
        self._tell({type_url: gone} if gone else {})

    def replace(self, resources: Iterable[XdsResource]) -> None:
        """Have exactly these."""
        wanted: dict[str, dict[str, XdsResource]] = {}
        for item in resources:
            wanted.setdefault(item.type_url, {})[item.name] = item
        for type_url in [t for t in self._entries if self._entries[t]]:
            self.remove(type_url, self._entries[type_url].keys() - wanted.get(type_url, {}).keys())
        self.put(item for items in wanted.values() for item in items.values())

    def copy(self, other: "Layer") -> None:
        """Have what another has; for a layer that nobody includes yet."""
        self.put(XdsResource(type_url, entry) for type_url, entry in other.items())

    @property
    def in_use(self) -> bool:
        """Whether any feed includes it."""
        return bool(self._feeds)

    def join(self, feed: "ProxyFeed") -> None:
        """Tell ``feed`` of every change from now on."""
        self._feeds.add(feed)

    def leave(self, feed: "ProxyFeed") -> None:
        """Tell ``feed`` nothing more."""
        self._feeds.discard(feed)

    def everything(self) -> "Changes":
        """All that there is, as if it had just come."""
        return {type_url: frozenset(entries) for type_url, entries in self._entries.items() if entries}

    def _tell(self, changed: "Changes") -> None:
        for feed in self._feeds if changed else ():
            feed.mark(changed)


Changes = Mapping[str, AbstractSet[str]]
"""Names by type. Shared by all whom it concerns, so never changed."""


def nothing() -> None:
    """What a feed wakes that nobody reads yet."""


@dataclass(eq=False, slots=True)
class ProxyFeed:
    """What one proxy is to have, as ``discovery.Resources``, and what of it changed since its reader looked.

    Owned by the keeper that made it; ``wake`` is set by its one reader and called, from the same thread, whenever
    ``take`` has something new. ``ready`` says that it was rendered: before, it must not be read as "there is nothing".
    ``lacking`` is what of it could not be rendered, and why; ``on_lacking`` is called when that changes.
    """

    layers: tuple[Layer, ...] = ()
    wake: Callable[[], None] = nothing
    ready: bool = False
    lacking: tuple[Violation, ...] = ()
    on_lacking: Callable[[], None] = nothing
    _changes: list[Changes] = field(default_factory=list)
    _by_type: dict[str, tuple[dict[str, Entry], ...]] = field(default_factory=dict)
    """For each type that was asked for, that of each layer."""

    def get(self, type_url: str, name: str) -> Entry | None:
        """See ``discovery.Resources``."""
        found = self._by_type.get(type_url)
        for entries in found if found is not None else self._of(type_url):
            if name in entries:
                return entries[name]
        return None

    def names(self, type_url: str) -> Iterable[str]:
        """See ``discovery.Resources``."""
        return [name for entries in self._of(type_url) for name in entries]

    def _of(self, type_url: str) -> tuple[dict[str, Entry], ...]:
        found = self._by_type[type_url] = tuple(layer.of(type_url) for layer in self.layers)
        return found

    def take(self) -> Changes:
        """The names that changed since the last call, by type."""
        changes, self._changes = self._changes, []
        if len(changes) == 1:
            return changes[0]
        merged: dict[str, set[str]] = {}
        for change in changes:
            for type_url, names in change.items():
                merged.setdefault(type_url, set()).update(names)
        return merged

    def mark(self, changes: Changes) -> None:
        """All of this changed."""
        self._changes.append(changes)
        self.wake()

    def show(self, layers: tuple[Layer, ...], *, same: bool = False) -> None:
        """Have what these layers have, from now on; ``same``: it is what the ones before have."""
        before, self.layers = self.layers, layers
        self._by_type = {}
        for layer in before:
            if layer not in layers:
                layer.leave(self)
        for layer in layers:
            layer.join(self)
        if not same:
            changed = {*before} ^ {*layers}
            if [layer for layer in before if layer in layers] != [layer for layer in layers if layer in before]:
                changed = {*before, *layers}  # of a name that several have, another's counts now
            for layer in changed:
                if changes := layer.everything():
                    self.mark(changes)
        if not self.ready:
            self.ready = True
            self.wake()

    def explain(self, lacking: tuple[Violation, ...]) -> None:
        """This is what could not be rendered."""
        if self.lacking != lacking:
            self.lacking = lacking
            self.on_lacking()

    def close(self) -> None:
        """Be told nothing more."""
        for layer in self.layers:
            layer.leave(self)
        self.layers, self._by_type = (), {}
