"""The names that proxies answer, one layer for all proxies that answer the same. Pure but for its layers."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from meshd.model.resource import Resource
from meshd.model.steps import Steps
from meshd.topology.view import MeshView
from meshd.xds import dns
from meshd.xds.abilities import Abilities
from meshd.xds.dynconf import Answer, dynamic_config
from meshd.xds.outbounds import Vips
from meshd.xds.resources import Layer, XdsResource


@dataclass(frozen=True, slots=True)
class NamesKey:
    """Which names: of a mesh, of all services or the ``reachable`` ones, in which form."""

    mesh: str
    form: dns.Form
    ipv6: bool
    reachable: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class ResolverKey:
    """Which names, and what else the proxies that share a layer have in common."""

    names: NamesKey
    labels: tuple[tuple[str, str], ...]
    abilities: Abilities


@dataclass(eq=False, slots=True)
class Resolvers:
    """See the module."""

    _names: dict[NamesKey, dns.Names] = field(default_factory=dict)
    _records: dict[tuple[NamesKey, tuple[tuple[str, str], ...]], tuple[dns.Names, Answer]] = field(default_factory=dict)
    _layers: dict[ResolverKey, tuple[Layer, dns.Names | None]] = field(default_factory=dict)

    def layer(self, key: ResolverKey) -> Layer:
        """The layer of a proxy; made when first asked for and filled by ``update``."""
        return self._layers.setdefault(key, (Layer(), None))[0]

    def update(self, views: Mapping[str, MeshView], used: Collection[ResolverKey]) -> Steps[None]:
        """Bring the layers of ``used`` to ``views``; others are forgotten."""
        for stale in self._layers.keys() - used:
            del self._layers[stale]
        for gone in self._names.keys() - {key.names for key in used}:
            del self._names[gone]
        for unused in self._records.keys() - {(key.names, key.labels) for key in used}:
            del self._records[unused]
        for key in used:
            wanted, view = key.names, views.get(key.names.mesh)
            layer, rendered = self.layer(key), self._layers[key][1]
            if view is None:
                continue
            before = self._names.get(wanted) or dns.Names(wanted.form, wanted.ipv6)
            known = yield from dns.updated(before, dns.reachable(view.vips, wanted.reachable))
            self._names[wanted] = known
            if known is not rendered:
                layer.put(self._resources(key, known))
                self._layers[key] = (layer, known)
                yield

    def _resources(self, key: ResolverKey, known: dns.Names) -> Iterator[XdsResource]:
        if key.names.form is dns.Form.ENVOY:
            yield dns.listener(known, key.abilities.dns_port)
            return
        # The listener is at a path of the proxy's own; what it answers is as long as there are services.
        place = key.names, key.labels
        of, answer = self._records.get(place, (None, None))
        if answer is None or of is not known:
            answer = dns.records(known, key.labels)
            self._records[place] = known, answer
        yield from dynamic_config([answer], key.abilities)


def key_of(dataplane: Resource, abilities: Abilities, source: object) -> ResolverKey | None:
    """Which names a Dataplane answers, None if none. ``source`` are its outbounds."""
    form = dns.form_of(abilities)
    if form is None or abilities.redirect is None:
        return None
    reachable = source.reachable if isinstance(source, Vips) else None
    names = NamesKey(dataplane.key.mesh, form, abilities.redirect.ipv6, reachable)
    if form is dns.Form.ENVOY:
        return ResolverKey(names, (), Abilities(dns_port=abilities.dns_port))
    return ResolverKey(names, dns.extra_labels(dataplane), Abilities(workdir=abilities.workdir, ipv6=abilities.ipv6))
