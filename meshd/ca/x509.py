"""Build, sign and parse certificates. Deterministic but for keys and serial numbers, which must not be.

Workload keys are ECDSA P-256, where Kuma's are RSA 2048: every Envoy and OpenSSL accepts both under an RSA CA, and on
one core (2-vCPU AMD EPYC, cryptography 50) a P-256 key takes 0.013 ms to make against 42 ms, and a server handshake
signs in a fraction of the time, which is what new mTLS connections per second are made of.
A mesh's root stays RSA, as ``conf.caCert.RSAbits`` says, so that a Kuma zone can sign with it.

Kuma's own roots have serial number 0, which RFC 5280 forbids and ``cryptography`` will refuse to load one day:
``parse`` shows it such certificates with serial 1. Their signature is then no longer theirs, but a root's signature
over itself proves nothing, and what is served to peers are the original bytes.
"""

import base64
import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshd.ca.identity import Identity
from meshd.model.errors import InvalidError, Violation

SKEW = timedelta(seconds=10)
"""Certificates begin this long before now, for peers whose clock is behind (Kuma ``DefaultAllowedClockSkew``)."""
ROOT_LIFE = timedelta(days=3650)
WORKLOAD_LIFE = timedelta(hours=24)
ROOT_BITS = 2048
MIN_ROOT_BITS = 2048
MAX_ROOT_BITS = 8192
"""A bigger key takes minutes to make and slows every handshake of the mesh."""

AuthorityKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CA as it is stored: PEM certificates, the one that signs first, and the PEM key of that one."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Signer:
    """A CA ready to sign. ``chain_pem`` are its intermediates, as a peer that trusts the root alone needs them."""

    certificate: x509.Certificate
    key: AuthorityKey = field(repr=False)
    chain_pem: bytes


def new_root(mesh: str, now: datetime, *, bits: int = ROOT_BITS, life: timedelta = ROOT_LIFE) -> KeyPair:
    """A new self-signed RSA root for a mesh: Kuma's subject, SAN and usages, but a random serial.

    Takes 40 ms (2048 bits) to seconds (4096): call it in a worker thread.

    Source: reference/dataplane.md 5.1.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Kuma"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Mesh"),
            # X.520 allows 64 characters; a mesh name has at most 63
            x509.NameAttribute(NameOID.COMMON_NAME, mesh),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{mesh}")]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), key_pem)


def issue(signer: Signer, mesh: str, uris: tuple[str, ...], now: datetime, life: timedelta) -> Identity:
    """A new workload certificate: empty subject, critical SAN with ``uris`` in order, for servers and clients.

    It never outlives its CA.

    Raises:
        InvalidError: the CA has expired, or begins in the future.
        ValueError: an URI is not ASCII, or there is none.
    """
    if not uris:
        raise ValueError("a certificate without URIs names nobody")
    ca = signer.certificate
    if not ca.not_valid_before_utc <= now + SKEW or now >= ca.not_valid_after_utc:
        period = f"{ca.not_valid_before_utc.isoformat()} to {ca.not_valid_after_utc.isoformat()}"
        message = f"the CA is valid from {period}, now it is {now.isoformat()}; replace the CA or set the clock"
        raise InvalidError(f"mesh '{mesh}'", [Violation("mtls.enabledBackend", message)])
    key = ec.generate_private_key(ec.SECP256R1())
    not_before = (now - SKEW).replace(microsecond=0)
    not_after = min((now + life).replace(microsecond=0), ca.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(u) for u in uris]), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(digital_signature=True, key_agreement=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority_key_identifier(ca), critical=False)
        .sign(signer.key, digest_for(signer.key))
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain_pem = certificate.public_bytes(serialization.Encoding.PEM) + signer.chain_pem
    return Identity(mesh, uris, chain_pem, key_pem, not_before, not_after)


def is_issued_by(identity: Identity, signer: Signer) -> bool:
    """Whether the identity's leaf was signed by this CA, is for the key beside it and says what ``identity`` says.

    For identities that come from a file: False for anything that is damaged.
    """
    try:
        leaf = parse_all(identity.chain_pem)[0]
        leaf.verify_directly_issued_by(signer.certificate)
        key = serialization.load_pem_private_key(identity.key_pem, None)
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, IndexError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return (
        isinstance(key, ec.EllipticCurvePrivateKey)
        and key.public_key() == leaf.public_key()
        and tuple(san.get_values_for_type(x509.UniformResourceIdentifier)) == identity.uris
        and leaf.not_valid_before_utc == identity.not_before
        and leaf.not_valid_after_utc == identity.not_after
    )


@functools.lru_cache(maxsize=256)
def load_signer(pair: KeyPair) -> Signer:
    """The CA of a pair, checked. Cached: parsing and checking an RSA key costs more than signing with it.

    Raises:
        InvalidError: with every violation, on the fields ``cert`` and ``key``.
    """
    violations = check_pair(pair)
    if violations:
        raise InvalidError("certificate authority", violations)
    certificates = parse_all(pair.cert_pem)
    intermediates = [c for c in certificates if c.subject != c.issuer]
    key = serialization.load_pem_private_key(pair.key_pem, None)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)  # noqa: S101 - check_pair said so
    chain_pem = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in intermediates)
    return Signer(certificates[0], key, chain_pem)


@functools.lru_cache(maxsize=256)
def check_pair(pair: KeyPair) -> tuple[Violation, ...]:
    """Everything that keeps a pair from being the CA of a mesh (SPIFFE X509-SVID rules, as Kuma checks them).

    Fields are ``cert``, ``cert[0]``, ``key``. Cached, as the same few pairs are asked about again and again.
    """
    violations: list[Violation] = []
    certificates: tuple[x509.Certificate, ...] = ()
    try:
        certificates = parse_all(pair.cert_pem)
        if not certificates:
            violations.append(Violation("cert", "has no PEM block 'CERTIFICATE'; give the CA's certificate in PEM"))
    except ValueError as error:
        violations.append(Violation("cert", f"is not a valid certificate: {error}"))
    try:
        key = serialization.load_pem_private_key(pair.key_pem, None)
    except (ValueError, TypeError) as error:
        violations.append(Violation("key", f"is not a valid unencrypted PEM private key: {first_line(error)}"))
    else:
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            violations.append(Violation("key", "is neither RSA nor ECDSA; Envoy accepts no other"))
        elif certificates and certificates[0].public_key() != key.public_key():
            violations.append(Violation("cert", "is not a valid key pair: the first certificate is not for this key"))
    for i, certificate in enumerate(certificates):
        violations += check_ca_certificate(f"cert[{i}]", certificate)
    return tuple(violations)


def check_ca_certificate(field_name: str, certificate: x509.Certificate) -> list[Violation]:
    """What a CA certificate of a mesh must say and does not."""
    violations = []
    extensions = certificate.extensions
    try:
        is_ca = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    try:
        key_usage = extensions.get_extension_for_class(x509.KeyUsage).value
        signs, agrees = key_usage.key_cert_sign, key_usage.key_agreement
    except x509.ExtensionNotFound:
        signs, agrees = False, False
    if not is_ca:
        message = "basic constraint 'CA' must be set to 'true' (see X509-SVID: 4.1. Basic Constraints)"
        violations.append(Violation(field_name, message))
    if not signs:
        message = "key usage extension 'keyCertSign' must be set (see X509-SVID: 4.3. Key Usage)"
        violations.append(Violation(field_name, message))
    if agrees:
        message = "key usage extension 'keyAgreement' must NOT be set (see X509-SVID: Appendix A)"
        violations.append(Violation(field_name, message))
    return violations


def usage(
    *,
    digital_signature: bool = False,
    key_agreement: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    """A key usage extension with only these bits."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=key_agreement,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def authority_key_identifier(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """What names the CA in a leaf: the CA's own key identifier if it has one, else the hash of its key."""
    try:
        ski = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key())  # type: ignore[arg-type]  # RSA or EC
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski)


def digest_for(key: AuthorityKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    """The hash that fits the strength of the CA's key."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256:
        return hashes.SHA384() if key.curve.key_size <= 384 else hashes.SHA512()
    return hashes.SHA256()


def parse_all(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Every certificate of a PEM text, in order; other blocks are skipped.

    Raises:
        ValueError: a block is no certificate.
    """
    return tuple(parse(der) for der in der_blocks(pem))


def parse(der: bytes) -> x509.Certificate:
    """A certificate; one with serial 0 is shown with serial 1 (see the module)."""
    at = serial_offset(der)
    if at is not None and der[at : at + 3] == b"\x02\x01\x00":
        der = der[: at + 2] + b"\x01" + der[at + 3 :]
    return x509.load_der_x509_certificate(der)


def der_blocks(pem: bytes) -> Iterable[bytes]:
    """The bytes of every ``CERTIFICATE`` block.

    Raises:
        ValueError: a block does not end, or is not base64.
    """
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    rest = pem
    while (start := rest.find(begin)) >= 0:
        stop = rest.find(end, start)
        if stop < 0:
            raise ValueError("a PEM block 'CERTIFICATE' does not end")
        yield base64.b64decode(b"".join(rest[start + len(begin) : stop].split()), validate=True)
        rest = rest[stop + len(end) :]


def serial_offset(der: bytes) -> int | None:
    """Where the serial number's INTEGER begins in a DER certificate; None for what does not look like one."""
    at = skip_header(der, 0, 0x30)
    if at is not None:
        at = skip_header(der, at, 0x30)
    if at is None or at >= len(der):
        return None
    if der[at] == 0xA0:  # [0] version, absent in version 1
        inside = skip_header(der, at, 0xA0)
        return None if inside is None else inside + der[at + 1]
    return at


def skip_header(der: bytes, at: int, tag: int) -> int | None:
    """The offset behind the tag and length at ``at``, if that is the tag there."""
    if at + 2 > len(der) or der[at] != tag:
        return None
    length = der[at + 1]
    return at + 2 + (length & 0x7F if length & 0x80 else 0)


def first_line(error: BaseException) -> str:
    """An error without the library's advice on the lines below."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
