"""Clusters and endpoints, piece by piece.

Source: reference/dataplane.md 3.1, 3.5, 3.8; Kuma ``pkg/xds/envoy/clusters``, ``pkg/xds/envoy/endpoints`` (behaviour).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from meshd.model import labels as label
from meshd.topology.view import Endpoint
from meshd.xds.encode import PREFIX, Document
from meshd.xds.names import stat_name
from meshd.xds.tls import ADS_SOURCE

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
DEFAULT_CONNECT_TIMEOUT = "5s"
LOCAL_CONNECT_TIMEOUT = "10s"
LOCAL_IDLE_TIMEOUT = "7200s"

LEFT_ALONE: Document = {
    "splitExternalLocalOriginErrors": True,
    "enforcingConsecutiveLocalOriginFailure": 100,
    "enforcingLocalOriginSuccessRate": 0,
    "consecutive5xx": 4294967295,
    "enforcingConsecutive5xx": 0,
    "enforcingSuccessRate": 0,
    "interval": "1s",
    "maxEjectionPercent": 100,
}
PASSIVE_EJECTION: Document = {
    **LEFT_ALONE,
    "consecutiveLocalOriginFailure": 3,
    "consecutiveGatewayFailure": 3,
    "enforcingConsecutiveGatewayFailure": 100,
    "baseEjectionTime": "5s",
    "maxEjectionTime": "30s",
}
"""What leaves an endpoint that does not serve, by itself: traffic moves away from an instance or zone that fails.

Counted in a row are connections that could not be made (the TLS handshake included), requests without an answer, and
answers 502, 503 and 504: with a 503 the proxy of an instance says that its application is gone. That is fewer than the
attempts of a request in a new mesh (``policies.mesh_retry.initial``), so the request that finds out is answered by
another. An ejection also ends the HTTP/2 connections to an ingress, which are tied to one instance behind it. Kuma has
nothing here unless a MeshCircuitBreaker says so; one that configures outlier detection replaces this.
"""

PASSIVE_EJECTION_TCP: Document = {**PASSIVE_EJECTION, "consecutiveLocalOriginFailure": 1}
"""The same where only connections are counted: one that cannot be made is never an application's own affair. The next
attempt goes elsewhere at once, and what is silent costs its connect timeout once, not three times."""

NO_PANIC: Document = {"healthyPanicThreshold": {"value": 1}, "updateMergeWindow": "0s"}
"""Envoy ignores ejections when less than half of the endpoints are left (its percentage is of whole numbers); with this
only when none is: traffic to a dead majority would fail although somebody could serve it. Workers hear of an ejection
at once; Envoy would tell them up to a second after one that has just ended, and all attempts go there meanwhile."""

APPLICATION_EJECTION: Document = {
    **LEFT_ALONE,
    "consecutiveLocalOriginFailure": 1,
    "enforcingConsecutiveGatewayFailure": 0,
    "baseEjectionTime": "5s",
    "maxEjectionTime": "5s",
}
"""What an inbound remembers of a tcp application that refused a connection.

Envoy connects to the application while the client's handshake goes on. In TLS 1.3 that often looks done to the client
before the refusal is here: then the connection is lost, and nothing tells the client's proxy not to send the next one.
As long as the application is left alone, connections end before their handshake, and go to another instance.
"""
APPLICATION_NO_PANIC: Document = {**NO_PANIC, "healthyPanicThreshold": {"value": 0}}
"""There is one endpoint: with the threshold of others it could never be left alone."""

KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT = "2s", "2s"
"""How often an HTTP/2 connection is asked whether the other end is there, and how long nothing at all may come back.
Together less than the idle timeout of a gateway's requests in a new mesh (5 s): a request that waits at an end that
fell silent has time to be tried elsewhere."""

REQUESTS_PER_CONNECTION = 1000
"""How many requests an HTTP/2 connection to the mesh takes. One to an ingress is one to an instance behind it, which
the ingress chose: so all of a client's requests to a zone would go to one instance for ever. With this the next
connection goes to the next one, at the price of one handshake in so many requests."""

TCP_KEEPALIVE: Document = {"tcpKeepalive": {"keepaliveProbes": 3, "keepaliveTime": 10, "keepaliveInterval": 5}}
"""Seconds. Connections to a host that vanished end within 25 s, where the kernel would take two hours."""


def cluster(name: str, kind: str, connect_timeout: str = "") -> Document:
    """A cluster of a discovery type with nothing in it."""
    document: Document = {"name": name, "type": kind}
    if connect_timeout:
        document["connectTimeout"] = connect_timeout
    if stat_name(name) != name:
        document["altStatName"] = stat_name(name)
    return document


def eds(name: str, connect_timeout: str = "") -> Document:
    """A cluster whose endpoints come over the same stream."""
    return {**cluster(name, "EDS", connect_timeout), "edsClusterConfig": {"edsConfig": ADS_SOURCE}}


def fixed(name: str, kind: str, endpoints: Sequence[Document], connect_timeout: str = "") -> Document:
    """A cluster that has its endpoints in itself: STATIC with addresses, STRICT_DNS with names."""
    document = cluster(name, kind, connect_timeout)
    if endpoints:
        document["loadAssignment"] = {"clusterName": name, "endpoints": [{"lbEndpoints": list(endpoints)}]}
    return document


def at_socket(address: str, port: int) -> Document:
    """An endpoint at an address."""
    return {"endpoint": {"address": socket_address(address, port)}}


def at_pipe(path: str) -> Document:
    """An endpoint at a Unix socket."""
    return {"endpoint": {"address": {"pipe": {"path": path}}}}


def socket_address(address: str, port: int) -> Document:
    """Where something listens."""
    return {"socketAddress": {"address": address, "portValue": port}}


def is_ip(address: str) -> bool:
    """Whether it needs no resolving."""
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


def http_options(document: Document) -> Document:
    """The HTTP options of a cluster, made if there are none; a connection is HTTP/1.1 unless they say otherwise."""
    options: dict[str, Any] = document.setdefault("typedExtensionProtocolOptions", {})
    found: Document = options.setdefault(HTTP_OPTIONS, {"@type": PREFIX + HTTP_OPTIONS})
    return found


def speak(document: Document, version: int) -> None:
    """Let a cluster speak HTTP/1.1 (1) or HTTP/2 (2) to its endpoints."""
    protocol = "http2ProtocolOptions" if version == 2 else "httpProtocolOptions"
    http_options(document)["explicitHttpConfig"] = {protocol: {}}


def multiplex(document: Document) -> None:
    """Let a cluster speak HTTP/2 to the mesh: it notices peers that fell silent, and spreads over those behind one."""
    speak(document, 2)
    options = http_options(document)
    keepalive = {"interval": KEEPALIVE_INTERVAL, "timeout": KEEPALIVE_TIMEOUT}
    options["explicitHttpConfig"]["http2ProtocolOptions"] = {"connectionKeepalive": keepalive}
    options["commonHttpProtocolOptions"] = {"maxRequestsPerConnection": REQUESTS_PER_CONNECTION}


def bind_from(document: Document, address: str) -> None:
    """Let connections come from this address."""
    document["upstreamBindConfig"] = {"sourceAddress": {"address": address, "portValue": 0}}


MAX_WEIGHTS = 2**31
"""What the weights of an assignment add up to at most: Envoy counts in 32 bits, and refuses all of it above."""

AddressOf = Callable[[str], str | None]
"""The address of a host, which may be a name; None: not known (yet)."""


def literal(host: str) -> str | None:
    """``AddressOf`` where there are no names."""
    return host if is_ip(host) else None


def assignment(
    name: str,
    endpoints: Iterable[Endpoint],
    extra: Mapping[str, str] | None = None,
    address_of: AddressOf = literal,
) -> Document:
    """The endpoints of an EDS cluster, by priority and zone, in stable order; only those whose address is known.

    ``extra`` are tags that every endpoint gets. An empty assignment says that there is nothing, which is not the same
    as saying nothing. Endpoints at one address (several zones behind an egress) are one for Envoy.
    """
    places: dict[tuple[str, int], list[Endpoint]] = {}
    for endpoint in endpoints:
        address = address_of(endpoint.address)
        if address is not None:
            places.setdefault((address, endpoint.port), []).append(endpoint)
    groups: dict[tuple[int, str], list[Document]] = {}
    shared = 1 + sum(endpoint.weight for there in places.values() for endpoint in there) // MAX_WEIGHTS
    for (address, port), there in places.items():
        endpoint = _together(there)
        document = _described(at_socket(address, port), endpoint, extra or {})
        document["loadBalancingWeight"] = max(endpoint.weight // shared, 1)
        groups.setdefault((endpoint.priority, endpoint.zone), []).append(document)
    found: list[Document] = []
    for (priority, zone), members in sorted(groups.items(), key=lambda group: group[0]):
        locality: Document = {"lbEndpoints": members}
        if zone:
            locality["locality"] = {"zone": zone}
        if priority:
            locality["priority"] = priority
        found.append(locality)
    assigned: Document = {"clusterName": name}
    if found:
        assigned["endpoints"] = found
    return assigned


def _together(endpoints: Sequence[Endpoint]) -> Endpoint:
    """The endpoints at one address as one, of the best priority, with the weight of all that have it.

    Of endpoints with equal addresses Envoy takes the first and leaves out the others, whose weight would be lost.
    """
    if len(endpoints) == 1:
        return endpoints[0]
    priority = min(endpoint.priority for endpoint in endpoints)
    best = [endpoint for endpoint in endpoints if endpoint.priority == priority]
    zones = {endpoint.zone for endpoint in best}
    common = set.intersection(*(set(endpoint.tags.items()) for endpoint in best))
    return replace(
        best[0],
        zone=best[0].zone if len(zones) == 1 else "",
        weight=sum(endpoint.weight for endpoint in best),
        tags={key: value for key, value in best[0].tags.items() if (key, value) in common},
    )


def _described(document: Document, endpoint: Endpoint, extra: Mapping[str, str]) -> Document:
    tags = {key: value for key, value in (*endpoint.tags.items(), *extra.items()) if key != label.SERVICE}
    if tags:
        document["metadata"] = metadata(tags)
    return document


def metadata(tags: Mapping[str, str]) -> Document:
    """The tags of an endpoint where subsets and transport sockets are chosen by them."""
    return {"filterMetadata": {"envoy.lb": dict(tags), "envoy.transport_socket_match": dict(tags)}}
