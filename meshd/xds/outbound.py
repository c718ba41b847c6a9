"""What leads from a Dataplane to services: listeners, and the clusters that they share. Pure functions of a view.

Source: reference/dataplane.md 3.5, 3.6; Kuma ``pkg/plugins/policies/meshhttproute/plugin`` and ``meshtcproute``
(behaviour). All traffic of a service goes through one cluster (or one for each set of tags that a route names), so
a thousand proxies to which the same policies apply share every byte.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from meshd.kinds.external_service import DataSource
from meshd.kinds.mesh import Mesh
from meshd.model import labels as label
from meshd.topology.subsets import narrowed
from meshd.topology.view import MeshView, Reach, ServiceView
from meshd.xds import clusters, listeners, names, tls
from meshd.xds.encode import Document
from meshd.xds.external import external_cluster, outside_of
from meshd.xds.matched import Matched
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, XdsResource, resource
from meshd.xds.shaping import Backend, ClusterDraft, Destination, HttpRoute, OutboundDraft, RouteDraft

Tags = tuple[tuple[str, str], ...]
ClusterKey = tuple[str, Tags]
"""A service, and the tags of those of its instances that are meant."""

MATCH_ALL_ROUTE = "9Zuf5Tg79OuZcQITwBbQykxAk2u4fRKrwYn3//AL4Yo="
"""What Kuma calls the route that takes all requests: its hash of that match."""
NO_BACKEND = 500
"""The answer of a route that leads nowhere (Gateway API, HTTPRouteRule.backendRefs)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One outbound: where it listens and what it leads to, of which instances."""

    address: str
    port: int
    service: str
    tags: Tags = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """What outbounds depend on of a proxy: ``binds``, that they take connections from a socket of their own.

    ``is_plain`` (mesh, service) tells where TLS is not begun yet (``turning``).
    """

    binds: bool
    ipv6: bool
    read_source: Callable[[str, DataSource], bytes]
    address_of: clusters.AddressOf = clusters.literal
    system_ca: str = ""
    is_plain: Callable[[str, str], bool] = lambda _mesh, _service: False


class Protocols(Mapping[str, str]):
    """The protocol of every service of a view, looked up when asked."""

    def __init__(self, services: Mapping[str, ServiceView]) -> None:
        self._services = services

    def __getitem__(self, service: str) -> str:
        """The protocol of one service."""
        return self._services[service].protocol

    def __iter__(self) -> Iterator[str]:
        """The services."""
        return iter(self._services)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._services)


def destination_of(view: MeshView, service: str, tags: Tags = ()) -> Destination:
    """What an outbound leads to; a service that nobody offers speaks tcp."""
    found = view.services.get(service)
    protocol = found.protocol if found is not None else "tcp"
    return Destination(view.mesh_name, service, protocol, found is not None and found.external is not None, tags)


def leaves_here(service: ServiceView | None) -> bool:
    """Whether it is an external service that proxies go to by themselves, without an egress."""
    return (
        service is not None
        and service.external is not None
        and all(endpoint.reach is Reach.EXTERNAL for endpoint in service.endpoints)
    )


def outbound(
    view: MeshView, wanted: Wanted, matched: Matched, settings: Settings
) -> tuple[XdsResource, frozenset[ClusterKey]]:
    """The listener of one outbound, and the clusters that it needs."""
    destination = destination_of(view, wanted.service, wanted.tags)
    routes = matched.routes(destination, Protocols(view.services))
    name = names.outbound_listener(wanted.address, wanted.port)
    listener = listeners.listener(name, wanted.address, wanted.port, "OUTBOUND")
    if not settings.binds:
        listener["bindToPort"] = False
    listeners.with_tags(listener, {label.SERVICE: wanted.service, **dict(wanted.tags)})
    draft = OutboundDraft(destination, listener)
    own = Backend(wanted.service, 1, wanted.tags)
    needed: set[ClusterKey] = set()
    # As Kuma has it, a TCP route to a service that speaks HTTP is in force unless an HTTP route is.
    if destination.speaks_http and (routes.http is not None or routes.tcp is None):
        http = routes.http if routes.http is not None else (HttpRoute(MATCH_ALL_ROUTE, {"prefix": "/"}, (own,)),)
        for route in http:
            draft.routes.append(RouteDraft(_route(view, route), route.origins))
            needed |= {(b.service, b.tags) for b in (*route.backends, *route.mirrors)}
        host = listeners.route_configuration(names.outbound_routes(wanted.service), wanted.service, [])
        draft.hcm = listeners.connection_manager(wanted.service, host, ipv6=settings.ipv6)
        draft.hcm["normalizePath"] = True
        if destination.protocol == "grpc":
            draft.hcm["httpFilters"].insert(0, listeners.GRPC_STATS)
    else:
        backends = routes.tcp if routes.tcp is not None else (own,)
        shares = [(names.service_cluster(b.service, b.tags), b.weight) for b in backends if b.weight]
        needed |= {(b.service, b.tags) for b in backends}
        draft.tcp = listeners.weighted_tcp_proxy(wanted.service, shares or [(names.NOWHERE, 1)])
    matched.outbound(draft)
    if draft.hcm is not None:
        draft.hcm["routeConfig"]["virtualHosts"][0]["routes"] = [route.document for route in draft.routes]
    config = cast("Document", draft.hcm if draft.hcm is not None else draft.tcp)
    listener["filterChains"] = [listeners.chain([listeners.network_filter(config)])]
    return resource(LISTENER, listener), frozenset(needed)


def _route(view: MeshView, route: HttpRoute) -> Document:
    document: Document = {"name": route.name, "match": route.match, **route.action}
    if "redirect" in document or "directResponse" in document:
        return document
    backends = [b for b in route.backends if b.weight]
    if not backends:
        document.pop("route", None)
        document["directResponse"] = {"status": NO_BACKEND}
        return document
    action: Document = {**document.get("route", {}), "timeout": document.get("route", {}).get("timeout", "0s")}
    outside = [leaves_here(view.services.get(b.service)) for b in backends]
    if len(backends) == 1:
        action["cluster"] = names.service_cluster(backends[0].service, backends[0].tags)
    else:
        action["weightedClusters"] = {
            "clusters": [{"name": names.service_cluster(b.service, b.tags), "weight": b.weight} for b in backends]
        }
    rewrites = any(key.startswith(("hostRewrite", "autoHostRewrite")) for key in action)
    if any(outside) and not rewrites:
        # The authority that a client of the mesh asks for is not the one that the outside knows.
        action["autoHostRewrite"] = True
    if route.mirrors:
        policies = action.get("requestMirrorPolicies", [{} for _ in route.mirrors])
        action["requestMirrorPolicies"] = [
            {**policy, "cluster": names.service_cluster(b.service, b.tags)}
            for policy, b in zip(policies, route.mirrors, strict=True)
        ]
    document["route"] = action
    return document


def outbound_cluster(view: MeshView, key: ClusterKey, matched: Matched, settings: Settings) -> Iterator[XdsResource]:
    """The cluster of a service (or of some of its instances), and its endpoints unless it has them in itself."""
    service, tags = key
    found = view.services.get(service)
    destination = destination_of(view, service, tags)
    name = names.service_cluster(service, tags)
    endpoints = narrowed(found.endpoints, found.groups, dict(tags)) if found is not None else ()
    if found is not None and leaves_here(found):
        outside = outside_of(view.mesh_name, found, settings.read_source, settings.system_ca)
        document = external_cluster(name, found, endpoints, outside, ipv6=settings.ipv6)
    else:
        document = clusters.eds(name)
        is_http = destination.speaks_http
        document["outlierDetection"] = clusters.PASSIVE_EJECTION if is_http else clusters.PASSIVE_EJECTION_TCP
        document["commonLbConfig"] = clusters.NO_PANIC
        document["upstreamConnectionOptions"] = clusters.TCP_KEEPALIVE
        if not destination.is_external and settings.is_plain(view.mesh_name, service):
            # Other zones take nothing but TLS.
            endpoints = tuple(e for e in endpoints if e.reach is Reach.INSTANCE)
        elif cast("Mesh", view.mesh.spec).enabled_backend() is not None:
            shown = label.ZONE_EGRESS_SERVICE if destination.is_external else service
            document["transportSocket"] = tls.outbound(
                view.mesh_name, shown, tls.sni_of(service, view.mesh_name, dict(tags))
            )
        if destination.speaks_http:
            # Inbounds speak either to their application; what is outside speaks what its resource says.
            if destination.is_external and destination.protocol == "http":
                clusters.speak(document, 1)
            else:
                clusters.multiplex(document)
    matched.cluster(ClusterDraft(destination, document))
    yield resource(CLUSTER, document)
    if document["type"] == "EDS":
        yield resource(ENDPOINTS, clusters.assignment(name, endpoints, address_of=settings.address_of))
