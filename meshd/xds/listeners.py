"""Listeners, filter chains and their filters, piece by piece.

Source: reference/dataplane.md 3.1, 3.5; Kuma ``pkg/xds/envoy/listeners`` (behaviour).
"""

from collections.abc import Iterable, Mapping, Sequence

from meshd.xds.clusters import socket_address
from meshd.xds.encode import PREFIX, Document
from meshd.xds.names import stat_name

_NETWORK = "envoy.filters.network."
_EXTENSIONS = PREFIX + "envoy.extensions.filters."
IPV4_INTERNAL = (("127.0.0.1", 32), ("10.0.0.0", 8), ("192.168.0.0", 16), ("172.16.0.0", 12))
IPV6_INTERNAL = (("::1", 128), ("fc00::", 7), ("fd00::", 8))

TLS_INSPECTOR: Document = {
    "name": "envoy.filters.listener.tls_inspector",
    "typedConfig": {"@type": _EXTENSIONS + "listener.tls_inspector.v3.TlsInspector"},
}


def listener(name: str, address: str, port: int, direction: str) -> Document:
    """A TCP listener with no filter chain yet; ``direction`` is INBOUND or OUTBOUND."""
    return {"name": name, "address": socket_address(address, port), "trafficDirection": direction}


def with_tags(document: Document, tags: Mapping[str, str]) -> None:
    """Note in a listener whose it is."""
    if tags:
        document["metadata"] = {"filterMetadata": {"io.kuma.tags": dict(tags)}}


def chain(
    filters: Iterable[Document], match: Document | None = None, transport_socket: Document | None = None
) -> Document:
    """A filter chain."""
    document: Document = {"filters": list(filters)}
    if match:
        document["filterChainMatch"] = match
    if transport_socket:
        document["transportSocket"] = transport_socket
    return document


def tcp_proxy(stat: str, cluster: str, idle_timeout: str = "") -> Document:
    """The configuration of a TCP proxy."""
    document: Document = {"@type": _EXTENSIONS + "network.tcp_proxy.v3.TcpProxy", "statPrefix": stat_name(stat)}
    document["cluster"] = cluster
    if idle_timeout:
        document["idleTimeout"] = idle_timeout
    return document


def try_again(document: Document, attempts: int) -> None:
    """Let a TCP proxy try so many endpoints.

    Not at once: that the last one is left alone must reach the worker first, or the next attempt goes there too.
    """
    document["maxConnectAttempts"] = attempts
    if attempts > 1:
        document["backoffOptions"] = {"baseInterval": "0.025s", "maxInterval": "0.1s"}


def weighted_tcp_proxy(stat: str, clusters: Sequence[tuple[str, int]]) -> Document:
    """A TCP proxy that shares its connections among clusters by weight."""
    if len(clusters) == 1:
        return tcp_proxy(stat, clusters[0][0])
    document = tcp_proxy(stat, "")
    del document["cluster"]
    document["weightedClusters"] = {"clusters": [{"name": name, "weight": weight} for name, weight in clusters]}
    return document


def connection_manager(stat: str, routes: Document, *, ipv6: bool) -> Document:
    """The configuration of an HTTP connection manager with a router and its routes inline."""
    internal = (*IPV4_INTERNAL, *(IPV6_INTERNAL if ipv6 else ()))
    return {
        "@type": _EXTENSIONS + "network.http_connection_manager.v3.HttpConnectionManager",
        "statPrefix": stat_name(stat),
        "internalAddressConfig": {"cidrRanges": [{"addressPrefix": a, "prefixLen": n} for a, n in internal]},
        "routeConfig": routes,
        "httpFilters": [http_filter("router", "router.v3.Router")],
    }


def http_filter(name: str, message: str, config: Document | None = None) -> Document:
    """An HTTP filter of Envoy's own: ``router``, ``router.v3.Router``."""
    return {
        "name": f"envoy.filters.http.{name}",
        "typedConfig": {"@type": f"{_EXTENSIONS}http.{message}", **(config or {})},
    }


GRPC_STATS = http_filter("grpc_stats", "grpc_stats.v3.FilterConfig", {"emitFilterState": True})


def network_filter(config: Document) -> Document:
    """A network filter around its configuration."""
    message = str(config["@type"])
    name = {
        "HttpConnectionManager": "http_connection_manager",
        "TcpProxy": "tcp_proxy",
        "RBAC": "rbac",
        "Config": "direct_response",
    }[message.rpartition(".")[2]]
    return {"name": _NETWORK + name, "typedConfig": config}


def virtual_host(name: str, routes: list[Document]) -> Document:
    """A virtual host for every authority."""
    return {"name": name, "domains": ["*"], "routes": routes}


def route_configuration(name: str, host: str, routes: list[Document]) -> Document:
    """Routes in one virtual host; a cluster that is named need not be there yet."""
    document: Document = {"validateClusters": False, "virtualHosts": [virtual_host(host, routes)]}
    if name:
        document["name"] = name
    return document


def route_to(cluster: str, match: Document, timeout: str = "") -> Document:
    """A route to one cluster."""
    action: Document = {"cluster": cluster}
    if timeout:
        action["timeout"] = timeout
    return {"match": match, "route": action}
