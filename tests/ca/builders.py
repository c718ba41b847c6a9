"""Builders of this package's tests: meshes with a CA, Secrets, a fixed time, and keys that are made once."""

import functools
from datetime import UTC, datetime
from pathlib import Path

from meshd.ca import x509
from meshd.ca.authority import builtin_cert_secret, builtin_key_secret
from meshd.ca.rsa_pem import new_private_key
from meshd.ca.x509 import new_root
from meshd.kinds.mesh import CertificateAuthorityBackend, DpCert, Mesh, Mtls, Rotation
from meshd.kinds.secret import Secret
from meshd.model.resource import Resource, ResourceKey

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TESTDATA = Path(__file__).parent / "testdata"


def kuma_like_pair():
    """An RSA root with serial 0, as Kuma makes them (openssl req -x509 -set_serial 0); valid from November 2026."""
    read = lambda name: (TESTDATA / name).read_bytes()  # noqa: E731
    return x509.KeyPair(read("kuma-like-ca.pem"), read("kuma-like-ca.key"))


@functools.cache
def _root(mesh, number):
    return new_root(mesh, NOW)


def root(mesh="default", number=0):
    return _root(mesh, number)


@functools.cache
def _signing_pem(number):
    return new_private_key()


def signing_pem(number=0):
    return _signing_pem(number)


def mesh(name="default", *, enabled="ca-1", backends=None, expiration="", conf=None, skip=False, type_="builtin"):
    if backends is None:
        dp_cert = DpCert(rotation=Rotation(expiration=expiration))
        backends = (CertificateAuthorityBackend(name="ca-1", type=type_, conf=conf, dp_cert=dp_cert),)
    mtls = Mtls(enabled_backend=enabled, backends=tuple(backends), skip_validation=skip)
    return Resource(ResourceKey("Mesh", "", name), Mesh(mtls=mtls))


def secret(name, data, mesh="default"):
    return Resource(ResourceKey("Secret", mesh, name), Secret(data=data))


def global_secret(name, data):
    return Resource(ResourceKey("GlobalSecret", "", name), Secret(data=data))


def builtin_secrets(pair, mesh="default", backend="ca-1"):
    return (
        secret(builtin_cert_secret(mesh, backend), pair.cert_pem, mesh),
        secret(builtin_key_secret(mesh, backend), pair.key_pem, mesh),
    )
