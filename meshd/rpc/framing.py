"""gRPC messages in a byte stream: a flag byte, four bytes of length, the payload; gzip in and out. No I/O."""

import struct
import zlib
from collections.abc import Iterator, Sequence

from meshd.rpc.status import RpcError, Status

PREFIX_BYTES = 5
GZIP_LEVEL = 1
"""Configuration text shrinks nearly as well as at 6, in a third of the time, and compressing holds up the loop."""
GZIP_FROM_BYTES = 1024
"""Below this gzip saves less than it costs; a call that announces gzip may still send single messages as they are."""
_PIECE_BYTES = 64 * 1024
_GZIP_WBITS = 31
_prefix = struct.Struct(">BI")


def frame(message: bytes) -> bytes:
    """The message with its prefix, uncompressed."""
    return _prefix.pack(0, len(message)) + message


def frame_parts(parts: Sequence[bytes], chunk_bytes: int) -> Iterator[bytes]:
    """A message that comes in parts, framed, in chunks of about ``chunk_bytes``, each made when it is asked for."""
    chunk = [_prefix.pack(0, sum(map(len, parts)))]
    size = PREFIX_BYTES
    for part in parts:
        chunk.append(part)
        size += len(part)
        if size >= chunk_bytes:
            yield b"".join(chunk)
            chunk, size = [], 0
    yield b"".join(chunk)


def frame_compressed(message: bytes) -> Iterator[bytes | None]:
    """Yield None after each piece of work (so that the caller may let others run), and last the message, framed.

    A message that is small, or that gzip does not shrink, comes as it is.
    """
    if len(message) < GZIP_FROM_BYTES:
        yield frame(message)
        return
    compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_WBITS)
    parts = []
    view = memoryview(message)
    for start in range(0, len(view), _PIECE_BYTES):
        parts.append(compressor.compress(view[start : start + _PIECE_BYTES]))
        yield None
    parts.append(compressor.flush())
    size = sum(map(len, parts))
    if size >= len(message):
        yield frame(message)
    else:
        yield b"".join((_prefix.pack(1, size), *parts))


class Deframer:
    """Cuts a byte stream into messages, whatever the pieces it comes in, and inflates what is compressed.

    One at a time, so that a few bytes of gzip never stand for more than one message in memory. ``max_message_bytes``
    bounds a message on the wire and inflated; the excess is refused before it is stored. ``encoding`` is the
    stream's ``grpc-encoding``: a compressed message on an ``identity`` stream is an error.
    """

    __slots__ = ("_buffer", "_compressed", "_encoding", "_max_bytes", "_need")

    def __init__(self, max_message_bytes: int, encoding: str) -> None:
        self._max_bytes = max_message_bytes
        self._encoding = encoding
        self._buffer = bytearray()
        self._need = -1  # payload bytes of the message under way; -1: its prefix is not complete
        self._compressed = False

    def feed(self, data: bytes | bytearray) -> None:
        """Add bytes; ``take`` says what they complete."""
        self._buffer += data

    def take(self) -> bytes | None:
        """The next complete message; None if there is none yet.

        Raises:
            RpcError: RESOURCE_EXHAUSTED for a message over the limit; INTERNAL for a broken one. The stream is then
                of no further use.
        """
        buffer = self._buffer
        if self._need < 0:
            if len(buffer) < PREFIX_BYTES:
                return None
            self._begin(*_prefix.unpack_from(buffer))
            del buffer[:PREFIX_BYTES]
        if len(buffer) < self._need:
            return None
        payload = bytes(memoryview(buffer)[: self._need])
        del buffer[: self._need]
        self._need = -1
        return self._inflate(payload) if self._compressed else payload

    def finish(self) -> None:
        """Say that the stream has ended.

        Raises:
            RpcError: INTERNAL if it ended inside a message.
        """
        if self._buffer or self._need >= 0:
            raise RpcError(
                Status.INTERNAL, f"the stream ended inside a message, after {len(self._buffer)} of its bytes"
            )

    def _begin(self, flag: int, size: int) -> None:
        if flag > 1:
            raise RpcError(Status.INTERNAL, f"a message begins with flag {flag}; only 0 and 1 exist")
        if flag == 1 and self._encoding != "gzip":
            raise RpcError(Status.INTERNAL, f"a compressed message on a stream with grpc-encoding {self._encoding!r}")
        if size > self._max_bytes:
            raise RpcError(
                Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes is over the limit of {self._max_bytes}"
            )
        self._compressed = flag == 1
        self._need = size

    def _inflate(self, payload: bytes) -> bytes:
        inflater = zlib.decompressobj(_GZIP_WBITS)
        try:
            message = inflater.decompress(payload, self._max_bytes + 1)
        except zlib.error as error:
            raise RpcError(Status.INTERNAL, f"a gzip message of {len(payload)} bytes is broken: {error}") from error
        if len(message) > self._max_bytes:
            raise RpcError(
                Status.RESOURCE_EXHAUSTED, f"a gzip message inflates to over the limit of {self._max_bytes} bytes"
            )
        if not inflater.eof or inflater.unused_data:
            raise RpcError(Status.INTERNAL, f"a gzip message of {len(payload)} bytes is cut short or has a tail")
        return message
