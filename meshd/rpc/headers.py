"""gRPC's headers: metadata, deadlines, messages; the escapes and units are grpclib's."""

import re
from collections.abc import Iterable, Mapping, Sequence

from grpclib.metadata import decode_grpc_message, decode_timeout, encode_grpc_message, encode_timeout

from meshd.model.errors import InvalidError, Violation
from meshd.rpc.status import RpcError, Status, status_of_code, status_of_http

Metadata = tuple[tuple[str, str], ...]
"""Keys (lower case) and values in order, repeated keys kept apart. ``-bin`` values stay in their base64 form."""
Header = tuple[bytes, bytes]

MAX_STATUS_MESSAGE_CHARS = 1024
"""Peers limit trailers to as little as 8 KiB, and an escaped character takes up to twelve bytes."""
_KEY = re.compile(r"[0-9a-z_.\-]+")
_VALUE = re.compile(r"[ -~]*")
_RESERVED = frozenset({"te", "content-type", "user-agent", "connection", "host", "content-length"})


def decode_headers(headers: Iterable[tuple[bytes | str, bytes | str]]) -> Metadata:
    """Headers as h2 gives them, as text. Never fails: Latin-1 has a character for every byte."""
    return tuple((_text(name), _text(value)) for name, value in headers)


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def user_metadata(headers: Metadata) -> Metadata:
    """The part of ``headers`` that is the caller's own: no pseudo-headers, nothing of the transport."""
    return tuple(
        (name, value)
        for name, value in headers
        if name[:1] != ":" and not name.startswith("grpc-") and name not in _RESERVED
    ) + tuple((name, value) for name, value in headers if name == "user-agent")


def encode_metadata(metadata: Iterable[tuple[str, str]]) -> list[Header]:
    """Metadata for the wire.

    Raises:
        InvalidError: a key or a value that gRPC cannot carry (a programmer's or an operator's mistake).
    """
    violations = []
    encoded = []
    for key, value in metadata:
        if not _KEY.fullmatch(key) or key.startswith("grpc-") or key in _RESERVED - {"user-agent"}:
            violations.append(Violation(key, "is no metadata key: use lower-case letters, digits, '_', '.', '-'"))
        elif not _VALUE.fullmatch(value):
            violations.append(Violation(key, "its value has characters outside printable ASCII"))
        encoded.append((key.encode(), value.encode("ascii", "replace")))
    if violations:
        raise InvalidError("gRPC metadata", violations)
    return encoded


def request_headers(
    path: str, authority: str, scheme: str, metadata: Sequence[tuple[str, str]], *, gzip: bool, timeout_s: float | None
) -> list[Header]:
    """The headers that open a call."""
    headers = [
        (b":method", b"POST"),
        (b":scheme", scheme.encode()),
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"grpc-accept-encoding", b"identity,gzip"),
    ]
    if gzip:
        headers.append((b"grpc-encoding", b"gzip"))
    if timeout_s is not None:
        headers.append((b"grpc-timeout", encode_timeout(max(timeout_s, 0.0)).encode()))
    return headers + encode_metadata(metadata)


def response_headers(*, gzip: bool) -> list[Header]:
    """The headers that open an answer."""
    headers = [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-accept-encoding", b"identity,gzip"),
    ]
    if gzip:
        headers.append((b"grpc-encoding", b"gzip"))
    return headers


def trailers(status: Status, message: str) -> list[Header]:
    """The headers that end an answer."""
    headers = [(b"grpc-status", str(int(status)).encode())]
    if message:
        # It may cite what a peer sent, and JSON can have half a character, which UTF-8 cannot.
        whole = message[:MAX_STATUS_MESSAGE_CHARS].encode(errors="backslashreplace").decode()
        headers.append((b"grpc-message", encode_grpc_message(whole).encode()))
    return headers


def timeout_of(fields: Mapping[str, str]) -> float | None:
    """Seconds the caller gives the call, or None.

    Raises:
        RpcError: INVALID_ARGUMENT for a ``grpc-timeout`` that is none.
    """
    value = fields.get("grpc-timeout")
    if value is None:
        return None
    try:
        return decode_timeout(value) if len(value) <= 9 else _bad_timeout(value)  # at most eight digits and a unit
    except ValueError:
        return _bad_timeout(value)


def _bad_timeout(value: str) -> float:
    raise RpcError(Status.INVALID_ARGUMENT, f"grpc-timeout {value[:20]!r} is no timeout such as '250m'")


def status_of_answer(fields: Mapping[str, str]) -> RpcError:
    """What the ending headers of a call say, as an error (whose status may be OK).

    Headers without a ``grpc-status`` come from something that is no gRPC server; the HTTP status then counts.
    """
    code = fields.get("grpc-status")
    if code is None:
        http = fields.get(":status", "200")
        status = status_of_http(int(http)) if http.isdecimal() else Status.UNKNOWN
        return RpcError(status, f"the peer ended the call without a grpc-status (HTTP {http})")
    return RpcError(status_of_code(code), decode_grpc_message(fields.get("grpc-message", "")))
