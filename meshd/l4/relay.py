"""The two ends of a connection, and carrying bytes between them."""

import logging
import socket
import struct
from dataclasses import dataclass, field
from typing import Protocol

import trio

from meshd.l4.tls import Tls, TlsError, TruncatedError
from meshd.model.errors import PeerError

log = logging.getLogger(__name__)

BUFFER_BYTES = 256 * 1024
"""What one turn of the relay moves at most. Fits the L2 cache; more did not measure faster."""

SMALL_BYTES = 16 * 1024

TURNS = 8
"""Small chunks that one direction moves before it lets others run even if it never had to wait."""

TURN_BYTES = 256 * 1024
"""And so many bytes: half a millisecond under TLS. Eight times as many made new connections wait six times as long
beside one bulk transfer (66 ms against 10), and moved nothing faster."""

RESET = struct.pack("ii", 1, 0)
"""``struct linger``: on, for no time."""


class Buffers:
    """Room for one chunk, shared by all connections of an engine: nobody awaits between filling and using it."""

    __slots__ = ("cipher", "plain")

    def __init__(self) -> None:
        self.plain = memoryview(bytearray(BUFFER_BYTES))
        self.cipher = memoryview(bytearray(BUFFER_BYTES))


class Leg(Protocol):
    """One end of a connection.

    ``receive_into`` does not let anybody else run between filling the view and returning; ``send`` has copied what
    it could not send before it lets anybody run. So all connections share one buffer, and an idle one holds none.
    """

    socket: socket.socket

    async def receive_into(self, view: memoryview) -> int:
        """Wait for bytes; 0 is the clean end of the peer's direction."""

    async def send(self, view: memoryview) -> None:
        """Send all of ``view``; waits while the peer does not read."""

    async def send_eof(self) -> None:
        """End our direction only."""


async def send_all(sock: socket.socket, data: bytes | memoryview) -> None:
    """Send all of ``data``; a view of a shared buffer may change as soon as this waits, so its rest is copied."""
    sent = send_some(sock, data)
    if sent == len(data):
        return
    rest = memoryview(data)[sent:] if isinstance(data, bytes) else memoryview(bytes(data[sent:]))
    while rest:
        await trio.lowlevel.wait_writable(sock)
        rest = rest[send_some(sock, rest) :]


def send_some(sock: socket.socket, data: bytes | memoryview) -> int:
    """How many bytes the kernel takes now."""
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0


async def receive_some(sock: socket.socket, view: memoryview) -> int:
    """Wait for bytes and put them into ``view``; 0 at the end."""
    while True:
        try:
            return sock.recv_into(view)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)


class PlainLeg:
    """A TCP end without TLS. ``initial`` are bytes that were read from it already."""

    __slots__ = ("_initial", "socket")

    def __init__(self, sock: socket.socket, initial: bytes = b"") -> None:
        self.socket = sock
        self._initial = initial

    async def receive_into(self, view: memoryview) -> int:
        """See ``Leg``."""
        if self._initial:
            count = min(len(self._initial), len(view))
            view[:count] = self._initial[:count]
            self._initial = self._initial[count:]
            return count
        return await receive_some(self.socket, view)

    async def send(self, view: memoryview) -> None:
        """See ``Leg``."""
        await send_all(self.socket, view)

    async def send_eof(self) -> None:
        """See ``Leg``."""
        self.socket.shutdown(socket.SHUT_WR)


class TlsLeg:
    """A TCP end that speaks TLS.

    ``lenient``: an end without close_notify counts as clean, for servers outside the mesh, many of which do so.
    """

    __slots__ = ("_buffers", "_lenient", "_sending", "socket", "tls")

    def __init__(self, sock: socket.socket, tls: Tls, buffers: Buffers, *, lenient: bool = False) -> None:
        self.socket = sock
        self.tls = tls
        self._buffers = buffers
        self._lenient = lenient
        self._sending = trio.Lock()

    async def handshake(self) -> None:
        """Complete the handshake, the peer's certificate verified up to its CA; who it is, is the caller's to check.

        Raises:
            TlsError: it failed or the peer went away.
            OSError: the connection failed.
        """
        try:
            while not self.tls.handshake():
                await self._flush()
                await self._read_more(SMALL_BYTES)
        except TlsError:
            # The alert tells the peer why. It fits the socket buffer or is not worth waiting for.
            if alert := self.tls.take():
                send_some(self.socket, alert)
            raise
        await self._flush()

    async def receive_into(self, view: memoryview) -> int:
        """See ``Leg``.

        Raises:
            TlsError: broken, or ended without close_notify.
        """
        while True:
            # The answer to a key update; never between reading and returning. A sender that holds the lock takes it
            # along, and waiting for it would be waiting for the peer to read before we do.
            if self.tls.has_output() and not self._sending.locked():
                await self._flush()
            try:
                count = self.tls.read_into(view)
            except TruncatedError:
                if self._lenient:
                    return 0
                raise
            if count is not None:
                return count
            await self._read_more(BUFFER_BYTES)

    async def send(self, view: memoryview) -> None:
        """See ``Leg``."""
        self.tls.write(view)
        await self._flush()

    async def send_eof(self) -> None:
        """See ``Leg``. The TCP direction stays open: our side may have to answer a key update."""
        self.tls.close_write()
        await self._flush()

    async def _read_more(self, limit: int) -> None:
        cipher = self._buffers.cipher[:limit]
        if count := await receive_some(self.socket, cipher):
            self.tls.feed(cipher[:count])
        else:
            self.tls.feed_eof()

    async def _flush(self) -> None:
        # Both directions produce records, and records must leave in order.
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            while data := self.tls.take():
                await send_all(self.socket, data)
        finally:
            self._sending.release()


def tune(sock: socket.socket) -> None:
    """Non-blocking, no delay for small writes, and the kernel looks after peers that vanished."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def abort(sock: socket.socket) -> None:
    """Close with a reset, so that the peer does not take what it got for all there was."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    finally:
        sock.close()


@dataclass(eq=False, slots=True)
class Connection:
    """One accepted connection. ``uris`` are the client's, None while it has shown none; ``sni`` chose its route.

    ``upstream`` are the labels of the upstream that it is counted at, empty while it has none.
    """

    scope: trio.CancelScope
    outcome: str = "done"
    is_cut: bool = False
    uris: tuple[str, ...] | None = None
    sni: bytes = b""
    upstream: tuple[str, ...] = ()
    is_plaintext: bool = False
    received: int = 0
    sent: int = 0
    seen: int = -1
    ended: set[str] = field(default_factory=set)

    def end(self, outcome: str) -> None:
        """Cut it now, for this reason."""
        self.outcome = outcome
        self.is_cut = True
        self.scope.cancel()


async def relay(connection: Connection, client: Leg, upstream: Leg, view: memoryview) -> None:
    """Carry bytes both ways until both directions have ended, one has failed, or the connection is cut.

    ``upstream`` is closed then, ``client`` is the caller's. ``view`` is the room for one chunk.
    """
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, connection, upstream, client, "down", view)
            await pump(connection, client, upstream, "up", view)
    finally:
        if connection.outcome == "done" and len(connection.ended) == 2:
            upstream.socket.close()
        else:
            abort(upstream.socket)


async def pump(connection: Connection, source: Leg, target: Leg, direction: str, view: memoryview) -> None:
    """Carry one direction, ``up`` from the client or ``down`` to it, until it ends."""
    up = direction == "up"
    turns = moved = 0
    try:
        while count := await source.receive_into(view):
            if up:
                connection.received += count
            else:
                connection.sent += count
            try:
                await target.send(view[:count])
            except (ConnectionError, TlsError):
                # A server that has said all it had to and went away is no failure for the client who got it all.
                other = "down" if up else "up"
                connection.end("done" if other in connection.ended else "reset")
                return
            turns, moved = turns + 1, moved + count
            if turns == TURNS or moved >= TURN_BYTES:
                turns = moved = 0
                await trio.lowlevel.checkpoint()
        await target.send_eof()
        connection.ended.add(direction)
    except OSError as error:
        # ENOTCONN: the peer has reset it already, which the other direction sees too.
        log.debug("%s: %s", direction, error)
        connection.end("reset")
    except PeerError as error:
        log.debug("%s: %s", direction, error)
        connection.end("tls")
