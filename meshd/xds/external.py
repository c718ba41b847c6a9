"""Clusters of external services: real addresses outside the mesh, with TLS originated if their resources say so.

Source: reference/dataplane.md 3.5, 3.11; Kuma ``pkg/xds/envoy/clusters/v3/client_side_tls_configurer.go`` (behaviour).
"""

from collections.abc import Callable, Sequence

from meshd.ca.origination import Origination, origination_of
from meshd.kinds.external_service import DataSource, ExternalService
from meshd.topology.view import Endpoint, ServiceView
from meshd.xds import clusters, tls
from meshd.xds.encode import Document


def external_cluster(
    name: str,
    mesh: str,
    service: ServiceView,
    endpoints: Sequence[Endpoint],
    read_source: Callable[[str, DataSource], bytes],
    *,
    ipv6: bool,
) -> Document:
    """The cluster of an external service that is left for from here.

    One whose certificates cannot be read has no endpoints: connecting without what its author asked for would be
    worse than not connecting.
    """
    spec = service.external.spec if service.external is not None else None
    external = spec if isinstance(spec, ExternalService) else ExternalService()
    try:
        origination = origination_of(mesh, external, read_source)
    except ValueError:
        origination, endpoints = None, ()
    kind = "STATIC" if all(clusters.is_ip(e.address) for e in endpoints) else "STRICT_DNS"
    found = []
    for endpoint in endpoints:
        document = clusters.at_socket(endpoint.address, endpoint.port)
        document["loadBalancingWeight"] = endpoint.weight
        found.append(document)
    document = clusters.fixed(name, kind, found, clusters.DEFAULT_CONNECT_TIMEOUT)
    if kind == "STRICT_DNS":
        document["dnsLookupFamily"] = "AUTO" if ipv6 else "V4_ONLY"
    if service.protocol in ("http", "http2", "grpc"):
        clusters.speak(document, 1 if service.protocol == "http" else 2)
    if origination is not None:
        allow = bool(external.networking.tls.allow_renegotiation)
        document["transportSocket"] = _socket(origination, external.host, allow_renegotiation=allow)
    return document


def _socket(origination: Origination, host: str, *, allow_renegotiation: bool) -> Document:
    validation: Document = {}
    if origination.ca_pem:
        validation["trustedCa"] = {"inlineString": origination.ca_pem}
    else:
        validation["systemRootCerts"] = {}
    if origination.verify_hostname:
        name = origination.server_name
        kind = "IP_ADDRESS" if clusters.is_ip(name) else "DNS"
        validation["matchTypedSubjectAltNames"] = [tls.san(kind, {"exact": name})]
    common: Document = {"validationContext": validation}
    if origination.certificate_pem:
        common["tlsCertificates"] = [
            {
                "certificateChain": {"inlineString": origination.certificate_pem},
                "privateKey": {"inlineString": origination.key_pem},
            }
        ]
    config: Document = {"commonTlsContext": common}
    if not clusters.is_ip(origination.server_name or host):
        config["sni"] = origination.server_name or host
    if allow_renegotiation:
        config["allowRenegotiation"] = True
    return tls.transport_socket("UpstreamTlsContext", config)
