"""The parts of a proxy's routes, each from the view of a mesh. Pure: same arguments, same part.

``update.py`` puts them together and makes again what changed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from meshd.ca.identity import egress_owner, egress_uris, identity_uris, service_sni, spiffe_uri
from meshd.ca.origination import inline_source, origination_of
from meshd.kinds.dataplane import Dataplane, Inbound, InboundState, Outbound
from meshd.kinds.external_service import DataSource, ExternalService
from meshd.kinds.mesh import CertificateAuthorityBackend, Mesh, Mode
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.l4.table import (
    ClientTls,
    Cluster,
    ExternalRoute,
    IdentityKey,
    InboundListener,
    OutboundListener,
    PermitFor,
    Timeouts,
    TlsMode,
)
from meshd.model import labels as label
from meshd.model.errors import Violation
from meshd.model.resource import Resource
from meshd.topology.subsets import narrowed
from meshd.topology.view import Endpoint, MeshView, Reach, ServiceView

MULTIPLEXED = frozenset({"http", "http2", "grpc"})
"""Protocols for which Envoy peers speak HTTP/2 to the inbound, whatever the application speaks."""

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is not in any resource.

    ``owns_vips``: this Dataplane listens on the VIPs of its mesh, with ``own_sockets`` each on one of its own.
    ``read_source`` reads a data source of a mesh (ValueError if it cannot). The timeouts are nested: an ingress gives
    up on an instance before the egress gives up on the ingress, and that before the client's outbound does, so that
    the innermost one that has a choice makes it.
    """

    owns_vips: bool = False
    own_sockets: bool = False
    read_source: Callable[[str, DataSource], bytes] = inline_source
    outbound: Timeouts = field(default_factory=Timeouts)
    egress: Timeouts = field(default_factory=lambda: Timeouts(connect_s=0.8, handshake_s=1.0))
    ingress: Timeouts = field(default_factory=lambda: Timeouts(connect_s=0.4, handshake_s=0.7))


def ingress_route(view: MeshView, service: ServiceView, settings: Settings) -> Cluster:
    """What a ZoneIngress does for one service: passes on."""
    return Cluster(view.mesh_name, service.name, service.endpoints, timeouts=settings.ingress, groups=service.groups)


def egress_route(
    view: MeshView, service: ServiceView, name: str, permit_for: PermitFor, settings: Settings
) -> Cluster | ExternalRoute:
    """What a ZoneEgress ``name`` does for one service: passes on, or ends mTLS for an external one of its own zone."""
    mesh = view.mesh_name
    outside = tuple(e for e in service.endpoints if e.reach is Reach.EXTERNAL)
    if not outside:
        return Cluster(mesh, service.name, service.endpoints, timeouts=settings.egress, groups=service.groups)
    tags = external_spec(service).tags if service.external is not None else outside[0].tags
    return ExternalRoute(
        IdentityKey(mesh, egress_owner(name), egress_uris(mesh)),
        permit_for(view, None, tags, ""),
        external_cluster(view, service, outside, settings),
    )


def enabled_backend(view: MeshView) -> CertificateAuthorityBackend | None:
    """The CA in force in a mesh, None without mTLS."""
    spec = view.mesh.spec
    return spec.enabled_backend() if isinstance(spec, Mesh) else None


def external_spec(service: ServiceView) -> ExternalService:
    """The resource behind an external service."""
    spec = service.external.spec if service.external is not None else None
    return spec if isinstance(spec, ExternalService) else ExternalService()


def external_cluster(
    view: MeshView, service: ServiceView, endpoints: tuple[Endpoint, ...], settings: Settings
) -> Cluster:
    """The real addresses of an external service, with TLS originated if it says so; refused if it cannot be."""
    try:
        origination = origination_of(view.mesh_name, external_spec(service), settings.read_source)
    except ValueError as error:
        return Cluster(view.mesh_name, service.name, endpoints, refused=str(error), timeouts=settings.outbound)
    return Cluster(view.mesh_name, service.name, endpoints, origination=origination, timeouts=settings.outbound)


class DataplaneRenderer:
    """Renders the parts of one Dataplane; what ``check`` names is left out."""

    def __init__(
        self, view: MeshView, proxy: Resource, spec: Dataplane, permit_for: PermitFor, settings: Settings
    ) -> None:
        self.refused = check(proxy)
        self._skip = {v.field for v in self.refused}
        self._view = view
        self._proxy = proxy
        self._spec = spec
        self._permit_for = permit_for
        self._settings = settings
        self._backend = enabled_backend(view)
        self._identity = self._identity_key() if self._backend is not None else None

    def inbounds(self) -> tuple[InboundListener, ...]:
        """What listens for other services."""
        return tuple(
            self._inbound(i)
            for at, i in enumerate(self._spec.networking.inbound)
            if f"networking.inbound[{at}]" not in self._skip and i.state is not InboundState.IGNORED
        )

    def outbounds(self) -> tuple[Outbound, ...]:
        """Those of the resource that ``outbound`` is to render."""
        return tuple(
            o for at, o in enumerate(self._spec.networking.outbound) if f"networking.outbound[{at}]" not in self._skip
        )

    def outbound(self, outbound: Outbound) -> OutboundListener:
        """What listens for the local application's connections to one service."""
        narrowing = {k: v for k, v in outbound.tags.items() if k not in (label.SERVICE, label.MESH)}
        cluster = self.destination(outbound.service, narrowing)
        return OutboundListener(outbound.address or LOOPBACK, outbound.port, cluster)

    def _identity_key(self) -> IdentityKey | None:
        networking = self._spec.networking
        tags: dict[str, list[str]] = {}
        for tagged in [i.tags for i in networking.inbound] + ([networking.gateway.tags] if networking.gateway else []):
            for tag, value in tagged.items():
                tags.setdefault(tag, []).append(value)
        if label.SERVICE not in tags:
            return None
        mesh = self._view.mesh_name
        return IdentityKey(mesh, self._proxy.key.name, identity_uris(mesh, tags))

    def _inbound(self, inbound: Inbound) -> InboundListener:
        address = inbound.address or self._spec.networking.address
        if self._backend is None:
            mode, permit = TlsMode.NONE, None
        else:
            mode = TlsMode.PERMISSIVE if self._backend.mode is Mode.PERMISSIVE else TlsMode.STRICT
            permit = self._permit_for(self._view, self._proxy, inbound.tags, inbound.name or str(inbound.port))
        return InboundListener(
            address=address,
            port=inbound.port,
            mesh=self._view.mesh_name,
            service=inbound.service,
            tls=mode,
            identity=self._identity,
            permit=permit,
            application=(inbound.service_address or address, inbound.application_port),
        )

    def destination(self, name: str, narrowing: Mapping[str, str]) -> Cluster:
        """A service as this Dataplane reaches it, of its instances those with the tags of ``narrowing``."""
        mesh, timeouts = self._view.mesh_name, self._settings.outbound
        service = self._view.services.get(name)
        if service is None:
            return Cluster(mesh, name, (), timeouts=timeouts)
        if service.external is not None and all(e.reach is Reach.EXTERNAL for e in service.endpoints):
            chosen = narrowed(service.endpoints, service.groups, narrowing)
            return external_cluster(self._view, service, chosen, self._settings)
        endpoints = narrowed(service.endpoints, service.groups, narrowing)
        if self._backend is None:
            return Cluster(mesh, name, endpoints, timeouts=timeouts)
        if self._identity is None:
            reason = f"Dataplane '{self._proxy.key.name}' has no {label.SERVICE} tag, so no identity; add a gateway tag"
            return Cluster(mesh, name, endpoints, refused=reason, timeouts=timeouts)
        expected = spiffe_uri(mesh, label.ZONE_EGRESS_SERVICE if service.external is not None else name)
        tls = ClientTls(self._identity, service_sni(name, mesh, narrowing), expected)
        return Cluster(mesh, name, endpoints, tls, timeouts=timeouts)


def check(proxy: Resource) -> tuple[Violation, ...]:
    """What of ``proxy`` the built-in engine cannot run, each with the reason; fields as in the resource."""
    if not isinstance(proxy.spec, Dataplane):
        return ()
    networking = proxy.spec.networking
    found: list[Violation] = []
    for at, inbound in enumerate(networking.inbound):
        where = f"networking.inbound[{at}]"
        protocol = (inbound.protocol or inbound.tags.get(label.PROTOCOL, "")).lower()
        if protocol in MULTIPLEXED:
            reason = f"protocol '{protocol}': Envoy peers would send HTTP/2 and the built-in engine carries bytes"
            found.append(Violation(where, f"{reason}; use tcp, or engine: envoy"))
        address = inbound.address or networking.address
        if inbound.port == inbound.application_port and overlap(address, inbound.service_address or address):
            reason = f"it would listen on {address}:{inbound.port}, where its own application does"
            found.append(Violation(where, f"{reason}; give the application another servicePort or serviceAddress"))
    for at, outbound in enumerate(networking.outbound):
        if not outbound.service:
            reason = "no kuma.io/service tag; backendRef is not supported by the built-in engine"
            found.append(Violation(f"networking.outbound[{at}]", reason))
    if networking.gateway is not None and networking.gateway.type.value == "BUILTIN":
        found.append(Violation("networking.gateway", "a builtin gateway needs engine: envoy"))
    if networking.transparent_proxying is not None:
        reason = "the built-in engine takes no redirected traffic; use VIPs (vips: true), or engine: envoy"
        found.append(Violation("networking.transparentProxying", reason))
    if networking.listeners:
        reason = "embedded zone proxies need a ZoneIngress or ZoneEgress resource of their own with this engine"
        found.append(Violation("networking.listeners", reason))
    return tuple(found)


def overlap(listening: str, application: str) -> bool:
    """Whether a socket on ``listening`` and one on ``application`` would want the same port."""
    return listening == application or is_wildcard(listening) or is_wildcard(application)


def is_wildcard(address: str) -> bool:
    """Whether ``address`` stands for all addresses of the host."""
    try:
        return ip_address(address).is_unspecified
    except ValueError:
        return False


def fixed_listeners(proxy: Resource) -> tuple[tuple[str, str, int], ...]:
    """(field, address, port) of every listener that the resource itself asks for, without those that are refused."""
    match proxy.spec:
        case Dataplane() as spec:
            skip = {v.field for v in check(proxy)}
            networking = spec.networking
            found = [
                (f"networking.inbound[{at}]", i.address or networking.address, i.port)
                for at, i in enumerate(networking.inbound)
                if i.state is not InboundState.IGNORED
            ]
            found += [
                (f"networking.outbound[{at}]", o.address or LOOPBACK, o.port)
                for at, o in enumerate(networking.outbound)
            ]
            return tuple(entry for entry in found if entry[0] not in skip)
        case ZoneIngress() | ZoneEgress() as spec:
            return (("networking", spec.networking.address, spec.networking.port),)
        case _:
            return ()
