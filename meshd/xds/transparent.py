"""What takes the connections that a host redirects to its proxy, and lets through those that are not of the mesh.

Source: reference/dataplane.md 3.6; Kuma ``pkg/xds/generator/transparent_proxy_generator.go``,
``direct_access_proxy_generator.go`` (behaviour).
"""

from collections.abc import Iterator
from typing import cast

from meshd.kinds.dataplane import Dataplane
from meshd.kinds.mesh import Mesh, Mode
from meshd.model.resource import Resource
from meshd.topology.view import MeshView
from meshd.xds import clusters, listeners, names, tls
from meshd.xds.abilities import Abilities
from meshd.xds.encode import Document
from meshd.xds.inbound import NO_SERVICE_PORT, SOURCE_IPV4, SOURCE_IPV6, has_listener
from meshd.xds.resources import CLUSTER, LISTENER, XdsResource, resource

FAMILIES = (("ipv4", "0.0.0.0", SOURCE_IPV4), ("ipv6", "::", SOURCE_IPV6))  # noqa: S104  # the redirected addresses
"""Name, the address of all, and where connections to the application come from."""


def passthrough(mesh: Mesh, dataplane: Resource, abilities: Abilities) -> Iterator[XdsResource]:
    """The listeners that get all redirected connections, and where those go that no other listener is for.

    Out of the proxy they go to where the client wanted, unless the mesh forbids it
    (``networking.outbound.passthrough``): then the listener leads to a cluster that does not exist, by which Envoy
    closes the connection at once.
    """
    redirect = abilities.redirect
    if redirect is None or not abilities.is_redirected:
        return
    yield resource(
        CLUSTER, clusters.fixed(names.NO_DESTINATION_INBOUND, "STATIC", [], clusters.DEFAULT_CONNECT_TIMEOUT)
    )
    for family, everywhere, source in FAMILIES if redirect.ipv6 else FAMILIES[:1]:
        if redirect.outbound_port:
            name = names.passthrough("outbound", family)
            if mesh.networking.outbound.passthrough is not False:
                yield resource(CLUSTER, _original_destination(name))
            listener = listeners.listener(name, everywhere, redirect.outbound_port, "OUTBOUND")
            listener["useOriginalDst"] = True
            listener["filterChains"] = [_chain(name, name)]
            yield resource(LISTENER, listener)
        if redirect.inbound_port:
            name = names.passthrough("inbound", family)
            cluster = _original_destination(name)
            clusters.bind_from(cluster, source)
            yield resource(CLUSTER, cluster)
            listener = listeners.listener(name, everywhere, redirect.inbound_port, "INBOUND")
            listener["enableReusePort"] = abilities.reuse_port
            listener["useOriginalDst"] = True
            listener["filterChains"] = _inbound_chains(name, mesh, dataplane, abilities)
            yield resource(LISTENER, listener)


def _inbound_chains(name: str, mesh: Mesh, dataplane: Resource, abilities: Abilities) -> list[Document]:
    """Where to with connections that no inbound's listener takes; with strict ports only to those of inbounds.

    Envoy closes a connection for which there is no chain.
    """
    backend = mesh.enabled_backend()
    inbounds = cast("Dataplane", dataplane.spec).networking.inbound
    is_strict = abilities.strict_inbound_ports and backend is not None and backend.mode is Mode.STRICT
    if not is_strict or not inbounds:
        return [_chain(name, name)]
    return [
        _chain(name, names.NO_DESTINATION_INBOUND if port == NO_SERVICE_PORT else name, {"destinationPort": port})
        for port in dict.fromkeys(inbound.port for inbound in inbounds)
    ]


def _chain(name: str, cluster: str, match: Document | None = None) -> Document:
    return listeners.chain([listeners.network_filter(listeners.tcp_proxy(name, cluster))], match)


def _original_destination(name: str) -> Document:
    """A cluster that connects to where the client wanted to."""
    document = clusters.cluster(name, "ORIGINAL_DST", clusters.DEFAULT_CONNECT_TIMEOUT)
    document["lbPolicy"] = "CLUSTER_PROVIDED"
    return document


def direct_access(view: MeshView, dataplane: Resource, abilities: Abilities) -> Iterator[XdsResource]:
    """A way with mesh mTLS to single instances of this zone, by their own addresses.

    Without it, a client that connects to an instance and not to its service goes through the passthrough, in
    plaintext. A Dataplane asks for it by ``transparentProxying.directAccessServices``, "*" for all services: every
    instance costs a listener.
    """
    said = cast("Dataplane", dataplane.spec).networking.transparent_proxying
    wanted = frozenset(said.direct_access_services) if said is not None else frozenset()
    if not wanted or not abilities.is_redirected:
        return
    cluster = _original_destination(names.DIRECT_ACCESS)
    if cast("Mesh", view.mesh.spec).enabled_backend() is not None:
        cluster["transportSocket"] = tls.outbound_to_any(view.mesh_name)
    yield resource(CLUSTER, cluster)
    for address, port in sorted(_instances(view, dataplane, wanted)):
        name = f"{names.DIRECT_ACCESS}_{address}:{port}"
        listener = listeners.listener(name, address, port, "OUTBOUND")
        listener["bindToPort"] = False
        listener["filterChains"] = [_chain(name, names.DIRECT_ACCESS)]
        yield resource(LISTENER, listener)


def _instances(view: MeshView, dataplane: Resource, wanted: frozenset[str]) -> set[tuple[str, int]]:
    """Addresses and ports of the inbounds of these services, but for those of ``dataplane`` itself."""
    found: set[tuple[str, int]] = set()
    for name, other in view.local_dataplanes.items():
        networking = cast("Dataplane", other.spec).networking
        for inbound in networking.inbound if name != dataplane.key.name else ():
            address = inbound.address or networking.address
            is_wanted = "*" in wanted or inbound.service in wanted
            if is_wanted and has_listener(inbound) and clusters.is_ip(address):
                found.add((address, inbound.port))
    return found
