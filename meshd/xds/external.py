"""The cluster of an external service's real addresses, with TLS originated if it says so.

At an egress, and at a Dataplane of a mesh that does not route through one.

Source: reference/dataplane.md 3.11; Kuma ``pkg/xds/envoy/clusters/v3/client_side_tls_configurer.go``,
``provided_endpoint_cluster_configurer.go`` (behaviour). Differences: without ``caCert`` the host's CAs are used, where
Kuma 2.14 verifies nothing (Envoy has no ``systemRootCerts``: it needs the name of a file); a service of several
ExternalServices has the TLS of the first, as in the built-in engine.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from meshd.ca.origination import origination_of
from meshd.kinds.external_service import DataSource, ExternalService
from meshd.topology.view import Endpoint, ServiceView
from meshd.xds import clusters
from meshd.xds.encode import Document
from meshd.xds.shaping import HTTP_PROTOCOLS
from meshd.xds.tls import san, transport_socket

ReadSource = Callable[[str, DataSource], bytes]
"""Reads a data source of a mesh; ValueError if it cannot."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What connections to an external service go through: a TLS transport ``socket``, None for plaintext.

    ``refused`` says why nothing may be sent there, if so. Equal values give equal clusters; what is read for one may
    change without the view's knowledge, so it is made anew to see whether it did.
    """

    socket: Document | None = None
    refused: str = ""


def spec_of(service: ServiceView) -> ExternalService:
    """The resource behind an external service."""
    spec = service.external.spec if service.external is not None else None
    return spec if isinstance(spec, ExternalService) else ExternalService()


def outside_of(mesh: str, service: ServiceView, read_source: ReadSource, system_ca: str) -> Outside:
    """How an external service is connected to. ``system_ca`` is the proxy's ability of that name."""
    try:
        return Outside(_socket(mesh, spec_of(service), read_source, system_ca))
    except ValueError as error:
        return Outside(refused=str(error))


def external_cluster(
    name: str, service: ServiceView, endpoints: Iterable[Endpoint], outside: Outside, *, ipv6: bool
) -> Document:
    """The cluster; without endpoints if they are refused: connecting without what its author asked for would be worse.

    ``ipv6``: the proxy's host has it. Then a name with addresses of both kinds still stands for the IPv4 ones: most
    hosts that have IPv6 reach nothing by it.
    """
    targets = () if outside.refused else tuple(endpoints)
    has_names = not all(clusters.is_ip(endpoint.address) for endpoint in targets)
    document = clusters.cluster(name, "STRICT_DNS" if has_names else "STATIC", clusters.DEFAULT_CONNECT_TIMEOUT)
    if has_names:
        document["dnsLookupFamily"] = "V4_PREFERRED" if ipv6 else "V4_ONLY"
    document["loadAssignment"] = clusters.assignment(name, targets, address_of=_as_it_is)
    document["outlierDetection"] = dict(clusters.PASSIVE_EJECTION)
    document["commonLbConfig"] = clusters.NO_PANIC
    if service.protocol in HTTP_PROTOCOLS:
        clusters.speak(document, 1 if service.protocol == "http" else 2)
    if outside.socket is not None:
        document["transportSocket"] = outside.socket
    return document


def _as_it_is(host: str) -> str:
    return host


def _socket(mesh: str, spec: ExternalService, read_source: ReadSource, system_ca: str) -> Document | None:
    origination = origination_of(mesh, spec, read_source)
    if origination is None:
        return None
    name = origination.server_name
    if not origination.ca_pem and not system_ca:
        raise ValueError("the proxy's host has no file of trusted CAs that is known; give networking.tls.caCert")
    trusted = {"inlineString": origination.ca_pem} if origination.ca_pem else {"filename": system_ca}
    validation: Document = {"trustedCa": trusted}
    if origination.verify_hostname:
        validation["matchTypedSubjectAltNames"] = [san(kind, {"exact": name}) for kind in ("DNS", "IP_ADDRESS")]
    # For clients Envoy's own maximum is TLS 1.2.
    common: Document = {
        "tlsParams": {"tlsMaximumProtocolVersion": "TLSv1_3"},
        "validationContext": validation,
    }
    if origination.certificate_pem:
        certificate = {"inlineString": origination.certificate_pem}
        key = {"inlineString": origination.key_pem}
        common["tlsCertificates"] = [{"certificateChain": certificate, "privateKey": key}]
    context: Document = {"commonTlsContext": common}
    if not clusters.is_ip(name):  # an SNI is a host name, never an address
        context["sni"] = name
    if spec.networking.tls.allow_renegotiation:
        context["allowRenegotiation"] = True
    return transport_socket("UpstreamTlsContext", context)
