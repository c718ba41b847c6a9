"""What a TLS ClientHello asks for, read without answering it: the SNI and the ALPN, however the bytes are split."""

from dataclasses import dataclass

MAX_MESSAGE_BYTES = 16 * 1024
"""The longest ClientHello that is read, as Envoy's tls_inspector (16 KiB)."""

MAX_RAW_BYTES = MAX_MESSAGE_BYTES * 3 // 2
"""Where a ClientHello must have ended, record headers included: what one client can have us hold.

The longest one fits in records of eleven bytes or more, and one of 4 KiB in records of a single byte; OpenSSL and Go
send theirs of some hundred bytes to 2 KiB in one record.
"""

RECORD_HEADER = 5
MAX_RECORD_BYTES = 16 * 1024
HANDSHAKE_RECORD = 22
CLIENT_HELLO = 1
SERVER_NAME = 0
HOST_NAME = 0
ALPN = 16


@dataclass(frozen=True, slots=True)
class ClientHello:
    """``server_name`` as sent, None without the extension; ``alpn`` in the client's order."""

    server_name: bytes | None
    alpn: tuple[bytes, ...]


class ClientHelloReader:
    """Takes the first bytes of a connection until they hold a ClientHello. ``raw`` is all of them, to be passed on."""

    __slots__ = ("_message", "_next_record", "raw")

    def __init__(self) -> None:
        self.raw = bytearray()
        self._message = bytearray()
        self._next_record = 0

    def feed(self, data: bytes | bytearray | memoryview) -> ClientHello | None:
        """Take more bytes; None until the message is complete. Bytes after it are kept in ``raw`` only.

        Raises:
            ValueError: this is not a ClientHello, or it is longer than we read, itself or with its record headers; up
                to then ``raw`` has at most a header more than ``MAX_RAW_BYTES`` of it.

        Source: RFC 8446 4.1.2 and 5.1; RFC 6066 3; RFC 7301 3.1.
        """
        self.raw += data
        while (message := self._complete()) is None:
            if not self._take_record():
                return None
        return parse(message)

    def _complete(self) -> memoryview | None:
        if not self._message:
            return None
        if self._message[0] != CLIENT_HELLO:
            raise ValueError(f"handshake message of type {self._message[0]} where a ClientHello was due")
        if len(self._message) < 4:
            return None
        length = int.from_bytes(self._message[1:4], "big")
        if length > MAX_MESSAGE_BYTES:
            raise ValueError(f"a ClientHello of {length} bytes; at most {MAX_MESSAGE_BYTES} are read")
        return memoryview(bytes(self._message[4 : 4 + length])) if len(self._message) >= 4 + length else None

    def _take_record(self) -> bool:
        start = self._next_record
        header = self.raw[start : start + RECORD_HEADER]
        # Judged byte by byte, so that plaintext is known for what it is from its first byte.
        if header and header[0] != HANDSHAKE_RECORD:
            raise ValueError(f"record of type {header[0]} where a TLS handshake was due")
        if len(header) > 1 and header[1] != 3:
            raise ValueError(f"record of TLS major version {header[1]}")
        if len(header) < RECORD_HEADER:
            return False
        length = int.from_bytes(header[3:5], "big")
        if not 0 < length <= MAX_RECORD_BYTES:
            raise ValueError(f"handshake record of {length} bytes")
        end = start + RECORD_HEADER + length
        if end > MAX_RAW_BYTES:  # judged by the header: what is beyond is never waited for
            raise ValueError(f"no complete ClientHello in the first {MAX_RAW_BYTES} bytes")
        if len(self.raw) < end:
            return False
        self._message += self.raw[start + RECORD_HEADER : end]
        self._next_record = end
        return True


class Cursor:
    """Reads length-prefixed fields; whatever is short is a ValueError."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, length: int) -> memoryview:
        """The next ``length`` bytes."""
        end = self._at + length
        if end > len(self._data):
            raise ValueError(f"ClientHello is cut short: {length} bytes wanted, {len(self._data) - self._at} left")
        part = self._data[self._at : end]
        self._at = end
        return part

    def number(self, size: int) -> int:
        """The next big-endian integer of ``size`` bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> memoryview:
        """The next field, prefixed with its length in ``size`` bytes."""
        return self.take(self.number(size))


def parse(message: memoryview) -> ClientHello:
    """The body of a ClientHello handshake message, without its four bytes of header.

    Raises:
        ValueError: malformed.
    """
    cursor = Cursor(message)
    cursor.take(2 + 32)  # version, random
    cursor.vector(1)  # session id
    cursor.vector(2)  # cipher suites
    cursor.vector(1)  # compression
    if not cursor:
        return ClientHello(None, ())
    extensions = Cursor(cursor.vector(2))
    if cursor:
        raise ValueError("bytes after the extensions of a ClientHello")
    seen: set[int] = set()
    server_name: bytes | None = None
    alpn: tuple[bytes, ...] = ()
    while extensions:
        kind, body = extensions.number(2), extensions.vector(2)
        if kind in seen:
            raise ValueError(f"extension {kind} twice in a ClientHello")
        seen.add(kind)
        if kind == SERVER_NAME:
            server_name = parse_server_name(body)
        elif kind == ALPN:
            alpn = parse_alpn(body)
    return ClientHello(server_name, alpn)


def parse_server_name(body: memoryview) -> bytes:
    """The one host name of a server_name extension; RFC 6066 allows no second of the same type."""
    outer = Cursor(body)
    names = Cursor(outer.vector(2))
    if outer:
        raise ValueError("bytes after the list of server names")
    found: bytes | None = None
    while names:
        kind, name = names.number(1), bytes(names.vector(2))
        if kind != HOST_NAME:
            continue
        if found is not None or not name:
            raise ValueError("an empty server name, or two of them")
        found = name
    if found is None:
        raise ValueError("a server_name extension without a host name")
    return found


def parse_alpn(body: memoryview) -> tuple[bytes, ...]:
    """The protocols of an ALPN extension, in the client's order."""
    outer = Cursor(body)
    protocols = Cursor(outer.vector(2))
    if outer:
        raise ValueError("bytes after the list of ALPN protocols")
    found: list[bytes] = []
    while protocols:
        name = bytes(protocols.vector(1))
        if not name:
            raise ValueError("an empty ALPN protocol")
        found.append(name)
    return tuple(found)
