"""The certificate of a server that proxies connect to: a CA of the control plane's own, and a leaf under it.

Kuma has one self-signed certificate for both, made once: a host with a new address keeps the old names, and a new
certificate shuts out every Envoy that was given the old one as its CA. Here proxies are given the CA, and the leaf
follows the names of the host. Source of the names and the life: reference/dataplane.md 5.6.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshd.ca.x509 import (
    ROOT_LIFE,
    SKEW,
    KeyPair,
    Signer,
    authority_key_identifier,
    parse_all,
    usage,
)

RENEW_BEFORE = timedelta(days=30)
"""A CA or a leaf with less life left is made anew at the next start."""
MAX_COMMON_NAME_CHARS = 64

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class ServerNames:
    """What a server may be called: DNS names in lower case, wildcards among them, and addresses."""

    dns: frozenset[str] = frozenset()
    addresses: frozenset[Address] = frozenset()

    def has(self, host: str) -> bool:
        """Whether a certificate with these names is for ``host``, a name or an address, maybe in brackets.

        Source: RFC 6125 as Go's ``VerifyHostname`` has it, so that we refuse what kuma-dp would.
        """
        address = parse_address(host)
        if address is not None:
            return address in self.addresses
        name = host.lower().removesuffix(".")
        if not name:
            return False
        parent = name.partition(".")[2]
        return name in self.dns or (bool(parent) and f"*.{parent}" in self.dns)

    def covers(self, other: "ServerNames") -> bool:
        """Whether all names of the other are among these."""
        return other.dns <= self.dns and other.addresses <= self.addresses

    def sorted(self) -> tuple[str, ...]:
        """All of them as text: addresses, then names."""
        addresses = sorted(self.addresses, key=lambda a: (a.version, a))
        return (*map(str, addresses), *sorted(self.dns))


def parse_address(host: str) -> Address | None:
    """The address that ``host`` is, in brackets or not; None for a name."""
    try:
        return ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def wanted_names(hostname: str, addresses: Iterable[Address], xds_host: str = "") -> ServerNames:
    """What a host's own certificate is for: its name, localhost, its addresses, and what proxies are told to call it.

    A name that no certificate can carry (empty, not ASCII) is left out.
    """
    named = {name.lower().removesuffix(".") for name in (hostname, "localhost", xds_host)}
    told = parse_address(xds_host)
    found = frozenset((*addresses, *([told] if told is not None else [])))
    dns = frozenset(name for name in named if name and name.isascii() and parse_address(name) is None)
    return ServerNames(dns, found)


def names_of(pem: bytes) -> ServerNames:
    """The names in the first certificate of a PEM text.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    certificate = _first(pem)
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ServerNames()
    dns = frozenset(name.lower() for name in san.get_values_for_type(x509.DNSName))
    return ServerNames(dns, frozenset(a for a in san.get_values_for_type(x509.IPAddress) if isinstance(a, Address)))


def may_sign(pem: bytes) -> bool:
    """Whether the first certificate of a PEM text does not say that it is no CA (one without constraints may be one).

    Raises:
        ValueError: there is none, or it is damaged.
    """
    try:
        return _first(pem).extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return True


def new_authority(common: str, now: datetime) -> KeyPair:
    """A new CA of this common name, for the leaves of one zone's control plane; for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(digital_signature=True, key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def issue_server(signer: Signer, names: ServerNames, now: datetime) -> KeyPair:
    """A new leaf for a server of these names, which lives as long as its CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    general: list[x509.GeneralName] = [x509.DNSName(name) for name in sorted(names.dns)]
    general += [x509.IPAddress(a) for a in sorted(names.addresses, key=lambda a: (a.version, a))]
    certificate = (
        x509.CertificateBuilder(
            signer.certificate.subject, _name("meshd"), key.public_key(), x509.random_serial_number()
        )
        .not_valid_before(now - SKEW)
        .not_valid_after(signer.certificate.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName(general), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority_key_identifier(signer.certificate), critical=False)
        .sign(signer.key, hashes.SHA256())
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def ends_soon(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether a certificate is to be replaced."""
    return certificate.not_valid_after_utc <= now + RENEW_BEFORE


def is_usable(pair: KeyPair, signer: Signer, names: ServerNames, now: datetime) -> bool:
    """Whether a leaf is the CA's, whole, has all the names and some life left."""
    try:
        leaf = _first(pair.cert_pem)
        leaf.verify_directly_issued_by(signer.certificate)
        key = serialization.load_pem_private_key(pair.key_pem, None)
        found = names_of(pair.cert_pem)
    except (ValueError, TypeError, InvalidSignature):
        return False
    is_alive = leaf.not_valid_before_utc <= now + SKEW and not ends_soon(leaf, now)
    return is_alive and key.public_key() == leaf.public_key() and found.covers(names)


def _first(pem: bytes) -> x509.Certificate:
    certificates = parse_all(pem)
    if not certificates:
        raise ValueError("there is no PEM certificate")
    return certificates[0]


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:MAX_COMMON_NAME_CHARS])])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
