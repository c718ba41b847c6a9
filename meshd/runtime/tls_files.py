"""Certificates and keys in PEM files, with errors that name the setting, not what OpenSSL calls it."""

import ssl
from pathlib import Path

from meshd.model.errors import MeshdError


class TlsFilesError(MeshdError):
    """A certificate, key or CA file that cannot be used; the message names the setting and the file."""


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path, section: str) -> None:
    """Give ``context`` a certificate chain and its key, which ``section``.tlsCertFile and .tlsKeyFile name.

    Raises:
        TlsFilesError: a file cannot be read or holds something else, or the two do not belong together.
    """
    cert_at, key_at = f"{section}.tlsCertFile: {certificate}", f"{section}.tlsKeyFile: {key}"
    check_certificates(certificate, f"{section}.tlsCertFile")
    if b"PRIVATE KEY-----" not in _read(key, f"{section}.tlsKeyFile"):
        raise TlsFilesError(f"{key_at} is no PEM private key")

    def no_password() -> str:
        raise TlsFilesError(f"{key_at} is encrypted; store the key without a password, readable by this user alone")

    try:
        context.load_cert_chain(certificate, key, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFilesError(f"{key_at}: the key does not belong to the certificate ({cert_at})") from error
        raise TlsFilesError(f"{key_at}, {cert_at}: cannot be used together: {error.reason or error}") from error


def check_certificates(path: Path, setting: str) -> None:
    """Refuse a file that holds no certificate in PEM form.

    Raises:
        TlsFilesError: names ``setting``.
    """
    _read(path, setting)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise TlsFilesError(f"{setting}: {path} is no PEM certificate") from error


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsFilesError(f"{setting}: cannot read {path}: {error.strerror}") from error
