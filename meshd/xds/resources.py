"""Encoded Envoy resources, and what one proxy is to have: layers of them, most of which it shares with others."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from meshd.discovery.messages import Entry
from meshd.discovery.wire import any_bytes
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

    def get(self, type_url: str, name: str) -> Entry | None:
        """The newest of that name."""
        return self._entries.get(type_url, {}).get(name)

    def names(self, type_url: str) -> Iterable[str]:
        """All names of a type."""
        return self._entries.get(type_url, {}).keys()

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Everything, with its type."""
        return ((type_url, entry) for type_url, entries in self._entries.items() for entry in entries.values())

    def put(self, resources: Iterable[XdsResource]) -> None:
        """Add or change resources; those that are as they were cost nothing."""
        for item in resources:
            entries = self._entries.setdefault(item.type_url, {})
            before = entries.get(item.name)
            if before is None or before.version != item.entry.version:
                entries[item.name] = item.entry
                self._tell(item.type_url, item.name)

    def remove(self, type_url: str, names: Iterable[str]) -> None:
        """Take resources away."""
        entries = self._entries.get(type_url, {})
        for name in names:
            if entries.pop(name, None) is not None:
                self._tell(type_url, name)

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

    def _tell(self, type_url: str, name: str) -> None:
        for feed in self._feeds:
            feed.mark(type_url, name)


def nothing() -> None:
    """What a feed wakes that nobody reads yet."""


@dataclass(eq=False, slots=True)
class ProxyFeed:
    """What one proxy is to have, as ``discovery.Resources``, and what of it changed since its reader looked.

    Owned by the keeper that made it; ``wake`` is set by its one reader and called, from the same thread, whenever
    ``take`` has something new. ``ready`` says that it was rendered: before, it must not be read as "there is nothing".
    """

    layers: tuple[Layer, ...] = ()
    wake: Callable[[], None] = nothing
    ready: bool = False
    _dirty: dict[str, set[str]] = field(default_factory=dict)

    def get(self, type_url: str, name: str) -> Entry | None:
        """See ``discovery.Resources``."""
        for layer in self.layers:
            entry = layer.get(type_url, name)
            if entry is not None:
                return entry
        return None

    def names(self, type_url: str) -> Iterable[str]:
        """See ``discovery.Resources``."""
        first, *others = self.layers or (Layer(),)
        found = first.names(type_url)
        for layer in others:
            found = [*found, *layer.names(type_url)]
        return found

    def take(self) -> Mapping[str, set[str]]:
        """The names that changed since the last call, by type."""
        dirty, self._dirty = self._dirty, {}
        return dirty

    def mark(self, type_url: str, name: str) -> None:
        """Something of that name changed."""
        self._dirty.setdefault(type_url, set()).add(name)
        self.wake()

    def show(self, layers: tuple[Layer, ...], *, same: bool = False) -> None:
        """Have what these layers have, from now on; ``same``: it is what the ones before have."""
        before, self.layers = self.layers, layers
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
                for type_url, entry in layer.items():
                    self.mark(type_url, entry.name)
        if not self.ready:
            self.ready = True
            self.wake()

    def close(self) -> None:
        """Be told nothing more."""
        for layer in self.layers:
            layer.leave(self)
        self.layers = ()
