import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509 as c
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshd.ca import x509
from meshd.ca.identity import identity_uris
from meshd.model.errors import InvalidError
from tests.ca.builders import NOW, kuma_like_pair, root

URIS = identity_uris("default", {"kuma.io/service": ["web"], "version": ["v1"]})
LATER = datetime(2027, 1, 1, tzinfo=UTC)


def openssl_verify(tmp_path, pair, identity, now, purpose):
    (tmp_path / "ca.pem").write_bytes(pair.cert_pem)
    (tmp_path / "leaf.pem").write_bytes(identity.chain_pem)
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-attime", str(int(now.timestamp()))]
    done = subprocess.run([*command, "-CAfile", "ca.pem", "leaf.pem"], cwd=tmp_path, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_accepts_our_chain_strictly(tmp_path, purpose):
    identity = x509.issue(x509.load_signer(root()), "default", URIS, NOW, timedelta(hours=1))
    assert openssl_verify(tmp_path, root(), identity, NOW, purpose) == (0, "leaf.pem: OK\n")


def test_openssl_accepts_a_leaf_of_a_root_with_serial_0(tmp_path):
    pair = kuma_like_pair()
    identity = x509.issue(x509.load_signer(pair), "default", URIS, LATER, timedelta(hours=1))
    assert openssl_verify(tmp_path, pair, identity, LATER, "sslserver") == (0, "leaf.pem: OK\n")
    assert x509.is_issued_by(identity, x509.load_signer(pair))


def test_root_with_serial_0_loads_without_a_word_of_the_library():
    pair = kuma_like_pair()
    with pytest.warns(Warning, match="serial number"):  # which is why
        c.load_pem_x509_certificate(pair.cert_pem)
    (certificate,) = x509.parse_all(pair.cert_pem)
    assert certificate.serial_number == 1
    assert certificate.subject.rfc4514_string() == "CN=default,OU=Mesh,O=Kuma"


def test_root_is_kumas_but_for_its_serial():
    certificate = c.load_pem_x509_certificate(root().cert_pem)
    assert certificate.subject.rfc4514_string() == "CN=default,OU=Mesh,O=Kuma"
    assert certificate.serial_number > 2**64
    assert certificate.not_valid_before_utc == NOW - timedelta(seconds=10)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=3650)
    san = certificate.extensions.get_extension_for_class(c.SubjectAlternativeName).value
    assert san.get_values_for_type(c.UniformResourceIdentifier) == ["spiffe://default"]
    assert root().key_pem.startswith(b"-----BEGIN RSA PRIVATE KEY-----")
    assert x509.check_pair(root()) == ()


def test_workload_certificate_says_what_spiffe_asks():
    identity = x509.issue(x509.load_signer(root()), "default", URIS, NOW, timedelta(hours=24))
    leaf = c.load_pem_x509_certificate(identity.chain_pem)
    san = leaf.extensions.get_extension_for_class(c.SubjectAlternativeName)
    assert san.critical
    assert tuple(san.value.get_values_for_type(c.UniformResourceIdentifier)) == URIS == identity.uris
    assert leaf.subject == c.Name([])
    assert list(leaf.extensions.get_extension_for_class(c.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    ]
    assert not leaf.extensions.get_extension_for_class(c.BasicConstraints).value.ca
    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (identity.not_before, identity.not_after)
    assert identity.not_before == NOW - timedelta(seconds=10)
    assert identity.not_after == NOW + timedelta(hours=24)
    assert b"PRIVATE" not in repr(identity).encode()


def test_serials_and_keys_are_never_repeated():
    signer = x509.load_signer(root())
    issued = [x509.issue(signer, "default", URIS, NOW, timedelta(hours=1)) for _ in range(20)]
    assert len({c.load_pem_x509_certificate(i.chain_pem).serial_number for i in issued}) == 20
    assert len({i.key_pem for i in issued}) == 20


def test_leaf_never_outlives_its_root():
    pair = x509.new_root("default", NOW, life=timedelta(hours=3))
    identity = x509.issue(x509.load_signer(pair), "default", URIS, NOW, timedelta(hours=24))
    assert identity.not_after == NOW + timedelta(hours=3)


@pytest.mark.parametrize("now", [NOW - timedelta(days=1), NOW + timedelta(days=4000)])
def test_a_root_out_of_time_does_not_sign(now):
    with pytest.raises(InvalidError, match="valid from 2026-03-01"):
        x509.issue(x509.load_signer(root()), "default", URIS, now, timedelta(hours=1))


def ca_certificate(key, *, ca=True, sign=True, agree=False, name="provided", issuer=None, issuer_key=None, usage=True):
    subject = c.Name([c.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        c.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(c.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=100))
        .add_extension(c.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(c.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer:
        builder = builder.add_extension(x509.authority_key_identifier(issuer), critical=False)
    if usage:
        builder = builder.add_extension(x509.usage(key_cert_sign=sign, key_agreement=agree), critical=True)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuer_key or key, digest)


def pem_of(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key):
    private = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())


def test_intermediate_ca_is_part_of_the_chain(tmp_path):
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    top = ca_certificate(root_key, name="top")
    middle = ca_certificate(key, name="middle", issuer=top, issuer_key=root_key)
    pair = x509.KeyPair(pem_of(middle) + pem_of(top), key_pem(key))
    identity = x509.issue(x509.load_signer(pair), "default", URIS, NOW, timedelta(hours=1))
    assert [x.subject.rfc4514_string() for x in x509.parse_all(identity.chain_pem)] == ["", "CN=middle"]
    (tmp_path / "middle.pem").write_bytes(identity.chain_pem)
    (tmp_path / "top.pem").write_bytes(pem_of(top))
    command = ["openssl", "verify", "-attime", str(int(NOW.timestamp())), "-CAfile", "top.pem"]
    done = subprocess.run([*command, "-untrusted", "middle.pem", "middle.pem"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr


EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


@pytest.mark.parametrize(
    ("cert", "key", "fields", "says"),
    [
        (pem_of(ca_certificate(EC_KEY)), key_pem(EC_KEY), [], ""),
        (b"", key_pem(EC_KEY), ["cert"], "no PEM block"),
        (b"rubbish", b"rubbish", ["cert", "key"], "no PEM block"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA", key_pem(EC_KEY), ["cert"], "does not end"),
        (b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", key_pem(EC_KEY), ["cert"], "not a valid cert"),
        (b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----", key_pem(EC_KEY), ["cert"], "not a valid"),
        (pem_of(ca_certificate(EC_KEY)), b"", ["key"], "unencrypted PEM"),
        (pem_of(ca_certificate(EC_KEY)), key_pem(OTHER), ["cert"], "not a valid key pair"),
        (pem_of(ca_certificate(ED)), key_pem(ED), ["key"], "neither RSA nor ECDSA"),
        (pem_of(ca_certificate(EC_KEY, ca=False)), key_pem(EC_KEY), ["cert[0]"], "'CA' must be set"),
        (pem_of(ca_certificate(EC_KEY, sign=False, agree=True)), key_pem(EC_KEY), ["cert[0]"] * 2, "keyCertSign"),
        (pem_of(ca_certificate(EC_KEY, usage=False)), key_pem(EC_KEY), ["cert[0]"], "keyCertSign"),
        (
            pem_of(ca_certificate(EC_KEY, ca=False, sign=False, agree=True)) * 2,
            key_pem(OTHER),
            ["cert", *["cert[0]"] * 3, *["cert[1]"] * 3],
            "key pair",
        ),
    ],
)
def test_every_fault_of_a_provided_ca_is_named(cert, key, fields, says):
    pair = x509.KeyPair(cert, key)
    violations = x509.check_pair(pair)
    assert [v.field for v in violations] == fields
    assert any(says in v.message for v in violations) or not fields
    if fields:
        with pytest.raises(InvalidError):
            x509.load_signer(pair)


def test_a_stored_identity_is_recognised_and_a_changed_one_is_not():
    signer = x509.load_signer(root())
    good = x509.issue(signer, "default", URIS, NOW, timedelta(hours=1))
    other = x509.issue(signer, "default", URIS, NOW, timedelta(hours=1))
    assert x509.is_issued_by(good, signer)
    assert not x509.is_issued_by(good, x509.load_signer(root("default", 1)))
    for broken in (
        replace(good, uris=URIS[:1]),
        replace(good, key_pem=other.key_pem),
        replace(good, not_after=good.not_after + timedelta(days=1)),
        replace(good, chain_pem=b""),
        replace(good, chain_pem=good.chain_pem[:200]),
        replace(good, key_pem=b"x"),
    ):
        assert not x509.is_issued_by(broken, signer)
