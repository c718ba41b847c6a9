"""The inbounds of a Dataplane: a listener and the cluster of the application behind it.

Source: reference/dataplane.md 3.5; Kuma ``pkg/xds/generator/inbound_proxy_generator.go`` (behaviour).
"""

from collections.abc import Callable, Iterator
from typing import cast

from meshd.ca.identity import KUMA_ALPN
from meshd.kinds.dataplane import Dataplane, Inbound, InboundState, Networking
from meshd.kinds.mesh import CertificateAuthorityBackend, Mode
from meshd.model import labels as label
from meshd.model.resource import Resource
from meshd.xds import clusters, listeners, names, tls
from meshd.xds.abilities import LOOPBACKS, Abilities
from meshd.xds.encode import Document
from meshd.xds.resources import CLUSTER, LISTENER, XdsResource, resource
from meshd.xds.shaping import HTTP_PROTOCOLS, ChainDraft, InboundDraft

NO_SERVICE_PORT = 49151
"""The port of an inbound that stands for a pod without a service: it is never listened on."""
SOURCE_IPV4, SOURCE_IPV6 = "127.0.0.6", "::6"
"""Where connections to an application that is not on loopback come from, so that they are not redirected again."""
TAGS_HEADER = "x-kuma-tags"

Shape = Callable[[InboundDraft], None]
"""Lets the policies change a draft."""


def protocol_of(inbound: Inbound) -> str:
    """What an inbound says its application speaks, "tcp" if it says nothing that is told apart.

    Kafka is tcp: Kuma adds a filter that counts requests, which Envoy has in its contrib builds only.
    """
    said = (inbound.protocol or inbound.tags.get(label.PROTOCOL, "")).lower()
    return said if said in HTTP_PROTOCOLS else "tcp"


def has_listener(inbound: Inbound) -> bool:
    """Whether the proxy listens for an inbound."""
    return inbound.port != NO_SERVICE_PORT and inbound.state is not InboundState.IGNORED


def inbounds(
    dataplane: Resource, backend: CertificateAuthorityBackend | None, abilities: Abilities, shape: Shape
) -> Iterator[XdsResource]:
    """Listeners and clusters of all inbounds; ``backend`` None: the mesh has no mTLS."""
    spec = cast("Dataplane", dataplane.spec)
    taken: dict[str, Document] = {}
    for inbound in spec.networking.inbound:
        if not has_listener(inbound):
            continue
        draft = draft_of(dataplane, inbound, backend, abilities)
        shape(draft)
        name = draft.cluster["name"]
        if taken.setdefault(name, draft.cluster) is draft.cluster:
            yield resource(CLUSTER, draft.cluster)
        draft.listener["filterChains"] = [finished(chain) for chain in draft.chains]
        yield resource(LISTENER, draft.listener)


def draft_of(
    dataplane: Resource, inbound: Inbound, backend: CertificateAuthorityBackend | None, abilities: Abilities
) -> InboundDraft:
    """One inbound before the policies have their say."""
    networking = cast("Dataplane", dataplane.spec).networking
    address = inbound.address or networking.address
    protocol = protocol_of(inbound)
    name = names.inbound_listener(address, inbound.port)
    listener = listeners.listener(name, address, inbound.port, "INBOUND")
    listener["enableReusePort"] = abilities.reuse_port
    if abilities.is_redirected:
        listener["bindToPort"] = False
    listeners.with_tags(listener, inbound.tags)
    cluster = _application(networking, inbound, protocol, abilities)
    draft = InboundDraft(
        mesh=dataplane.key.mesh,
        dataplane=dataplane,
        inbound=inbound,
        protocol=protocol,
        has_mtls=backend is not None,
        listener=listener,
        cluster=cluster,
    )

    def chain(match: Document | None, *, is_mtls: bool, is_opaque: bool = False) -> ChainDraft:
        socket = tls.inbound(draft.mesh) if is_mtls else None
        made = ChainDraft(listeners.chain([], match, socket), is_mtls)
        if protocol in HTTP_PROTOCOLS and not is_opaque:
            made.hcm = _connection_manager(draft, cluster["name"], abilities)
        else:
            made.tcp = listeners.tcp_proxy(cluster["name"], cluster["name"], clusters.LOCAL_IDLE_TIMEOUT)
        return made

    if backend is None:
        draft.chains.append(chain(None, is_mtls=False))
    elif backend.mode is Mode.PERMISSIVE:
        listener["listenerFilters"] = [listeners.TLS_INSPECTOR]
        of_the_mesh = {"transportProtocol": "tls", "applicationProtocols": [KUMA_ALPN]}
        draft.chains += [
            chain({"transportProtocol": "raw_buffer"}, is_mtls=False),
            # The application's own TLS: no proxy reads requests from it, also not where the protocol is HTTP.
            chain({"transportProtocol": "tls"}, is_mtls=False, is_opaque=True),
            chain(of_the_mesh, is_mtls=True),
        ]
    else:
        draft.chains.append(chain(None, is_mtls=True))
    return draft


def finished(draft: ChainDraft) -> Document:
    """The filter chain with its filters."""
    last = draft.hcm if draft.hcm is not None else draft.tcp
    return {**draft.document, "filters": [*draft.filters, *([listeners.network_filter(last)] if last else [])]}


def _application(networking: Networking, inbound: Inbound, protocol: str, abilities: Abilities) -> Document:
    """The cluster of the application. Kuma names it by its port alone, so a second address on a port needs more."""

    def host_of(other: Inbound) -> str:
        return other.service_address or other.address or networking.address

    host, port = host_of(inbound), inbound.application_port
    first = next(i for i in networking.inbound if has_listener(i) and i.application_port == port)
    name = names.local_cluster(port) if host_of(first) == host else f"localhost:{names.at(host, port)}"
    cluster = clusters.fixed(name, "STATIC", [clusters.at_socket(host, port)], clusters.LOCAL_CONNECT_TIMEOUT)
    if abilities.redirect is not None and host not in LOOPBACKS:
        clusters.bind_from(cluster, SOURCE_IPV6 if ":" in host else SOURCE_IPV4)
    if protocol in HTTP_PROTOCOLS:
        clusters.http_options(cluster)["commonHttpProtocolOptions"] = {"idleTimeout": clusters.LOCAL_IDLE_TIMEOUT}
        clusters.speak(cluster, 1 if protocol == "http" else 2)
    else:
        cluster["outlierDetection"] = clusters.APPLICATION_EJECTION
        cluster["commonLbConfig"] = clusters.APPLICATION_NO_PANIC
    return cluster


def _connection_manager(draft: InboundDraft, cluster: str, abilities: Abilities) -> Document:
    service = draft.inbound.service
    name = names.inbound_routes(service) if service else draft.listener["name"]
    route = listeners.route_to(cluster, {"prefix": "/"}, timeout="0s")
    routes = listeners.route_configuration(name, service or name, [route])
    routes["requestHeadersToRemove"] = [TAGS_HEADER]
    manager = listeners.connection_manager(cluster, routes, ipv6=abilities.ipv6)
    manager["forwardClientCertDetails"] = "SANITIZE_SET"
    manager["setCurrentClientCertDetails"] = {"uri": True}
    manager["commonHttpProtocolOptions"] = {"idleTimeout": clusters.LOCAL_IDLE_TIMEOUT}
    manager["streamIdleTimeout"] = "3600s"
    if draft.protocol == "grpc":
        manager["httpFilters"].insert(0, listeners.GRPC_STATS)
    return manager
