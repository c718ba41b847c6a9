"""RSA keys that sign tokens, as Kuma stores them: PEM blocks ``RSA PRIVATE KEY`` and ``RSA PUBLIC KEY`` (PKCS#1).

Reading is wider than writing: PKCS#8 and SubjectPublicKeyInfo blocks and bare PKCS#1 DER (Kuma before 1.4) are read
too. A key under 2048 bits is refused: whoever factors it is every zone and every user.
"""

import functools

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

MIN_BITS = 2048
UNREADABLE = "is not an unencrypted RSA key in PEM"
TOO_WEAK = f"is not an RSA key of {MIN_BITS} bits or more"


def new_private_key() -> bytes:
    """A new signing key in PEM. Takes about 40 ms: call it in a worker thread."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=MIN_BITS)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


@functools.lru_cache(maxsize=64)
def private_key(data: bytes) -> rsa.RSAPrivateKey:
    """The private key in ``data``. Cached: checking a key's primes takes longer than signing with it.

    Raises:
        ValueError: it is none; says why, never what is in it.
    """
    try:
        if b"-----BEGIN" in data:
            key = serialization.load_pem_private_key(data, None)
        else:
            key = serialization.load_der_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise ValueError(UNREADABLE) from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < MIN_BITS:
        raise ValueError(TOO_WEAK)
    return key


@functools.lru_cache(maxsize=64)
def public_key(data: bytes) -> rsa.RSAPublicKey:
    """The public key in ``data``, or that of the private key in it.

    Raises:
        ValueError: it is none; says why.
    """
    if b"PRIVATE KEY-----" in data:
        return private_key(data).public_key()
    try:
        if b"-----BEGIN" in data:
            key = serialization.load_pem_public_key(data)
        else:
            key = serialization.load_der_public_key(data)
    except (ValueError, TypeError):
        if b"-----BEGIN" not in data:
            return private_key(data).public_key()
        raise ValueError(UNREADABLE) from None
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < MIN_BITS:
        raise ValueError(TOO_WEAK)
    return key


def signing_to_public(pem: bytes) -> bytes:
    """The public half of a signing key, as a zone gets it by KDS (reference/kds.md 5.5).

    The bytes are those that Kuma makes from the same key, so that a resync changes nothing.

    Raises:
        ValueError: ``pem`` is no private RSA key.
    """
    return public_key_pem(private_key(pem))


def public_key_pem(private: rsa.RSAPrivateKey) -> bytes:
    """The public half as a PEM block ``RSA PUBLIC KEY`` (PKCS#1)."""
    return private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
