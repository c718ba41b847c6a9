"""From one rendering of a proxy to the next: a changed service costs its own routes. Pure.

Work is a generator that yields after every route or two, so that ``runtime.steps`` can drive it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from meshd.ca.identity import service_sni
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.l4.render import (
    DataplaneRenderer,
    Settings,
    egress_route,
    enabled_backend,
    external_spec,
    ingress_route,
)
from meshd.l4.table import (
    EMPTY,
    Cluster,
    ExternalRoute,
    OutboundListener,
    PermitFor,
    RouteTable,
    SniListener,
    VipListener,
)
from meshd.model.resource import Resource
from meshd.model.steps import Steps, finished
from meshd.topology.view import MeshView, ServiceView, Vip

T = TypeVar("T")
Place = tuple[int, str]
"""Port and VIP in dotted form."""
Services = Mapping[str, ServiceView]
NO_SERVICES: Services = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Rendering:
    """A table and what it was made of. ``places`` has, for the owner of the VIPs, those that lead to each service."""

    table: RouteTable = EMPTY
    views: Mapping[str, MeshView] = field(default_factory=lambda: MappingProxyType({}))
    proxy: Resource | None = None
    places: Mapping[str, tuple[Place, ...]] = field(default_factory=lambda: MappingProxyType({}))


NOTHING = Rendering()


def render(views: Mapping[str, MeshView], proxy: Resource, permit_for: PermitFor, settings: Settings) -> RouteTable:
    """The routes of ``proxy`` from scratch; ``updating`` gives the same from the differences."""
    return finished(updating(NOTHING, views, proxy, permit_for, settings)).table


def updating(
    previous: Rendering, views: Mapping[str, MeshView], proxy: Resource, permit_for: PermitFor, settings: Settings
) -> Steps[Rendering]:
    """The rendering of ``views``, made from the previous one; a mesh that has no view gives no routes.

    ``previous`` was made with the same ``permit_for`` and ``settings``. What did not change keeps its identity, the
    whole table if nothing did. ``permit_for`` is asked once for each inbound under mTLS, and for each external service
    at an egress; again only when the Mesh or its policies change.
    """
    if previous.proxy is None or not same_proxy(previous.proxy, proxy):
        previous = NOTHING
    match proxy.spec:
        case Dataplane() as spec:
            return (yield from _dataplane(previous, views, proxy, spec, permit_for, settings))
        case ZoneIngress() as spec:
            at = (spec.networking.address, spec.networking.port)

            def passed_on(view: MeshView, service: ServiceView) -> Cluster:
                return ingress_route(view, service, settings)

            return (yield from _sni(previous, views, proxy, at, lambda view: view.ingress_services, passed_on))
        case ZoneEgress() as spec:
            at = (spec.networking.address, spec.networking.port)

            def sent_out(view: MeshView, service: ServiceView) -> Cluster | ExternalRoute:
                return egress_route(view, service, proxy.key.name, permit_for, settings)

            return (yield from _sni(previous, views, proxy, at, _leaving, sent_out))
        case _:
            raise ValueError(f"{proxy.key}: not a proxy")


def same_proxy(one: Resource, other: Resource) -> bool:
    """Whether two versions of a resource ask for the same routes."""
    if one.key != other.key or one.labels != other.labels:
        return False
    match one.spec, other.spec:
        case (ZoneIngress() as a, ZoneIngress() as b):
            return a.networking == b.networking  # what it has to offer moves all the time
        case (ZoneEgress() as c, ZoneEgress() as d):
            return c.networking == d.networking
        case _:
            return one.spec == other.spec


def _leaving(view: MeshView) -> Services:
    return view.egress_services if enabled_backend(view) is not None else NO_SERVICES


def _sni(
    previous: Rendering,
    views: Mapping[str, MeshView],
    proxy: Resource,
    at: tuple[str, int],
    services_of: Callable[[MeshView], Services],
    route_of: Callable[[MeshView, ServiceView], Cluster | ExternalRoute],
) -> Steps[Rendering]:
    """The one listener of an ingress or egress."""
    before = previous.table.sni[0].routes if previous.table.sni else {}
    routes: dict[bytes, Cluster | ExternalRoute] | None = None if previous.table.sni else {}
    for mesh in sorted(previous.views.keys() | views.keys()):
        old, new = previous.views.get(mesh), views.get(mesh)
        if old is new:
            continue
        known = services_of(old) if old is not None else NO_SERVICES
        services = services_of(new) if new is not None else NO_SERVICES
        same_rules = old is not None and new is not None and _same_rules(old, new)
        for name in known.keys() - services.keys():
            routes = dict(before) if routes is None else routes
            routes.pop(service_sni(name, mesh).lower(), None)
        yield
        for name in changed(known, services, same_rules=same_rules):
            if new is None:
                raise AssertionError("unreachable: without a view there is no service")
            sni, route = service_sni(name, mesh).lower(), route_of(new, services[name])
            if before.get(sni) != route:
                routes = dict(before) if routes is None else routes
                routes[sni] = route
            yield
    if routes is None:
        return Rendering(previous.table, views, proxy)
    return Rendering(RouteTable(sni=(SniListener(*at, routes),)), views, proxy)


def _dataplane(
    previous: Rendering,
    views: Mapping[str, MeshView],
    proxy: Resource,
    spec: Dataplane,
    permit_for: PermitFor,
    settings: Settings,
) -> Steps[Rendering]:
    mesh = proxy.key.mesh
    view, old = views.get(mesh), previous.views.get(mesh)
    if view is None:
        return Rendering(EMPTY, views, proxy)
    if view is old:
        return Rendering(previous.table, views, proxy, previous.places)
    if old is None or enabled_backend(old) != enabled_backend(view):
        previous, old = NOTHING, None
    renderer = DataplaneRenderer(view, proxy, spec, permit_for, settings)
    before = previous.table
    inbounds = before.inbounds
    if old is None or not _same_rules(old, view):
        inbounds = _kept(before.inbounds, renderer.inbounds())
        yield
    stale = frozenset(changed(old.services if old is not None else NO_SERVICES, view.services))
    stale |= (old.services.keys() - view.services.keys()) if old is not None else frozenset()
    yield
    outbounds: list[OutboundListener] = []
    for at, outbound in enumerate(renderer.outbounds()):
        if old is not None and outbound.service not in stale:
            outbounds.append(before.outbounds[at])
        else:
            outbounds.append(renderer.outbound(outbound))
            yield
    vips, places = before.vips, previous.places
    if settings.owns_vips:
        vips, places = yield from _vips(previous, old, view, stale, renderer, settings)
    table = RouteTable(inbounds, _kept(before.outbounds, tuple(outbounds)), vips, refused=renderer.refused)
    is_same = table.inbounds is before.inbounds and table.outbounds is before.outbounds and vips is before.vips
    return Rendering(before if is_same and old is not None else table, views, proxy, places)


def _vips(
    previous: Rendering,
    old: MeshView | None,
    view: MeshView,
    stale: frozenset[str],
    renderer: DataplaneRenderer,
    settings: Settings,
) -> Steps[tuple[tuple[VipListener, ...], Mapping[str, tuple[Place, ...]]]]:
    """A listener for each port of a VIP."""
    ports = _Ports(previous.table.vips)
    places = dict(previous.places)
    moved = yield from _move(ports, places, old.vips if old is not None else {}, view.vips)
    for service in sorted((stale | moved) & places.keys()):
        if not places[service]:
            del places[service]
            continue
        cluster = renderer.destination(service, {})
        for place in places[service]:
            ports.set(place, cluster)
        yield
    return ports.listeners(own_sockets=settings.own_sockets), places


def _move(
    ports: "_Ports", places: dict[str, tuple[Place, ...]], before: Mapping[str, Vip], after: Mapping[str, Vip]
) -> Steps[frozenset[str]]:
    """Bring ``places`` up to date; returns the services that have one more or less."""
    if before is after:
        return frozenset()
    moved: set[str] = set()
    for vip in [vip for key, vip in before.items() if after.get(key) is not vip]:
        for port, service in vip.ports.items():
            gone = (port, str(vip.address))
            ports.clear(gone)
            places[service] = tuple(place for place in places[service] if place != gone)
            moved.add(service)
        yield
    for vip in [vip for key, vip in after.items() if before.get(key) is not vip]:
        for port, service in vip.ports.items():
            places[service] = (*places.get(service, ()), (port, str(vip.address)))
            moved.add(service)
        yield
    return frozenset(moved)


class _Ports:
    """The VIP listeners of the next table; one is copied when something changes on it."""

    def __init__(self, listeners: tuple[VipListener, ...]) -> None:
        self._all = listeners
        self._before = {listener.port: listener.clusters for listener in listeners}
        self._copies: dict[int, dict[str, Cluster]] = {}

    def clear(self, place: Place) -> None:
        """Nothing is there any more."""
        self._copy(place[0]).pop(place[1], None)

    def set(self, place: Place, cluster: Cluster) -> None:
        """This is there now."""
        port, address = place
        if self._copies.get(port, self._before.get(port, {})).get(address) != cluster:
            self._copy(port)[address] = cluster

    def listeners(self, *, own_sockets: bool) -> tuple[VipListener, ...]:
        """By port; the very same if nothing changed."""
        if not self._copies:
            return self._all
        found = {listener.port: listener for listener in self._all}
        found |= {port: VipListener(port, clusters, own_sockets) for port, clusters in self._copies.items()}
        return tuple(listener for _, listener in sorted(found.items()) if listener.clusters)

    def _copy(self, port: int) -> dict[str, Cluster]:
        if port not in self._copies:
            self._copies[port] = dict(self._before.get(port, {}))
        return self._copies[port]


def changed(before: Services, after: Services, *, same_rules: bool = True) -> list[str]:
    """The services that have to be rendered again.

    Those that read a Secret or a file always are: these change without the view's knowledge.
    """
    return [
        name
        for name, service in after.items()
        if before.get(name) is not service
        or (service.external is not None and (not same_rules or external_spec(service).networking.tls.enabled))
    ]


def _same_rules(old: MeshView, new: MeshView) -> bool:
    """Whether every permit is as it was."""
    return old.mesh is new.mesh and old.policies is new.policies


def _kept(before: tuple[T, ...], now: tuple[T, ...]) -> tuple[T, ...]:
    return before if before == now else now
