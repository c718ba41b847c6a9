"""TLS towards the real address of an external service: what its resource says, read and checked."""

import contextlib
import functools
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from meshd.kinds.external_service import DataSource, ExternalService

CHECKED = 256
"""How many sets of certificates are remembered as checked; more than one process holds at a time, old and new."""


@dataclass(frozen=True, slots=True)
class Origination:
    """TLS towards the real address of an external service (ExternalService ``networking.tls``).

    ``server_name`` is both SNI and the name that is verified; empty: the endpoint's own address. Without ``ca_pem`` the
    host's trusted CAs are used. ``verify_hostname`` off still verifies the chain.
    """

    server_name: str
    ca_pem: str
    certificate_pem: str
    key_pem: str = field(repr=False)
    verify_hostname: bool


def inline_source(mesh: str, source: DataSource) -> bytes:
    """The bytes of a data source that carries them itself.

    Raises:
        ValueError: they are elsewhere.
    """
    if source.inline is not None:
        return source.inline
    if source.inline_string is not None:
        return source.inline_string.encode()
    raise ValueError(f"mesh '{mesh}': {source} cannot be read here; give it inline")


def origination_of(mesh: str, spec: ExternalService, read: Callable[[str, DataSource], bytes]) -> Origination | None:
    """How TLS is originated, None if it is not.

    Raises:
        ValueError: a certificate or key cannot be read, or does not load.
    """
    tls = spec.networking.tls
    if not tls.enabled:
        return None

    def text(part: str, source: DataSource | None) -> str:
        if source is None:
            return ""
        data = read(mesh, source)
        if not data.strip() or not data.isascii():
            # An empty CA must not turn into those of the host.
            raise ValueError(f"{part} is {'no PEM text' if data.strip() else 'empty'}")
        return data.decode("ascii")

    origination = Origination(
        server_name=tls.server_name or spec.host,
        ca_pem=text("caCert", tls.ca_cert),
        certificate_pem=text("clientCert", tls.client_cert),
        key_pem=text("clientKey", tls.client_key),
        verify_hostname=not tls.skip_hostname_verification,
    )
    if reason := trouble_with(origination.ca_pem, origination.certificate_pem, origination.key_pem):
        raise ValueError(reason)
    return origination


@contextlib.contextmanager
def pem_path(pem: bytes) -> Iterator[str]:
    """A path that reads as ``pem`` and never touches a disk: ``ssl`` loads keys from files only."""
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(pem)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def load_material(context: ssl.SSLContext, ca_pem: str, certificate_pem: str, key_pem: str) -> None:
    """Load the PEM texts of an external service that are there.

    Raises:
        ValueError: one does not load; says which.
    """
    part = "caCert"
    try:
        if ca_pem:
            context.load_verify_locations(cadata=ca_pem)
        if certificate_pem:
            part = "clientCert with clientKey"
            with pem_path(f"{certificate_pem}\n{key_pem}".encode()) as path:
                context.load_cert_chain(path)
    except ssl.SSLError as error:
        raise ValueError(f"{part} does not load as PEM: {error}") from error


@functools.lru_cache(maxsize=CHECKED)
def trouble_with(ca_pem: str, certificate_pem: str, key_pem: str) -> str:
    """Why these do not load, empty if they do. Remembered: they are looked at with every view."""
    try:
        load_material(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ca_pem, certificate_pem, key_pem)
    except ValueError as error:
        return str(error)
    return ""
