"""Transport sockets: mesh mTLS of both sides, with secrets that come over the same stream (SDS on ADS).

Source: reference/dataplane.md 3.4; Kuma ``pkg/xds/envoy/tls/v3/tls.go`` (behaviour).
"""

from collections.abc import Iterable, Mapping

from meshd.ca.envoy_admin import CLIENT, AdminTls
from meshd.ca.identity import KUMA_ALPN, Credentials, service_sni, spiffe_uri
from meshd.xds.encode import PREFIX, Document
from meshd.xds.names import ca_secret, identity_secret

_TLS = PREFIX + "envoy.extensions.transport_sockets.tls.v3."
ADS_SOURCE: Document = {"ads": {}, "resourceApiVersion": "V3"}


def transport_socket(context: str, config: Document) -> Document:
    """A TLS transport socket; ``context`` is ``UpstreamTlsContext`` or ``DownstreamTlsContext``."""
    return {"name": "envoy.transport_sockets.tls", "typedConfig": {"@type": _TLS + context, **config}}


def san(kind: str, matcher: Document) -> Document:
    """A condition on the peer's subject alternative names."""
    return {"sanType": kind, "matcher": matcher}


def inbound(mesh: str) -> Document:
    """Who comes in shows a certificate of the mesh."""
    common = _mesh_context(mesh, [san("URI", {"prefix": f"spiffe://{mesh}/"})])
    return transport_socket("DownstreamTlsContext", {"commonTlsContext": common, "requireClientCertificate": True})


def admin(shown: AdminTls) -> Document:
    """Who comes in is the control plane of this zone."""
    certificate = {
        "certificateChain": {"inlineBytes": shown.chain_pem},
        "privateKey": {"inlineBytes": shown.key_pem},
    }
    validation = {
        "matchTypedSubjectAltNames": [san("DNS", {"exact": CLIENT})],
        "trustedCa": {"inlineBytes": shown.ca_pem},
    }
    common = {"tlsCertificates": [certificate], "validationContext": validation}
    return transport_socket("DownstreamTlsContext", {"commonTlsContext": common, "requireClientCertificate": True})


def outbound(mesh: str, service: str, sni: str, identities: Iterable[str] = ()) -> Document:
    """To a service that must show its own name, or one of ``identities``."""
    expected = [spiffe_uri(mesh, name) for name in identities or (service,)]
    return _upstream(mesh, [san("URI", {"exact": uri}) for uri in expected], sni)


def outbound_to_any(mesh: str) -> Document:
    """To whoever is at an address, as long as it is of the mesh."""
    return _upstream(mesh, [san("URI", {"prefix": f"spiffe://{mesh}/"})])


def _upstream(mesh: str, sans: list[Document], sni: str = "") -> Document:
    common = {**_mesh_context(mesh, sans), "alpnProtocols": [KUMA_ALPN]}
    return transport_socket("UpstreamTlsContext", {"commonTlsContext": common, **({"sni": sni} if sni else {})})


def sni_of(service: str, mesh: str, tags: Mapping[str, str]) -> str:
    """The SNI by which ingresses and egresses find a service, or its instances with some tags."""
    return service_sni(service, mesh, tags).decode()


def _mesh_context(mesh: str, sans: list[Document]) -> Document:
    return {
        "combinedValidationContext": {
            "defaultValidationContext": {"matchTypedSubjectAltNames": sans},
            "validationContextSdsSecretConfig": {"name": ca_secret(mesh), "sdsConfig": ADS_SOURCE},
        },
        "tlsCertificateSdsSecretConfigs": [{"name": identity_secret(mesh), "sdsConfig": ADS_SOURCE}],
    }


def secrets(mesh: str, credentials: Credentials) -> list[Document]:
    """The SDS secrets of one mesh; those that there is nothing to put in are left out."""
    found: list[Document] = []
    if credentials.identity is not None:
        certificate = {
            "certificateChain": {"inlineBytes": credentials.identity.chain_pem},
            "privateKey": {"inlineBytes": credentials.identity.key_pem},
        }
        found.append({"name": identity_secret(mesh), "tlsCertificate": certificate})
    if credentials.trust.pem:
        trusted = {"trustedCa": {"inlineBytes": credentials.trust.pem}}
        found.append({"name": ca_secret(mesh), "validationContext": trusted})
    return found
