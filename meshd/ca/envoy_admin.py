"""The certificates by which a zone's control plane and the admin listeners of its Envoys know each other.

The CA is the zone's own, in the GlobalSecret ``envoy-admin-ca`` (certificate and key, PEM), and never leaves it. What
is under it is derived from it: the same CA gives the same keys and certificates, byte for byte, so nothing of them has
to be kept, a restart changes nothing, and replacing the CA replaces all.

Source: Kuma ``pkg/envoy/admin/tls`` (the secret's form, the client's name). Kuma's listeners show the address of their
proxy, so that any proxy of a host can answer for any other of it; here each shows a name of its own.
"""

import functools
import hashlib
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from meshd.ca.origination import load_material
from meshd.ca.server_certificate import MAX_COMMON_NAME_CHARS, new_authority
from meshd.ca.x509 import KeyPair, authority_key_identifier, check_pair, digest_for, load_signer, usage
from meshd.kinds.secret import Secret
from meshd.model.resource import Resource, ResourceKey

CA_SECRET = ResourceKey("GlobalSecret", "", "envoy-admin-ca")
CLIENT = "kuma-cp"
"""Whom the listeners let in: the DNS name in the control plane's certificate."""
CACHED_SERVERS = 4096
"""Certificates of proxies that are remembered; one takes 0.2 ms to make and 1.5 kB to keep."""

_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\n?", re.DOTALL)
_ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, slots=True)
class AdminTls:
    """What the admin listener of one proxy shows, and the CA of whom it lets in; PEM."""

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    ca_pem: bytes


def new_ca(now: datetime) -> bytes:
    """The content of the secret: a new CA for ten years."""
    pair = new_authority("Envoy Admin CA", now)
    return pair.cert_pem + pair.key_pem


def read_ca(data: bytes) -> KeyPair:
    """The CA in the content of the secret; it need not be a good one."""
    found = _KEY.search(data)
    return KeyPair(_KEY.sub(b"", data), found.group() if found is not None else b"")


def stored_ca(stored: Callable[[ResourceKey], Resource | None]) -> KeyPair | None:
    """The CA of this zone, of what is ``stored``; None if there is none that can be used."""
    resource = stored(CA_SECRET)
    if resource is None or not isinstance(resource.spec, Secret):
        return None
    pair = read_ca(resource.spec.data)
    return None if check_pair(pair) else pair


def trouble_with(data: bytes) -> str:
    """Why the content of the secret is no CA; empty if it is one."""
    return "; ".join(map(str, check_pair(read_ca(data))))


def server_name(proxy: ResourceKey) -> str:
    """What the listener of a proxy is called in its certificate; names of proxies are too long for DNS."""
    whole = "/".join((proxy.kind, proxy.mesh, proxy.name))
    return f"{hashlib.sha256(whole.encode()).hexdigest()[:32]}.envoy-admin.meshd"


@functools.lru_cache(maxsize=CACHED_SERVERS)
def server_tls(ca: KeyPair, proxy: ResourceKey) -> AdminTls:
    """What the admin listener of a proxy shows and trusts, under a CA that ``stored_ca`` gave."""
    pair = _derived(ca, str(proxy), server_name(proxy), ExtendedKeyUsageOID.SERVER_AUTH)
    return AdminTls(pair.cert_pem, pair.key_pem, ca.cert_pem)


@functools.lru_cache(maxsize=4)
def client_context(ca: KeyPair) -> ssl.SSLContext:
    """The control plane as a client of these listeners: give it ``server_name`` of whom it calls."""
    pair = _derived(ca, CLIENT, CLIENT, ExtendedKeyUsageOID.CLIENT_AUTH)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_material(context, ca.cert_pem.decode(), pair.cert_pem.decode(), pair.key_pem.decode())
    return context


def _derived(ca: KeyPair, common: str, dns: str, use: ObjectIdentifier) -> KeyPair:
    """A leaf of P-256 for as long as its CA, with its key; both are functions of the arguments."""
    signer = load_signer(ca)
    # 128 bits more than the order has: the remainder is then as good as even (FIPS 186-5, A.2.1).
    material = HKDF(hashes.SHA256(), 48, None, f"meshd envoy admin {dns}".encode()).derive(ca.key_pem)
    key = ec.derive_private_key(int.from_bytes(material) % (_ORDER_P256 - 1) + 1, ec.SECP256R1())
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    issuer = signer.certificate
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:MAX_COMMON_NAME_CHARS])])
    certificate = (
        x509.CertificateBuilder(issuer.subject, name, public, int.from_bytes(identifier.digest[:16]) + 1)
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(issuer.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(authority_key_identifier(issuer), critical=False)
        .sign(
            signer.key,
            digest_for(signer.key),
            ecdsa_deterministic=True if isinstance(signer.key, ec.EllipticCurvePrivateKey) else None,
        )
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM) + signer.chain_pem, key_pem)
