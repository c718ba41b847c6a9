"""What ZoneIngress and ZoneEgress have in common: one listener whose filter chains are chosen by SNI.

Clusters and endpoints are the same for all proxies of a kind in a zone and are kept in one layer for them. A chain is
encoded once and kept as bytes; a listener is the concatenation of its fields, so that a new service costs a new chain
and a joining of bytes, and a changed endpoint one assignment. Clients may narrow a service by tags, which are then part
of the SNI; each such subset has a cluster of its own. (Kuma lets one cluster choose by metadata. Adding a subset then
changes that cluster, which makes Envoy drop the connections in it.)

Source: reference/dataplane.md 3.4, 3.10, 3.11.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from meshd.discovery.fields import bytes_field
from meshd.model.steps import Steps
from meshd.topology.subsets import narrowed
from meshd.topology.view import Endpoint, MeshView, Reach, ServiceView
from meshd.xds import clusters, listeners, names, tls
from meshd.xds.abilities import Abilities
from meshd.xds.encode import PREFIX, Document, SchemaError, encode
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, Layer, XdsResource, of_bytes, resource

Tags = tuple[tuple[str, str], ...]
Subset = tuple[str, Tags]
"""A service, and the sorted tags by which its instances are narrowed; never without tags."""
Services = Mapping[str, ServiceView]

FILTER_CHAIN = PREFIX + "envoy.config.listener.v3.FilterChain"
_CHAINS_FIELD = 3
_BEFORE_CHAINS = ("name", "address")
"""The fields of Listener with a smaller number than ``filter_chains``."""

CONNECT_ATTEMPTS = 3
"""How many endpoints a connection tries. More are not needed: one that fails three times is left alone for a while."""
UNLIMITED: Document = {
    "thresholds": [{"maxConnections": 4294967295, "maxPendingRequests": 4294967295, "maxRequests": 4294967295}]
}
"""Envoy's own limit is 1024 connections to a cluster. Here the clients of a whole zone meet; each has its own limit."""
IDLE_TIMEOUT = "7200s"
"""Longer than an outbound's, so that the ends of a connection decide when it is idle."""
NO_SERVICES: Services = MappingProxyType({})


def subsets_of(pairs: Iterable[Subset]) -> dict[str, tuple[Tags, ...]]:
    """Subsets by service, in order, each once."""
    found: dict[str, set[Tags]] = {}
    for service, tags in pairs:
        if tags:
            found.setdefault(service, set()).add(tags)
    return {service: tuple(sorted(several)) for service, several in found.items()}


@dataclass(frozen=True, slots=True)
class Chain:
    """A filter chain, encoded as a field of Listener. ``ends_mtls``: it shows a certificate of its mesh."""

    mesh: str
    encoded: bytes
    ends_mtls: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the instances of a service, and the subsets, fewest tags first, that are just these.

    ``is_all``: they are all that the service has, for now. No two subsets of a service have the same SNI.
    """

    subsets: tuple[Tags, ...]
    is_all: bool


@dataclass(frozen=True, slots=True)
class Route:
    """Where SNIs lead: the name of a cluster, and what its assignment has (None: the cluster has all in itself)."""

    cluster: str
    endpoints: tuple[Endpoint, ...] | None
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """What a service was rendered from, and its routes by the first of their SNIs.

    ``addresses`` are those of the view's endpoints.
    """

    view: ServiceView
    addresses: tuple[str | None, ...]
    subsets: tuple[Tags, ...]
    routes: Mapping[str, Route]

    def is_of(self, view: ServiceView, addresses: tuple[str | None, ...], subsets: tuple[Tags, ...]) -> bool:
        """Whether it would be rendered from this again."""
        return self.view is view and (self.addresses, self.subsets) == (addresses, subsets)

    @property
    def ends_mtls(self) -> bool:
        """Whether its connections are opened here."""
        return any(route.endpoints is None for route in self.routes.values())


class SniRenderer(ABC):
    """Keeps ``layer``, with clusters and endpoints, and the filter chains, for all proxies of a kind in the zone.

    ``failed`` says, by mesh and service, why one could not be rendered and keeps what it has: a defect of a policy.
    """

    connect_timeout = clusters.DEFAULT_CONNECT_TIMEOUT

    def __init__(self, address_of: clusters.AddressOf) -> None:
        self.layer = Layer()
        self.failed: dict[tuple[str, str], str] = {}
        self._address_of = address_of
        self._chains: dict[str, Chain] = {}
        self._views: dict[str, MeshView] = {}
        self._subsets: dict[str, tuple[Collection[Subset], Mapping[str, tuple[Tags, ...]]]] = {}
        self._served: dict[str, dict[str, Served]] = {}

    def update(
        self,
        views: Mapping[str, MeshView],
        changed: Mapping[str, Collection[str] | None] | None,
        subsets: Mapping[str, Collection[Subset]],
    ) -> Steps[bool]:
        """Have what ``views``, of all meshes by name, have now; returns whether the listeners are to be made again.

        ``changed`` names, by mesh, the services that are not as they were at the last update, or have an endpoint at a
        name that stands for another address now; None: any (of the mesh) may be. What else changed (a mesh that comes
        or goes, its Mesh resource, its policies, subsets, what TLS is made of) is seen. ``subsets`` are all that
        clients of a mesh may ask for; one that no instance agrees with has no endpoint. An update that is not run to
        its end leaves things half done: then the next one needs ``changed`` None.
        """
        moved = False
        for mesh in sorted(self._views.keys() | views.keys()):
            names_changed = changed.get(mesh, ()) if changed is not None else None
            moved |= yield from self._update_mesh(mesh, views.get(mesh), names_changed, subsets.get(mesh, ()))
        return moved

    @abstractmethod
    def services_of(self, view: MeshView) -> Services:
        """What of a mesh is reached through these proxies."""

    def stale(self, mesh: str) -> Collection[str]:
        """Services to render again although nothing in the view says so."""
        del mesh
        return ()

    def also_asked_for(self, service: ServiceView) -> Iterable[Part]:
        """What clients may ask for besides the subsets that are known, each part once."""
        del service
        return ()

    def opened(
        self, view: MeshView, service: ServiceView, match: Document, cluster: str, endpoints: tuple[Endpoint, ...]
    ) -> tuple[Document, Document] | None:
        """Filter chain and cluster of a service whose connections are opened here; None: they are passed on."""
        del view, service, match, cluster, endpoints
        return None

    def forget(self, mesh: str, service: str) -> None:
        """A service is gone."""
        del mesh, service

    def listener_at(self, host: str, port: int, abilities: Abilities, chains: Iterable[Chain]) -> XdsResource | None:
        """The listener of one proxy with these chains, None while the address of ``host`` is not known."""
        address = self._address_of(host)
        if address is None:
            return None
        document = listeners.listener(names.inbound_listener(address, port), address, port, "INBOUND")
        document["enableReusePort"] = abilities.reuse_port
        document["listenerFilters"] = [listeners.TLS_INSPECTOR]
        head = {key: document.pop(key) for key in _BEFORE_CHAINS}
        # Encoded fields joined in the order of their numbers are the encoded message.
        parts = [encode(LISTENER, head), *(chain.encoded for chain in chains), encode(LISTENER, document)]
        return of_bytes(LISTENER, head["name"], b"".join(parts))

    def chains(self) -> list[Chain]:
        """All filter chains, by SNI."""
        return [chain for _, chain in sorted(self._chains.items())]

    def _update_mesh(
        self,
        mesh: str,
        view: MeshView | None,
        changed: Collection[str] | None,
        subsets: Collection[Subset],
    ) -> Steps[bool]:
        old, served = self._views.get(mesh), self._served.setdefault(mesh, {})
        services = self.services_of(view) if view is not None else NO_SERVICES
        given, before = self._subsets.get(mesh, ((), {}))
        wanted = before if given is subsets else subsets_of(subsets)
        stale = set(self.stale(mesh))
        if old is None or view is None or old.mesh is not view.mesh or old.policies is not view.policies:
            stale |= {name for name, item in served.items() if item.ends_mtls}
            changed = None
        if changed is None:
            touched = served.keys() | services.keys()
        else:
            resized = {name for name in wanted.keys() | before.keys() if wanted.get(name) != before.get(name)}
            stale |= set(changed)
            touched = stale | resized
        moved = False
        # First what is gone: a service whose spelling changed has the SNI that it had.
        for name in sorted(touched & served.keys() - services.keys()):
            moved |= self._replace(mesh, name, None)
            self.failed.pop((mesh, name), None)
            yield
        for name in sorted(touched & services.keys()):
            service, tags, known = services[name], wanted.get(name, ()), served.get(name)
            if view is None:
                raise AssertionError("unreachable: without a view there is no service")
            # Names outside the mesh are for Envoy to look up.
            inside = (e for e in service.endpoints if e.reach is not Reach.EXTERNAL)
            addresses = tuple(self._address_of(endpoint.address) for endpoint in inside)
            if name in stale or known is None or not known.is_of(service, addresses, tags):
                try:
                    moved |= self._serve(view, service, addresses, tags)
                    self.failed.pop((mesh, name), None)
                except SchemaError as error:
                    # What it had stands, and is tried again when it changes.
                    self.failed[mesh, name] = str(error)
            yield
        self._subsets[mesh] = (subsets, wanted)
        if view is not None:
            self._views[mesh] = view
        else:
            for kept in (self._views, self._served, self._subsets):
                kept.pop(mesh, None)
        return moved

    def _serve(
        self, view: MeshView, service: ServiceView, addresses: tuple[str | None, ...], subsets: tuple[Tags, ...]
    ) -> bool:
        """Render one service; returns whether a chain changed."""
        mesh = view.mesh_name
        known = self._served[mesh].get(service.name)
        routes: dict[str, Route] = {}
        chains: dict[str, Chain] = {}
        made: list[XdsResource] = []
        routes_before = known.routes if known is not None else {}
        passing_before = {route.cluster for route in routes_before.values() if route.endpoints is not None}

        def passed_on(snis: tuple[str, ...], name: str, endpoints: tuple[Endpoint, ...]) -> None:
            before = routes_before.get(snis[0])
            is_first = all(route.cluster != name for route in routes.values())
            routes[snis[0]] = Route(name, endpoints, snis)
            if before is None or before.endpoints is None or (before.cluster, before.names) != (name, snis):
                chains[snis[0]] = chain_of(mesh, _passing_chain(name, _match(snis)))
            if is_first:
                if name not in passing_before:
                    made.append(resource(CLUSTER, self._passing_cluster(name)))
                assigned = clusters.assignment(name, endpoints, {"mesh": mesh}, self._address_of)
                made.append(resource(ENDPOINTS, assigned))

        for tags in ((), *subsets):
            sni = _sni(service.name, mesh, tags)
            if sni in routes:
                continue
            name = names.mesh_cluster(mesh, service.name, tags)
            endpoints = narrowed(service.endpoints, service.groups, dict(tags), any_case=True)
            opened = self.opened(view, service, _match([sni]), name, endpoints)
            if opened is not None:
                routes[sni] = Route(name, None, (sni,))
                chain, document = opened
                made.append(resource(CLUSTER, document))
                chains[sni] = chain_of(mesh, chain, ends_mtls=True)
            else:
                passed_on((sni,), name, endpoints)
        taken = set(routes)
        for part in self.also_asked_for(service):
            snis = tuple(sni for tags in part.subsets if (sni := _sni(service.name, mesh, tags)) not in taken)
            if snis:
                first = part.subsets[0]
                name = names.mesh_cluster(mesh, service.name, () if part.is_all else first)
                passed_on(snis, name, narrowed(service.endpoints, service.groups, dict(first), any_case=True))
        self.layer.put(made)
        moved = any(self._chains.get(sni) != chain for sni, chain in chains.items())
        self._chains |= chains
        return moved | self._replace(mesh, service.name, Served(service, addresses, subsets, routes))

    def _replace(self, mesh: str, name: str, now: Served | None) -> bool:
        """Take note of what a service has, and away what it had; returns whether a chain went with it."""
        served = self._served[mesh]
        before = served.pop(name, None)
        if now is not None:
            served[name] = now
        else:
            self.forget(mesh, name)
        routes = now.routes if now is not None else {}
        names_now = {route.cluster for route in routes.values()}
        with_endpoints = {route.cluster for route in routes.values() if route.endpoints is not None}
        moved = False
        for sni, route in before.routes.items() if before is not None else ():
            if sni not in routes:
                moved |= self._chains.pop(sni, None) is not None
            if route.cluster not in names_now:
                self.layer.remove(CLUSTER, [route.cluster])
            if route.cluster not in with_endpoints:
                self.layer.remove(ENDPOINTS, [route.cluster])
        return moved

    def _passing_cluster(self, name: str) -> Document:
        document = clusters.eds(name, self.connect_timeout)
        document["circuitBreakers"] = UNLIMITED
        document["outlierDetection"] = clusters.PASSIVE_EJECTION_TCP
        document["commonLbConfig"] = clusters.NO_PANIC
        document["upstreamConnectionOptions"] = clusters.TCP_KEEPALIVE
        return document


def chain_of(mesh: str, document: Document, *, ends_mtls: bool = False) -> Chain:
    """A filter chain encoded."""
    return Chain(mesh, bytes_field(_CHAINS_FIELD, encode(FILTER_CHAIN, document)), ends_mtls)


def _sni(service: str, mesh: str, tags: Tags) -> str:
    # Envoy compares in lower case, and refuses a listener with two chains that are equal in it.
    return tls.sni_of(service, mesh, dict(tags)).lower()


def _match(snis: Sequence[str]) -> Document:
    return {"transportProtocol": "tls", "serverNames": list(snis)}


def _passing_chain(cluster: str, match: Document) -> Document:
    proxy = listeners.tcp_proxy(cluster, cluster, IDLE_TIMEOUT)
    listeners.try_again(proxy, CONNECT_ATTEMPTS)
    return listeners.chain([listeners.network_filter(proxy)], match)
