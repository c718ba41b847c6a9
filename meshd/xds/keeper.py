"""Keeps what every connected proxy is to have true to the views, the policies and the certificates.

The only writer of layers and feeds. Level-triggered: it looks at the newest view, finds what differs from the one it
has rendered, and renders that again, in steps (docs/adr/004-one-loop.md).
"""

import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import trio
from prometheus_client import CollectorRegistry, Counter, Gauge

from meshd.ca.x509 import KeyPair
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.external_service import DataSource
from meshd.kinds.mesh import Mesh
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model.resource import ResourceKey
from meshd.model.steps import Steps
from meshd.runtime.latest import Latest
from meshd.runtime.steps import in_steps
from meshd.store.store import Store
from meshd.topology.view import MeshView
from meshd.xds.abilities import Abilities
from meshd.xds.dataplanes import Dataplanes
from meshd.xds.difference import UNCHANGED, Difference, difference
from meshd.xds.encode import SchemaError, load_schema
from meshd.xds.hosts import Hosts, hosts_of
from meshd.xds.identities import CredentialsOf, Identities, Identity, is_certified
from meshd.xds.matched import Shapers
from meshd.xds.preview import preview, with_shadows
from meshd.xds.proxies import Proxy, basis, has_outbounds, own_resources, uris_of
from meshd.xds.resources import Layer, ProxyFeed, XdsResource
from meshd.xds.turning import Instance, Turning
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

EXPLAINED = 50
"""Proxies that are looked at in one step; each takes a microsecond or two."""

REST_S = 0.015
"""What changes within so long after a round waits for its end: changes come in bursts (a Dataplane, its virtual IP, its
insight), and a round looks at every proxy. The first of a burst does not wait."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outside:
    """What comes from other parts of the process.

    ``credentials`` gives the cell of an identity, ``release`` forgets one whose proxy is gone for good.
    ``read_source`` reads a data source of a mesh (ValueError if it cannot), ``material`` changes when it may read
    something else, and with it ``admin_ca``, that of the way to the admin API of Envoys. ``addresses`` finds those of a
    name (OSError if it has none).
    """

    credentials: CredentialsOf
    release: Callable[[str, str], Awaitable[None]]
    read_source: Callable[[str, DataSource], bytes]
    material: Latest[int]
    admin_ca: Callable[[], KeyPair | None]
    addresses: Callable[[str], Awaitable[tuple[str, ...]]]


class XdsKeeper:
    """Renders the proxies that are attached.

    ``views`` are the meshes of ``zone`` by name, ``shapers`` the policies. A proxy that cannot be rendered keeps what
    it has; the reason is logged, counted, and told by its feed, as is why anything else of it is not there.
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
        self._is_ending = False
        self._answered: set[str] = set()
        self._proxies: dict[ProxyFeed, Proxy] = {}
        self._new: set[Proxy] = set()
        self._rendered: Mapping[str, MeshView] = {}
        self._rendered_material = 0
        self._admin_ca: KeyPair | None = None
        self._changed_zone_proxies: set[ResourceKey] = set()
        self._zones = ZoneProxies(zone, shapers, outside.read_source, self._hosts.address_of)
        self._turning = Turning()
        self._dataplanes = self._no_dataplanes()
        self._identities = Identities(outside.credentials, self._renewed)
        self._retire_at = math.inf
        self._show_at = math.inf
        self._turn_at = math.inf
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

    async def preview(self, key: ResourceKey, *, shadow: bool) -> list[XdsResource] | None:
        """What a Dataplane that is connected is to have, ``shadow``: if shadow policies were real; None: it is not.

        Without certificates. Clusters that are only kept for proxies that are slow to hear are not among it.

        Raises:
            SchemaError: it cannot be rendered.
        """
        proxy = next((proxy for proxy in self._proxies.values() if proxy.key == key), None)
        view = self._views.value.get(key.mesh)
        dataplane = view.local_dataplanes.get(key.name) if view is not None else None
        located = self._hosts.resolved(dataplane) if dataplane is not None else None
        if proxy is None or view is None or dataplane is None or located is None:
            return None
        ending = self._turning.ending(key.mesh) if proxy.certified else None
        seen = with_shadows(view) if shadow else view
        steps = preview(
            seen, dataplane, located, proxy.abilities, self._shapers, self._no_dataplanes, self._admin_ca, ending
        )
        return await in_steps(steps)

    def _no_dataplanes(self) -> Dataplanes:
        return Dataplanes(self._shapers, self._outside.read_source, self._hosts.address_of, self._turning.is_plain)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Owns a task for each identity and each name that it follows."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._identities.cells.run)
            nursery.start_soon(self._follow, self._views)
            nursery.start_soon(self._follow, self._outside.material)
            nursery.start_soon(self._follow_zone_proxies)
            task_status.started()
            rested_at = -math.inf
            while True:
                with trio.move_on_at(min(self._retire_at, self._show_at, self._turn_at)):
                    await self._wake.wait()
                await trio.sleep_until(rested_at)
                self._wake = trio.Event()
                if self._proxies and not load_schema.cache_info().currsize:
                    await trio.to_thread.run_sync(load_schema)
                self._retire()
                gone = await in_steps(self._round())
                for host in self._hosts.asked.keys() - self._looked_up:
                    if not self._is_ending:
                        self._is_ending = True
                        nursery.start_soon(self._end_look_ups)
                    self._looked_up.add(host)
                    nursery.start_soon(self._look_up, host)
                for mesh, owner in gone:
                    await self._outside.release(mesh, owner)
                rested_at = trio.current_time() + REST_S

    async def _follow(self, cell: Latest[T]) -> None:
        seen = 0
        while True:
            seen, _ = await cell.newer_than(seen)
            self._wake.set()

    async def _look_up(self, host: str) -> None:
        """Find the address of a name out, again and again while it is in use; what was found stays."""
        while host in self._hosts.asked:
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
        self._looked_up.discard(host)
        self._answered.discard(host)
        self._wake.set()

    async def _end_look_ups(self) -> None:
        """Let names go that are in no view any more, as long as any is looked up."""
        seen: tuple[object, frozenset[str]] | None = None
        while self._looked_up:
            await trio.sleep(LOOK_UP_AGAIN_S)
            views = self._views.value
            found = [self._store.get(p.key) for p in self._proxies.values() if p.key.kind != "Dataplane"]
            specs = [cast("ZoneIngress | ZoneEgress", resource.spec) for resource in found if resource is not None]
            addresses = frozenset(spec.networking.address for spec in specs)
            if seen is None or seen[0] is not views or seen[1] != addresses:
                await in_steps(self._hosts.forget(views.values(), addresses))
                seen = (views, addresses)
        self._is_ending = False

    def _renewed(self, proxies: AbstractSet[ResourceKey]) -> None:
        # The listener of an egress has a chain for what it has a certificate for.
        self._changed_zone_proxies |= {key for key in proxies if key.kind != "Dataplane"}
        self._wake.set()

    async def _follow_zone_proxies(self) -> None:
        with self._store.watch(("ZoneIngress", "ZoneEgress")) as feed:
            while True:
                self._changed_zone_proxies |= await feed.take()
                self._wake.set()

    # -- one round

    def _round(self) -> Steps[list[Identity]]:
        """Bring everything to the newest views; returns the identities to be released."""
        views, before = self._views.value, self._rendered
        anything = self._outside.material.version != self._rendered_material
        self._rendered, self._rendered_material = views, self._outside.material.version
        # One that is deleted is followed by another at once: nothing is to be rendered for the moment between.
        self._admin_ca = self._outside.admin_ca() or self._admin_ca
        differences: dict[str, Difference] = {}
        for mesh, view in views.items():
            if anything or before.get(mesh) is not view:
                differences[mesh] = difference(None if anything else before.get(mesh), view)
                yield
        moved, self._moved_hosts = self._moved_hosts, set()
        for mesh, view in views.items() if moved else ():
            differences[mesh] = differences.get(mesh, UNCHANGED).with_moved(view, moved)
            yield
        self._turn(views, differences)
        new, self._new = self._new, set()
        for proxy in list(self._proxies.values()):
            if proxy.feed not in self._proxies:
                continue  # it has gone meanwhile, and must not join a layer any more
            if proxy.key.kind == "Dataplane" and (proxy in new or proxy.key.mesh in differences):
                self._guarded(proxy, partial(self._dataplane, proxy, views.get(proxy.key.mesh)))
                yield
        for mesh, name, why in (yield from self._dataplanes.update(self._proxies.values(), views, differences)):
            self._failures.labels("Dataplane").inc()
            log.error("mesh '%s': %s cannot be rendered and stays as it is: %s", mesh, name, why)
        self._retire_later()
        more = bool(anything or moved or before.keys() - views.keys())
        yield from self._update_zone_proxies(views, differences, more=more)
        self._identities.certify_renewed(self._proxies.values(), self._keeps_certificates, trio.current_time())
        self._turn_at = (
            self._turning.due_at(self._instances(views), trio.current_time()) if self._turning.is_busy else math.inf
        )
        self._show_new(views)
        yield from self._explain(views)
        self._dataplanes.forget_unused(self._proxies.values())
        return self._identities.let_go(self._is_there)

    def _dataplane(self, proxy: Proxy, view: MeshView | None) -> None:
        """The part of a Dataplane that is its own, and which outbounds it shares."""
        dataplane = view.local_dataplanes.get(proxy.key.name) if view is not None else None
        if view is None or dataplane is None:
            self._new.add(proxy)  # it comes with a later view; until then, and if it has gone, what it has stands
            return
        located = self._hosts.resolved(dataplane)
        if located is None:
            self._new.add(proxy)
            proxy.unlocated = tuple(hosts_of(dataplane))
            return
        proxy.unlocated = ()
        ending = self._turning.ending(proxy.key.mesh) if proxy.certified else None
        made_of = (
            *basis(view, dataplane, proxy.abilities, self._admin_ca),
            located is dataplane or located.spec,
            ending,
        )
        if proxy.made_of == made_of:
            return
        uris = uris_of(dataplane)
        if uris:
            self._identities.need(proxy, proxy.key.mesh, proxy.key.name, uris)
        idle: dict[str, str] = {}
        proxy.own.replace(own_resources(view, located, proxy.abilities, self._shapers, idle, self._admin_ca, ending))
        if has_outbounds(view, dataplane):
            self._dataplanes.choose(proxy, view, dataplane)
        proxy.idle, proxy.made_of = idle, made_of

    def _update_zone_proxies(
        self, views: Mapping[str, MeshView], differences: Mapping[str, Difference], *, more: bool
    ) -> Steps[None]:
        """Ingresses and egresses: what they share first, then the listener of each for which something changed.

        ``more``: besides ``differences``, a mesh has gone, a name (maybe one of theirs) stands for another address, or
        all is to be rendered.
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
                self._guarded(proxy, partial(self._zone_proxy, proxy))
                yield

    def _zone_proxy(self, proxy: Proxy) -> None:
        resource = self._store.get(proxy.key)
        if resource is None:
            return  # what it has stands
        proxy.made_of = self._zones.render(proxy, resource, self._identities, self._admin_ca)

    def _retire(self) -> None:
        if trio.current_time() >= self._retire_at:
            self._retire_at = math.inf
            self._dataplanes.retire()
            self._retire_later()

    def _retire_later(self) -> None:
        if self._dataplanes.has_retired:
            self._retire_at = min(self._retire_at, trio.current_time() + RETIRE_S)

    def _layers(self, proxy: Proxy) -> tuple[Layer, ...]:
        if proxy.key.kind != "Dataplane":
            return proxy.own, proxy.secrets, self._zones.layer(proxy.key.kind, proxy.abilities)
        return self._dataplanes.layers(proxy)

    def _show_new(self, views: Mapping[str, MeshView]) -> None:
        """Show to proxies for the first time what they are to have, as soon as all of it is there.

        Also the addresses of names: endpoints at a name that was never looked up are no empty set (promise P5).
        """
        self._show_at = math.inf
        for proxy in self._proxies.values():
            if proxy.feed.ready or proxy.made_of is None:
                continue
            is_whole = self._hosts.asked.keys() <= self._answered and is_certified(proxy, views)
            if is_whole or trio.current_time() >= proxy.shown_by:
                proxy.feed.show(self._layers(proxy))
            else:
                self._show_at = min(self._show_at, proxy.shown_by)

    def _explain(self, views: Mapping[str, MeshView]) -> Steps[None]:
        """Tell of every proxy what of it is not there, and why."""
        for number, proxy in enumerate(list(self._proxies.values())):
            if number % EXPLAINED == EXPLAINED - 1:
                yield
            if proxy.feed not in self._proxies:
                continue
            if proxy.key.kind == "Dataplane":
                shared = self._dataplanes.lacking(proxy)
            else:
                shared = self._zones.shared_by(proxy.key.kind, proxy.abilities).lacking
            unknown = [h for h in proxy.unlocated if h in self._answered and self._hosts.address_of(h) is None]
            waits = proxy.certified != proxy.identities.keys() and not is_certified(proxy, views)
            proxy.feed.explain(proxy.lacking(unknown, waits=waits) + shared)

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

    def _turn(self, views: Mapping[str, MeshView], differences: dict[str, Difference]) -> None:
        """Let what goes later as mTLS is turned on or off be rendered when its time has come."""
        backends = {mesh: cast("Mesh", view.mesh.spec).enabled_backend() for mesh, view in views.items()}
        self._turning.see(backends, trio.current_time())
        if not self._turning.is_busy:
            return
        for mesh, services in self._turning.update(self._instances(views), trio.current_time()).items():
            before = differences.get(mesh, UNCHANGED)
            differences[mesh] = before.with_services(services)

    def _keeps_certificates(self, proxy: Proxy) -> bool:
        return self._turning.ending(proxy.key.mesh) is not None

    def _instances(self, views: Mapping[str, MeshView]) -> Iterator[Instance]:
        for proxy in self._proxies.values():
            view = views.get(proxy.key.mesh)
            dataplane = view.local_dataplanes.get(proxy.key.name) if view is not None else None
            if dataplane is not None and proxy.key.kind == "Dataplane":
                yield Instance(proxy.key.mesh, cast("Dataplane", dataplane.spec).services(), proxy.certified_at)

    def _is_there(self, key: ResourceKey, mesh: str) -> bool:
        view = self._rendered.get(mesh)
        if key.kind != "Dataplane" or view is None:  # a Mesh may come later than its Dataplanes
            return self._store.get(key) is not None
        return key.name in view.local_dataplanes
