"""The ZoneEgresses of a zone: mesh TLS passed on to other zones' ingresses by SNI, and the way to external services.

For an external service that leaves here the egress ends mTLS as ``zone-egress`` of the mesh, asks the policies, and
connects to the real address. A mesh without mTLS has nothing here.

Source: reference/dataplane.md 3.11; Kuma ``pkg/xds/generator/egress`` (behaviour). Difference: ``x-kuma-tags`` does
not leave the mesh.
"""

from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from typing import cast

from meshd.kinds.dataplane import Inbound
from meshd.kinds.mesh import Mesh
from meshd.kinds.zone_egress import ZoneEgress
from meshd.model.resource import Resource
from meshd.topology.view import Endpoint, MeshView, Reach, ServiceView
from meshd.xds import external, listeners, names, tls
from meshd.xds.abilities import Abilities
from meshd.xds.clusters import AddressOf, literal
from meshd.xds.encode import Document
from meshd.xds.inbound import TAGS_HEADER, finished
from meshd.xds.resources import XdsResource
from meshd.xds.shaping import HTTP_PROTOCOLS, ChainDraft, InboundDraft
from meshd.xds.sni import CONNECT_ATTEMPTS, IDLE_TIMEOUT, NO_SERVICES, UNLIMITED, Services, SniRenderer

Shape = Callable[[MeshView, InboundDraft], None]
"""Lets those policies of a mesh that match the tags of an external service (``match.of_tags``) change its draft."""


class EgressRenderer(SniRenderer):
    """What all ZoneEgresses of the zone with the same ``ipv6`` and ``system_ca`` share, and the listener of each.

    ``refused`` says, by mesh and service, why an external service cannot be connected to.
    """

    connect_timeout = "2s"

    def __init__(
        self,
        shape: Shape,
        read_source: external.ReadSource,
        address_of: AddressOf = literal,
        *,
        ipv6: bool,
        system_ca: str,
    ) -> None:
        super().__init__(address_of)
        self._shape = shape
        self._read = read_source
        self._ipv6 = ipv6
        self._system_ca = system_ca
        self._outside: dict[str, dict[str, tuple[ServiceView, external.Outside]]] = {}

    @property
    def refused(self) -> Mapping[tuple[str, str], str]:
        """See the class."""
        return {
            (mesh, name): outside.refused
            for mesh, services in self._outside.items()
            for name, (_, outside) in services.items()
            if outside.refused
        }

    @property
    def secret_meshes(self) -> frozenset[str]:
        """The meshes in which an egress needs a certificate: those with an external service that leaves here."""
        return frozenset(mesh for mesh, services in self._outside.items() if services)

    def services_of(self, view: MeshView) -> Services:
        """See ``SniRenderer``."""
        return view.egress_services if cast("Mesh", view.mesh.spec).enabled_backend() is not None else NO_SERVICES

    def stale(self, mesh: str) -> Collection[str]:
        """Secrets and files that TLS is made of change without the view's knowledge."""
        return [
            name
            for name, (service, outside) in self._outside.get(mesh, {}).items()
            if outside != external.outside_of(mesh, service, self._read, self._system_ca)
        ]

    def forget(self, mesh: str, service: str) -> None:
        """See ``SniRenderer``."""
        self._outside.get(mesh, {}).pop(service, None)

    def listener(self, proxy: Resource, abilities: Abilities, certified: Collection[str]) -> XdsResource | None:
        """The listener of one egress, None if it has no chain, or listens at a name that is not known yet.

        ``certified`` are the meshes in which it has a certificate. Chains that need another are left out until it is
        there: a listener waits for all its secrets, and one mesh must not keep the others waiting.
        """
        networking = cast("ZoneEgress", proxy.spec).networking
        chains = [chain for chain in self.chains() if not chain.ends_mtls or chain.mesh in certified]
        return self.listener_at(networking.address, networking.port, abilities, chains) if chains else None

    def opened(
        self, view: MeshView, service: ServiceView, match: Document, cluster: str, endpoints: tuple[Endpoint, ...]
    ) -> tuple[Document, Document] | None:
        """See ``SniRenderer``."""
        mesh = view.mesh_name
        # Of an external service that is tagged with another zone the endpoints are that zone's ingresses.
        if all(endpoint.reach is not Reach.EXTERNAL for endpoint in service.endpoints):
            self.forget(mesh, service.name)
            return None
        outside = external.outside_of(mesh, service, self._read, self._system_ca)
        self._outside.setdefault(mesh, {})[service.name] = (service, outside)
        document = external.external_cluster(cluster, service, endpoints, outside, ipv6=self._ipv6)
        document["circuitBreakers"] = deepcopy(UNLIMITED)
        chain = listeners.chain([], match, tls.inbound(mesh))
        chain["name"] = names.egress_chain(service.name, mesh)
        drafted = ChainDraft(chain, is_mtls=True)
        if service.protocol in HTTP_PROTOCOLS:
            drafted.hcm = self._connection_manager(service.name, cluster)
        else:
            drafted.tcp = listeners.tcp_proxy(service.name, cluster, IDLE_TIMEOUT)
            listeners.try_again(drafted.tcp, CONNECT_ATTEMPTS)
        draft = InboundDraft(
            mesh=mesh,
            dataplane=None,
            inbound=Inbound(tags=external.spec_of(service).tags),
            protocol=service.protocol,
            has_mtls=True,
            # Policies name statistics after the listener. Kuma's count all services of an egress as one.
            listener={"name": service.name},
            cluster=document,
            chains=[drafted],
        )
        self._shape(view, draft)
        return finished(drafted), draft.cluster

    def _connection_manager(self, service: str, cluster: str) -> Document:
        route = listeners.route_to(cluster, {"prefix": "/"}, timeout="0s")
        route["route"]["autoHostRewrite"] = True
        routes = listeners.route_configuration(names.outbound_routes(service), service, [route])
        routes["requestHeadersToRemove"] = [TAGS_HEADER]
        manager = listeners.connection_manager(service, routes, ipv6=self._ipv6)
        manager["commonHttpProtocolOptions"] = {"idleTimeout": IDLE_TIMEOUT}
        manager["streamIdleTimeout"] = "3600s"
        return manager
