import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from meshd.runtime.tls_files import TlsFilesError, check_certificates, load_pair


def pair(directory, name, password=None):
    """A certificate and its key in files; the key encrypted if there is a password."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    cipher = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    files = directory / f"{name}.pem", directory / f"{name}.key"
    files[0].write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher))
    return files


def why(certificate, key):
    with pytest.raises(TlsFilesError) as caught:
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key, "apiServer.https")
    return str(caught.value)


def test_a_pair_is_loaded_and_everything_else_is_named_by_its_setting(tmp_path):
    (cert, key), (other, other_key) = pair(tmp_path, "a"), pair(tmp_path, "b")
    load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, key, "apiServer.https")
    cert_at, key_at = "apiServer.https.tlsCertFile: ", "apiServer.https.tlsKeyFile: "
    assert why(cert, other_key) == (
        f"{key_at}{other_key}: the key does not belong to the certificate ({cert_at}{cert})"
    )
    assert why(key, key) == f"{cert_at}{key} is no PEM certificate"
    assert why(cert, other) == f"{key_at}{other} is no PEM private key"
    missing = tmp_path / "none"
    assert why(missing, key) == f"{cert_at}cannot read {missing}: No such file or directory"
    assert why(cert, missing) == f"{key_at}cannot read {missing}: No such file or directory"
    assert why(*pair(tmp_path, "c", b"secret")).startswith(f"{key_at}{tmp_path}/c.key is encrypted; store the key")
    broken = tmp_path / "broken.key"
    broken.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    assert why(cert, broken).startswith(f"{key_at}{broken}, {cert_at}{cert}: cannot be used together: ")


def test_a_ca_file_must_hold_a_certificate(tmp_path):
    cert, key = pair(tmp_path, "a")
    check_certificates(cert, "multizone.zone.kds.rootCaFile")
    with pytest.raises(TlsFilesError, match=r"^multizone\.zone\.kds\.rootCaFile: .*a\.key is no PEM certificate$"):
        check_certificates(key, "multizone.zone.kds.rootCaFile")
