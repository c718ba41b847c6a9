"""Keeps what every connected proxy is to have true to the views, the policies and the certificates.

The only writer of layers and feeds. Level-triggered: it looks at the newest view, finds what differs from the one it
has rendered, and renders that again, in steps (docs/adr/004-one-loop.md).
"""

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar, cast

import trio
from prometheus_client import CollectorRegistry, Counter, Gauge

from meshd.ca.identity import Credentials, no_credentials
from meshd.kinds.external_service import DataSource
from meshd.kinds.mesh import Mesh
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model.resource import Resource, ResourceKey
from meshd.model.steps import Steps
from meshd.runtime.latest import Latest
from meshd.runtime.steps import in_steps
from meshd.store.store import Store
from meshd.topology.view import MeshView
from meshd.xds.abilities import Abilities
from meshd.xds.admin import admin
from meshd.xds.difference import Difference, difference
from meshd.xds.encode import SchemaError, load_schema
from meshd.xds.hosts import Hosts
from meshd.xds.matched import Shapers
from meshd.xds.outbound import Settings
from meshd.xds.outbounds import OutboundLayer
from meshd.xds.proxies import OutboundKey, Proxy, basis, matched_outbound, own_resources, source_of, uris_of
from meshd.xds.resolvers import Resolvers, key_of
from meshd.xds.resources import Layer, ProxyFeed
from meshd.xds.zone_proxies import ZoneProxies

log = logging.getLogger(__name__)

LOOK_UP_AGAIN_S = 10.0
"""How old the address of a name may be, as in Kuma; only where names stand for addresses."""
RETIRE_S = 5.0
"""How long, at least, a cluster outlives the last listener that led to it, for proxies that are slow to hear; at most
twice as long."""

CERTIFIED_S = 5.0
"""How long a proxy that connects is kept waiting for its certificates, so that it hears of everything at once: after a
restart, of nothing that it does not have. One whose CA cannot be used gets the rest then."""

T = TypeVar("T")
CredentialsOf = Callable[[str, str, tuple[str, ...]], Latest[Credentials]]
"""``IdentityService.credentials``: (mesh, owner, URIs) -> the cell."""


@dataclass(eq=False, slots=True)
class Followed:
    """Credentials that proxies wait for: the cell, for which proxies, and how to stop."""

    cell: Latest[Credentials]
    proxies: set[ResourceKey]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


@dataclass(frozen=True, slots=True)
class Outside:
    """What comes from other parts of the process.

    ``credentials`` gives the cell of an identity, ``release`` forgets one whose proxy is gone for good.
    ``read_source`` reads a data source of a mesh (ValueError if it cannot), ``material`` changes when it may read
    something else. ``addresses`` finds those of a name (OSError if it has none).
    """

    credentials: CredentialsOf
    release: Callable[[str, str], Awaitable[None]]
    read_source: Callable[[str, DataSource], bytes]
    material: Latest[int]
    addresses: Callable[[str], Awaitable[tuple[str, ...]]]


class XdsKeeper:
    """Renders the proxies that are attached.

    ``views`` are the meshes of ``zone`` by name, ``shapers`` the policies. A proxy that cannot be rendered keeps what
    it has; the reason is logged and counted.
    """

    name = "xds"

    def __init__(
        self,
        zone: str,
        store: Store,
        views: Latest[Mapping[str, MeshView]],
        shapers: Shapers,
        outside: Outside,
        registry: CollectorRegistry,
    ) -> None:
        self._store = store
        self._views = views
        self._shapers = shapers
        self._outside = outside
        self._hosts = Hosts()
        self._moved_hosts: set[str] = set()
        self._looked_up: set[str] = set()
        self._answered: set[str] = set()
        self._proxies: dict[ProxyFeed, Proxy] = {}
        self._new: set[Proxy] = set()
        self._outbounds: dict[OutboundKey, OutboundLayer] = {}
        self._resolvers = Resolvers()
        self._rendered: Mapping[str, MeshView] = {}
        self._rendered_material = 0
        self._changed_zone_proxies: set[ResourceKey] = set()
        self._zones = ZoneProxies(zone, shapers, outside.read_source, self._hosts.address_of)
        self._followed: dict[tuple[str, str], Followed] = {}
        self._uncertified: set[ResourceKey] = set()
        self._retire_at = math.inf
        self._show_at = math.inf
        self._wake = trio.Event()
        self._failures = Counter(
            "meshd_xds_render_failures", "Proxies that could not be rendered.", ["kind"], registry=registry
        )
        Gauge("meshd_xds_proxies", "Proxies that are connected.", registry=registry).set_function(
            lambda: len(self._proxies)
        )

    def attach(self, key: ResourceKey, abilities: Abilities) -> ProxyFeed:
        """What the proxy of this resource is to have; ready as soon as the resource is in the view and rendered."""
        proxy = Proxy(key, abilities, shown_by=trio.current_time() + CERTIFIED_S)
        self._proxies[proxy.feed] = proxy
        self._new.add(proxy)
        self._wake.set()
        return proxy.feed

    def detach(self, feed: ProxyFeed) -> None:
        """The proxy is not connected any more."""
        proxy = self._proxies.pop(feed, None)
        if proxy is not None:
            self._new.discard(proxy)
            feed.close()
            self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Owns a task for each identity that it follows."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, self._views)
            nursery.start_soon(self._follow, self._outside.material)
            nursery.start_soon(self._follow_zone_proxies)
            task_status.started()
            while True:
                with trio.move_on_at(min(self._retire_at, self._show_at)):
                    await self._wake.wait()
                self._wake = trio.Event()
                if self._proxies and not load_schema.cache_info().currsize:
                    await trio.to_thread.run_sync(load_schema)
                self._retire()
                gone = await in_steps(self._round(nursery))
                for host in self._hosts.asked - self._looked_up:
                    self._looked_up.add(host)
                    nursery.start_soon(self._look_up, host)
                for mesh, owner in gone:
                    await self._outside.release(mesh, owner)

    async def _follow(self, cell: Latest[T]) -> None:
        seen = 0
        while True:
            seen, _ = await cell.newer_than(seen)
            self._wake.set()

    async def _look_up(self, host: str) -> None:
        """Find the address of a name out, again and again; what was found stays until there is another."""
        while True:
            try:
                found = await self._outside.addresses(host)
            except OSError as error:
                log.debug("%s: no address: %s", host, error)
                found = ()
            # As Kuma: the smallest, so that a name with several does not wander among them.
            address = min(found, default=self._hosts.known.get(host))
            if address is not None and self._hosts.known.get(host) != address:
                self._hosts.known[host] = address
                self._moved_hosts.add(host)
                self._wake.set()
            if host not in self._answered:
                self._answered.add(host)
                self._wake.set()
            await trio.sleep(LOOK_UP_AGAIN_S)

    async def _follow_zone_proxies(self) -> None:
        with self._store.watch(("ZoneIngress", "ZoneEgress")) as feed:
            while True:
                self._changed_zone_proxies |= await feed.take()
                self._wake.set()

    # -- one round

    def _round(self, nursery: trio.Nursery) -> Steps[list[tuple[str, str]]]:
        """Bring everything to the newest views; returns the (mesh, owner) of identities to be released."""
        views, before = self._views.value, self._rendered
        anything = self._outside.material.version != self._rendered_material
        self._rendered, self._rendered_material = views, self._outside.material.version
        differences: dict[str, Difference] = {}
        for mesh, view in views.items():
            if anything or before.get(mesh) is not view:
                differences[mesh] = difference(None if anything else before.get(mesh), view)
                yield
        moved, self._moved_hosts = self._moved_hosts, set()
        for mesh, view in views.items() if moved else ():
            differences[mesh] = differences.get(mesh, Difference(*[frozenset[str]()] * 3)).with_moved(view, moved)
            yield
        new, self._new = self._new, set()
        for proxy in list(self._proxies.values()):
            if proxy.feed not in self._proxies:
                continue  # it has gone meanwhile, and must not join a layer any more
            if proxy.key.kind == "Dataplane" and (proxy in new or proxy.key.mesh in differences):
                self._guarded(proxy, partial(self._dataplane, proxy, views.get(proxy.key.mesh), nursery))
                yield
        yield from self._update_outbounds(views, differences)
        yield from self._resolvers.update(views, {p.resolver for p in self._proxies.values() if p.resolver is not None})
        more = bool(moved or before.keys() - views.keys())
        yield from self._update_zone_proxies(views, differences, nursery, more=more)
        self._certify_dataplanes()
        self._show_new(views)
        waiting = {proxy.outbound for proxy in self._proxies.values() if not proxy.feed.ready}
        for key in [k for k, outbounds in self._outbounds.items() if not outbounds.layer.in_use and k not in waiting]:
            del self._outbounds[key]
        return self._let_go(views)

    def _dataplane(self, proxy: Proxy, view: MeshView | None, nursery: trio.Nursery) -> None:
        """The part of a Dataplane that is its own, and which outbounds it shares."""
        dataplane = view.local_dataplanes.get(proxy.key.name) if view is not None else None
        if view is None or dataplane is None:
            self._new.add(proxy)  # it comes with a later view; until then, and if it has gone, what it has stands
            return
        located = self._hosts.resolved(dataplane)
        if located is None:
            self._new.add(proxy)
            return
        made_of = (*basis(view, dataplane, proxy.abilities), located is dataplane or located.spec)
        if proxy.made_of == made_of:
            return
        uris = uris_of(dataplane)
        has_mtls = cast("Mesh", view.mesh.spec).enabled_backend() is not None
        if uris:
            self._follow_credentials(proxy, proxy.key.mesh, proxy.key.name, uris, nursery)
        proxy.own.replace(own_resources(view, located, proxy.abilities, self._shapers))
        if uris or not has_mtls:
            self._choose_layers(proxy, view, dataplane)
        proxy.made_of = made_of

    def _update_zone_proxies(
        self,
        views: Mapping[str, MeshView],
        differences: Mapping[str, Difference],
        nursery: trio.Nursery,
        *,
        more: bool,
    ) -> Steps[None]:
        """Ingresses and egresses: what they share first, then the listener of each for which something changed.

        ``more``: besides ``differences``, a mesh has gone, or a name (maybe one of theirs) stands for another address.
        """
        changed, self._changed_zone_proxies = self._changed_zone_proxies, set()
        proxies = [p for p in self._proxies.values() if p.key.kind != "Dataplane"]
        if not proxies:
            self._zones.forget()
            return
        if not (differences or changed or more or any(not p.feed.ready for p in proxies)):
            return
        yield from self._zones.update(
            [(p.key.kind, p.abilities) for p in proxies],
            views,
            {mesh: d.ingress for mesh, d in differences.items()},
            {mesh: d.egress for mesh, d in differences.items()},
        )
        for proxy in proxies:
            moved = self._zones.shared_by(proxy.key.kind, proxy.abilities).moved
            if moved or more or proxy.key in changed or proxy.made_of is None:
                self._guarded(proxy, partial(self._zone_proxy, proxy, nursery))
                yield

    def _zone_proxy(self, proxy: Proxy, nursery: trio.Nursery) -> None:
        resource = self._store.get(proxy.key)
        if resource is None:
            return  # what it has stands
        wanted = list(self._zones.identities(resource, proxy.abilities))
        for mesh, owner, uris in wanted:
            self._follow_credentials(proxy, mesh, owner, uris, nursery)
        self._keep_identities(proxy, {mesh: owner for mesh, owner, _ in wanted})
        # Now, not at the end of the round: the listener and its certificates are to be of the same moment.
        self._certify(proxy)
        listener = self._zones.listener(resource, proxy.abilities, proxy.certified)
        address = self._hosts.address_of(cast("ZoneIngress | ZoneEgress", resource.spec).networking.address)
        readiness = admin(address, proxy.abilities) if address is not None else ()
        proxy.own.replace([*readiness, *([listener] if listener is not None else [])])
        proxy.made_of = resource.version

    def _choose_layers(self, proxy: Proxy, view: MeshView, dataplane: Resource) -> None:
        """Which outbounds and names a Dataplane shares with others; it changes over to what equals what it has."""
        matched = matched_outbound(view, dataplane, self._shapers)
        source = source_of(dataplane, proxy.abilities)
        binds = not proxy.abilities.is_redirected
        ipv6, system_ca = proxy.abilities.ipv6, proxy.abilities.system_ca
        key = OutboundKey(proxy.key.mesh, source, (matched.identity, view.mesh.version), binds, ipv6, system_ca)
        resolver = key_of(dataplane, proxy.abilities, source)
        before, same = proxy.outbound, resolver == proxy.resolver
        if key == before and same:
            return
        settings = Settings(binds, ipv6, self._outside.read_source, self._hosts.address_of, system_ca)
        current = self._outbounds.get(before) if before is not None else None
        chosen = self._outbounds.get(key)
        if chosen is None:
            fresh = OutboundLayer(source, matched, settings)
            chosen = self._outbounds[key] = current.fork(source, matched, settings) if current else fresh
        proxy.outbound, proxy.resolver = key, resolver
        if proxy.feed.ready:
            same = same and (chosen is current or (current is not None and chosen.forked_from is current))
            proxy.feed.show(self._layers(proxy), same=same)

    def _update_outbounds(self, views: Mapping[str, MeshView], differences: Mapping[str, Difference]) -> Steps[None]:
        unchanged = Difference(frozenset())
        for key, outbounds in list(self._outbounds.items()):
            view = views.get(key.mesh)
            if view is None or (outbounds.is_rendered and key.mesh not in differences):
                continue
            failed = dict(outbounds.failed)
            yield from outbounds.update(view, differences.get(key.mesh, unchanged).services)
            for name, why in outbounds.failed.items() - failed.items():
                self._failures.labels("Dataplane").inc()
                log.error("mesh '%s': %s cannot be rendered and stays as it is: %s", key.mesh, name, why)
            if outbounds.has_retired:
                self._retire_at = min(self._retire_at, trio.current_time() + RETIRE_S)

    def _retire(self) -> None:
        if trio.current_time() >= self._retire_at:
            self._retire_at = math.inf
            for outbounds in self._outbounds.values():
                outbounds.retire()
                if outbounds.has_retired:
                    self._retire_at = trio.current_time() + RETIRE_S

    def _layers(self, proxy: Proxy) -> tuple[Layer, ...]:
        if proxy.key.kind != "Dataplane":
            return proxy.own, proxy.secrets, self._zones.layer(proxy.key.kind, proxy.abilities)
        outbounds = self._outbounds.get(proxy.outbound) if proxy.outbound is not None else None
        shared = [outbounds.layer] if outbounds is not None else []
        if proxy.resolver is not None:
            shared.append(self._resolvers.layer(proxy.resolver))
        return (proxy.own, proxy.secrets, *shared)

    def _show_new(self, views: Mapping[str, MeshView]) -> None:
        """Show to proxies for the first time what they are to have, as soon as all of it is there.

        Also the addresses of names: endpoints at a name that was never looked up are no empty set (promise P5).
        """
        self._show_at = math.inf
        for proxy in self._proxies.values():
            if proxy.feed.ready or proxy.made_of is None:
                continue
            is_whole = self._hosts.asked <= self._answered and self._is_certified(proxy, views)
            if is_whole or trio.current_time() >= proxy.shown_by:
                proxy.feed.show(self._layers(proxy))
            else:
                self._show_at = min(self._show_at, proxy.shown_by)

    def _is_certified(self, proxy: Proxy, views: Mapping[str, MeshView]) -> bool:
        """Whether a proxy was given a certificate in each mesh in which it needs one."""
        for mesh in proxy.identities.keys() - proxy.certified:
            view = views.get(mesh)
            if view is not None and cast("Mesh", view.mesh.spec).enabled_backend() is not None:
                return False
        return True

    def _guarded(self, proxy: Proxy, render: Callable[[], None]) -> None:
        """Render; one proxy that cannot be must not keep the others from it."""
        try:
            render()
            proxy.trouble = ""
        except SchemaError as error:
            self._failures.labels(proxy.key.kind).inc()
            if proxy.trouble != str(error):
                proxy.trouble = str(error)
                log.exception("%s: cannot be rendered and keeps what it has", proxy.key)

    # -- identities

    def _follow_credentials(
        self, proxy: Proxy, mesh: str, owner: str, uris: tuple[str, ...], nursery: trio.Nursery
    ) -> None:
        cell = self._outside.credentials(mesh, owner, uris)
        followed = self._followed.get((mesh, owner))
        if followed is None or followed.cell is not cell:
            if followed is not None:
                followed.scope.cancel()
            followed = self._followed[mesh, owner] = Followed(cell, {proxy.key})
            nursery.start_soon(self._follow_cell, followed)
        followed.proxies.add(proxy.key)
        proxy.identities[mesh] = owner
        self._uncertified.add(proxy.key)

    async def _follow_cell(self, followed: Followed) -> None:
        with followed.scope:
            seen = 0
            while True:
                seen, _ = await followed.cell.newer_than(seen)
                self._uncertified |= followed.proxies
                # The listener of an egress has a chain for what it has a certificate for.
                self._changed_zone_proxies |= {key for key in followed.proxies if key.kind != "Dataplane"}
                self._wake.set()

    def _keep_identities(self, proxy: Proxy, owners: dict[str, str]) -> None:
        """Let go of the identities that a proxy needs no more; ``owners`` are those of all that it needs, by mesh."""
        if proxy.identities.keys() != owners.keys() or not proxy.feed.ready:
            for (mesh, _), followed in self._followed.items():
                if mesh not in owners:
                    followed.proxies.discard(proxy.key)
            proxy.identities = owners

    def _followed_by(self, proxy: Proxy, mesh: str) -> Credentials:
        followed = self._followed.get((mesh, proxy.identities[mesh]))
        return followed.cell.value if followed is not None else no_credentials(mesh)

    def _certify_dataplanes(self) -> None:
        """Give the Dataplanes whose credentials changed what they show and trust now."""
        uncertified, self._uncertified = self._uncertified, set()
        for proxy in self._proxies.values() if uncertified else ():
            if proxy.key.kind == "Dataplane" and proxy.key in uncertified:
                self._certify(proxy)

    def _certify(self, proxy: Proxy) -> None:
        proxy.certify({mesh: self._followed_by(proxy, mesh) for mesh in proxy.identities})

    def _let_go(self, views: Mapping[str, MeshView]) -> list[tuple[str, str]]:
        """Stop following the identities of proxies that are gone for good."""
        gone = []
        for (mesh, owner), followed in list(self._followed.items()):
            view = views.get(mesh)
            if any(self._is_there(key, view) for key in followed.proxies):
                continue
            followed.scope.cancel()
            del self._followed[mesh, owner]
            gone.append((mesh, owner))
        return gone

    def _is_there(self, key: ResourceKey, view: MeshView | None) -> bool:
        if key.kind != "Dataplane":
            return self._store.get(key) is not None
        if view is None:  # a Mesh may come later than its Dataplanes
            return self._store.get(key) is not None
        return key.name in view.local_dataplanes
