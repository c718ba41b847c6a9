"""What stands between the wire and h2: floods and oversize are refused before they cost anything. No I/O.

h2 buffers a frame whole before it looks at its length, and forgets all streams at a GOAWAY; so frames are cut
here, and a GOAWAY is taken out of the stream and handed over as a value.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from meshd.rpc.limits import Limits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BLOCK_FRAMES = 64
"""Frames handed to h2 at a time: the driver lets others run in between."""
_HEADER_BYTES = 9
_DATA, _HEADERS, _PUSH_PROMISE, _GOAWAY, _CONTINUATION = 0, 1, 5, 7, 9
_END_HEADERS = 0x4
_goaway = struct.Struct(">II")

PROTOCOL_ERROR, FRAME_SIZE_ERROR, ENHANCE_YOUR_CALM = 1, 6, 11


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer's goodbye: it will not have seen streams above ``last_stream_id``."""

    last_stream_id: int
    error_code: int
    debug: str


class RefusedError(Exception):
    """The peer's bytes are not acceptable; ends its connection with ``error_code`` and counts under ``reason``."""

    def __init__(self, reason: str, error_code: int, message: str) -> None:
        self.reason = reason
        self.error_code = error_code
        super().__init__(message)


class Bucket:
    """A token bucket: ``burst`` at once, ``per_s`` after that."""

    __slots__ = ("_burst", "_level", "_per_s", "_then")

    def __init__(self, burst: int, per_s: float, now: float) -> None:
        self._burst = float(burst)
        self._per_s = per_s
        self._level = self._burst
        self._then = now

    def take(self, now: float) -> bool:
        """Take one; False if there is none."""
        self._level = min(self._burst, self._level + (now - self._then) * self._per_s)
        self._then = now
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True

    def refund(self, tokens: int) -> None:
        """Put some back."""
        self._level = min(self._burst, self._level + tokens)


class FrameGuard:
    """Cuts the peer's bytes into whole frames and refuses what no honest peer sends."""

    __slots__ = ("_block_bytes", "_buffer", "_idle", "_limits", "_preface")

    def __init__(self, limits: Limits, now: float, *, expect_preface: bool) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._preface = PREFACE if expect_preface else b""
        self._idle = Bucket(limits.idle_frames_burst, limits.idle_frames_per_s, now)
        self._block_bytes = -1  # size so far of the header block under way; -1: none is

    def moved(self, frames: int) -> None:
        """Payload went to the peer in so many frames: its window updates and bandwidth probes are welcome."""
        self._idle.refund(4 * frames)

    def feed(self, data: bytes, now: float) -> Iterator[bytes | GoAway]:
        """Blocks of whole frames for h2, in order; a GOAWAY comes as its value. Frames that are not whole wait.

        Raises:
            RefusedError: a frame or header block too large, a header block interrupted, too many idle frames, or a
                preface that is none.
        """
        buffer = self._buffer
        buffer += data
        start = at = frames = 0
        if self._preface:
            if not buffer.startswith(self._preface[: len(buffer)]):
                raise RefusedError("protocol", PROTOCOL_ERROR, f"the first bytes are no HTTP/2: {bytes(buffer[:24])!r}")
            if len(buffer) < len(self._preface):
                return
            at = len(self._preface)
            self._preface = b""
        while len(buffer) - at >= _HEADER_BYTES:
            size = buffer[at] << 16 | buffer[at + 1] << 8 | buffer[at + 2]
            kind = buffer[at + 3]
            if size > self._limits.max_frame_bytes:
                raise RefusedError("protocol", FRAME_SIZE_ERROR, f"a frame of {size} bytes is over the limit")
            end = at + _HEADER_BYTES + size
            if len(buffer) < end:
                break
            self._judge(kind, buffer[at + 4], size, now)
            if kind == _GOAWAY:
                if at > start:
                    yield bytes(memoryview(buffer)[start:at])
                yield _parse_goaway(bytes(buffer[at + _HEADER_BYTES : end]))
                start, frames = end, 0
            at = end
            frames += 1
            if frames >= BLOCK_FRAMES and at > start:
                yield bytes(memoryview(buffer)[start:at])
                start, frames = at, 0
        if at > start:
            yield bytes(memoryview(buffer)[start:at])
        del buffer[:at]

    def _judge(self, kind: int, flags: int, size: int, now: float) -> None:
        if self._block_bytes >= 0 and kind != _CONTINUATION:
            raise RefusedError("protocol", PROTOCOL_ERROR, f"a frame of type {kind} inside a header block")
        if kind == _DATA and size:
            self._idle.refund(1)
            return
        if kind in (_HEADERS, _CONTINUATION):
            self._block_bytes = max(self._block_bytes, 0) + size
            if self._block_bytes > self._limits.max_header_bytes:
                raise RefusedError(
                    "headers", ENHANCE_YOUR_CALM, f"a header block of over {self._limits.max_header_bytes} bytes"
                )
            if flags & _END_HEADERS:
                self._block_bytes = -1
            if kind == _HEADERS:
                return
        if kind == _PUSH_PROMISE:
            raise RefusedError("protocol", PROTOCOL_ERROR, "a PUSH_PROMISE, which nobody allowed")
        if not self._idle.take(now):
            raise RefusedError("flood", ENHANCE_YOUR_CALM, f"too many frames without payload (type {kind})")


def _parse_goaway(payload: bytes) -> GoAway:
    if len(payload) < _goaway.size:
        raise RefusedError("protocol", FRAME_SIZE_ERROR, f"a GOAWAY of {len(payload)} bytes")
    last, code = _goaway.unpack_from(payload)
    return GoAway(last & 0x7FFFFFFF, code, payload[_goaway.size : _goaway.size + 200].decode("latin-1"))
