"""The server's own CA and certificate in files, made when they are missing. Blocking: call it in a worker thread."""

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from meshd.ca.private_files import read_private, write_private
from meshd.ca.server_certificate import ServerNames, ends_soon, is_usable, issue_server, new_authority
from meshd.ca.x509 import KeyPair, Signer, load_signer
from meshd.model.errors import InvalidError
from meshd.runtime.tls_files import TlsFilesError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """What a server serves TLS with, and the CA that its peers are to trust."""

    certificate: Path
    key: Path
    ca_pem: bytes


def own_server_files(directory: Path, zone: str, names: ServerNames, now: datetime) -> ServerFiles:
    """The CA in ``ca.crt`` and ``ca.key`` of a directory, and under it a certificate for all of ``names``.

    What is there and still good is used again. A CA that is near its end is replaced: proxies that know the old one
    must be restarted, which the log says.

    Raises:
        TlsFilesError: the CA is damaged, was readable by others, or a file cannot be read or written.
    """
    signer = _authority(directory / "ca.crt", directory / "ca.key", zone, now)
    ca_pem = signer.certificate.public_bytes(serialization.Encoding.PEM)
    files = ServerFiles(directory / "server.crt", directory / "server.key", ca_pem)
    try:
        pair = _read(files.certificate, files.key)
        if pair is None or not is_usable(pair, signer, names, now):
            pair = issue_server(signer, names, now)
            _write(files.certificate, files.key, pair)
            log.info("%s: made for %s", files.certificate, ", ".join(names.sorted()))
    except OSError as error:
        raise TlsFilesError(f"{directory}: cannot keep a certificate there: {error.strerror or error}") from error
    return files


def _authority(certificate: Path, key: Path, zone: str, now: datetime) -> Signer:
    advice = f"repair it, or delete {certificate} for a new CA (proxies must then be restarted)"
    try:
        pair = _read(certificate, key)
        if pair is not None:
            signer = load_signer(pair)
            if not ends_soon(signer.certificate, now):
                return signer
            log.warning("%s: made anew near its end; proxies that were started with it must be restarted", certificate)
        pair = new_authority(f"meshd {zone} servers", now)
        _write(certificate, key, pair)
        return load_signer(pair)
    except InvalidError as error:
        raise TlsFilesError(f"{certificate}, {key}: {error}; {advice}") from error
    except OSError as error:
        raise TlsFilesError(f"{certificate}: cannot be kept: {error.strerror or error}; {advice}") from error


def _read(certificate: Path, key: Path) -> KeyPair | None:
    """A certificate and its key; None if there is no certificate."""
    if not certificate.exists():
        return None
    return KeyPair(certificate.read_bytes(), read_private(key))


def _write(certificate: Path, key: Path, pair: KeyPair) -> None:
    # The certificate last: as long as it is missing, there is nothing.
    certificate.unlink(missing_ok=True)
    write_private(key, pair.key_pem)
    write_private(certificate, pair.cert_pem)
