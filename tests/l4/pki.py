"""Certificates for the engine's tests: one root per mesh, made once a session."""

import datetime as dt
from functools import cache

from meshd.ca import x509
from meshd.ca.identity import Credentials, Identity, TrustBundle, spiffe_uri

NOW = dt.datetime.now(dt.UTC)


@cache
def root(mesh: str, generation: int = 0) -> x509.KeyPair:
    return x509.new_root(mesh, NOW)


@cache
def identity(mesh: str, *services: str, generation: int = 0) -> Identity:
    uris = tuple(spiffe_uri(mesh, s) for s in services) + tuple(f"kuma://kuma.io/service/{s}" for s in services)
    return x509.issue(x509.load_signer(root(mesh, generation)), mesh, uris, NOW, dt.timedelta(hours=1))


def trust(mesh: str, generation: int = 0) -> TrustBundle:
    return TrustBundle(mesh, root(mesh, generation).cert_pem)


def credentials(mesh: str, *services: str, generation: int = 0) -> Credentials:
    return Credentials(identity(mesh, *services, generation=generation), trust(mesh, generation))
