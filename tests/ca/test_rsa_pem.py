import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from meshd.ca import rsa_pem
from tests.ca.builders import TESTDATA, signing_pem


def test_public_key_has_the_bytes_that_kuma_makes():
    private = (TESTDATA / "kumactl-signing-key.pem").read_bytes()
    assert rsa_pem.signing_to_public(private) == (TESTDATA / "kumactl-public-key.pem").read_bytes()


def test_new_keys_are_pkcs1_pem_of_2048_bits():
    assert signing_pem().startswith(b"-----BEGIN RSA PRIVATE KEY-----\n")
    assert rsa_pem.private_key(signing_pem()).key_size == 2048
    assert rsa_pem.signing_to_public(signing_pem()).startswith(b"-----BEGIN RSA PUBLIC KEY-----\n")


def test_other_encodings_of_the_same_key_are_read():
    key = rsa_pem.private_key(signing_pem())
    plain = serialization.NoEncryption()
    forms = serialization.PrivateFormat
    for encoding, form in (
        (serialization.Encoding.PEM, forms.PKCS8),
        (serialization.Encoding.DER, forms.TraditionalOpenSSL),
    ):
        data = key.private_bytes(encoding, form, plain)
        assert rsa_pem.private_key(data).private_numbers() == key.private_numbers()
        assert rsa_pem.public_key(data).public_numbers() == key.public_key().public_numbers()
    spki = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert rsa_pem.public_key(spki).public_numbers() == key.public_key().public_numbers()


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"rubbish",
        b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(rsa.generate_private_key(65537, 1024)),
    ],
    ids=["empty", "rubbish", "damaged", "ec", "1024 bits"],
)
def test_what_is_no_strong_rsa_key_is_refused_without_its_content(data):
    for read in (rsa_pem.private_key, rsa_pem.public_key):
        with pytest.raises(ValueError, match="RSA") as caught:
            read(data)
        assert len(str(caught.value)) < 100
