"""All Dataplanes that are connected: which outbounds and names each shares with others. Pure but for its layers."""

from collections.abc import Callable, Collection, Iterable, Mapping

from meshd.model.errors import Violation
from meshd.model.resource import Resource
from meshd.model.steps import Steps
from meshd.topology.view import MeshView
from meshd.xds.clusters import AddressOf
from meshd.xds.difference import UNCHANGED, Difference
from meshd.xds.external import ReadSource
from meshd.xds.matched import Shapers
from meshd.xds.outbound import Settings
from meshd.xds.outbounds import OutboundLayer
from meshd.xds.proxies import OutboundKey, Proxy, lacking_of, matched_outbound, source_of
from meshd.xds.resolvers import Resolvers, key_of
from meshd.xds.resources import Layer


class Dataplanes:
    """See the module. ``choose`` for each proxy that changed, then ``update``; ``retire`` some seconds later."""

    def __init__(
        self, shapers: Shapers, read_source: ReadSource, address_of: AddressOf, is_plain: Callable[[str, str], bool]
    ) -> None:
        self._is_plain = is_plain
        self._shapers = shapers
        self._read_source = read_source
        self._address_of = address_of
        self._outbounds: dict[OutboundKey, OutboundLayer] = {}
        self._resolvers = Resolvers()
        self._lacking: dict[OutboundKey, tuple[Violation, ...]] = {}

    def choose(self, proxy: Proxy, view: MeshView, dataplane: Resource) -> None:
        """Let a proxy share what it is to share; it changes over to what equals what it has."""
        matched = matched_outbound(view, dataplane, self._shapers)
        source = source_of(dataplane, proxy.abilities)
        binds = not proxy.abilities.is_redirected
        ipv6, system_ca = proxy.abilities.ipv6, proxy.abilities.system_ca
        key = OutboundKey(proxy.key.mesh, source, (matched.identity, view.mesh.version), binds, ipv6, system_ca)
        resolver = key_of(dataplane, proxy.abilities, source)
        before, same = proxy.outbound, resolver == proxy.resolver
        if key == before and same:
            return
        settings = Settings(binds, ipv6, self._read_source, self._address_of, system_ca, self._is_plain)
        current = self._outbounds.get(before) if before is not None else None
        chosen = self._outbounds.get(key)
        if chosen is None:
            fresh = OutboundLayer(source, matched, settings)
            chosen = self._outbounds[key] = current.fork(source, matched, settings) if current else fresh
        proxy.outbound, proxy.resolver = key, resolver
        if proxy.feed.ready:
            same = same and (chosen is current or (current is not None and chosen.forked_from is current))
            proxy.feed.show(self.layers(proxy), same=same)

    def update(
        self, proxies: Iterable[Proxy], views: Mapping[str, MeshView], differences: Mapping[str, Difference]
    ) -> Steps[list[tuple[str, str, str]]]:
        """Bring what these proxies share to ``views``.

        Returns what of it cannot be rendered since now: (mesh, name, why).
        """
        broken: list[tuple[str, str, str]] = []
        for key, outbounds in list(self._outbounds.items()):
            view = views.get(key.mesh)
            if view is None or (outbounds.is_rendered and key.mesh not in differences):
                continue
            before = dict(outbounds.failed)
            yield from outbounds.update(view, differences.get(key.mesh, UNCHANGED).services)
            self._lacking[key] = lacking_of(
                {
                    f"outbound {name}": f"cannot be rendered and stays as it is: {why}"
                    for name, why in outbounds.failed.items()
                }
                | {f"external service {name}": why for name, why in outbounds.refused.items()}
            )
            broken += [(key.mesh, name, why) for name, why in outbounds.failed.items() - before.items()]
        yield from self._resolvers.update(views, {p.resolver for p in proxies if p.resolver is not None})
        return broken

    def layers(self, proxy: Proxy) -> tuple[Layer, ...]:
        """All that a proxy is to have."""
        outbounds = self._outbounds.get(proxy.outbound) if proxy.outbound is not None else None
        shared = [outbounds.layer] if outbounds is not None else []
        if proxy.resolver is not None:
            shared.append(self._resolvers.layer(proxy.resolver))
        return (proxy.own, proxy.secrets, *shared)

    def lacking(self, proxy: Proxy) -> tuple[Violation, ...]:
        """What of its outbounds a proxy does not have, and why."""
        return self._lacking.get(proxy.outbound, ()) if proxy.outbound is not None else ()

    @property
    def has_retired(self) -> bool:
        """Whether ``retire`` has something to do."""
        return any(outbounds.has_retired for outbounds in self._outbounds.values())

    def retire(self) -> None:
        """Take away the clusters that were let go before the last call, and nothing has led to since."""
        for outbounds in self._outbounds.values():
            outbounds.retire()

    def forget_unused(self, proxies: Collection[Proxy]) -> None:
        """Drop what none of these, which are all that are connected, shares."""
        waiting = {proxy.outbound for proxy in proxies if not proxy.feed.ready}
        for key in [k for k, outbounds in self._outbounds.items() if not outbounds.layer.in_use and k not in waiting]:
            del self._outbounds[key]
            self._lacking.pop(key, None)
