"""HTTP listeners of a proxy for what is beside it: its admin API, metrics, probes, and the configuration of kuma-dp.

Source: Kuma ``pkg/xds/envoy/listeners/v3/static_endpoints_configurer.go`` (behaviour).
"""

from meshd.xds import listeners
from meshd.xds.abilities import Abilities
from meshd.xds.encode import Document

LOOPBACK_RANGES = (("127.0.0.1", 32), ("::1", 128))


def manager(name: str, routes: Document, abilities: Abilities) -> Document:
    """The connection manager of a listener called ``name``; only loopback counts as internal."""
    config = listeners.connection_manager(name, routes, ipv6=abilities.ipv6)
    ranges = LOOPBACK_RANGES if abilities.ipv6 else LOOPBACK_RANGES[:1]
    config["internalAddressConfig"] = {"cidrRanges": [{"addressPrefix": a, "prefixLen": n} for a, n in ranges]}
    return config


def chain(
    name: str,
    routes: list[Document],
    abilities: Abilities,
    match: Document | None = None,
    transport_socket: Document | None = None,
) -> Document:
    """A filter chain that serves these routes, whatever authority is asked for."""
    config = manager(name, listeners.route_configuration("", name, routes), abilities)
    return listeners.chain([listeners.network_filter(config)], match, transport_socket)


def forward(prefix: str, cluster: str, to: str) -> Document:
    """A route that forwards what begins with ``prefix``, which becomes ``to``."""
    route = listeners.route_to(cluster, {"prefix": prefix})
    route["route"]["prefixRewrite"] = to
    return route


def inbound_listener(name: str, address: str, port: int, abilities: Abilities) -> Document:
    """A listener of the proxy's own."""
    document = listeners.listener(name, address, port, "INBOUND")
    document["enableReusePort"] = abilities.reuse_port
    return document
