"""One call's half of the work that server and client share: messages in and out of one HTTP/2 stream."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import trio

from meshd.model.errors import MeshdError
from meshd.rpc.framing import PREFIX_BYTES, Deframer, frame_compressed, frame_parts
from meshd.rpc.headers import Metadata
from meshd.rpc.status import RpcError, Status

if TYPE_CHECKING:
    from meshd.rpc.http2 import Connection

CHUNK_BYTES = 64 * 1024
"""A sender yields to the others on its connection after so much."""
RESET_CANCEL = 8


class Stream:
    """A bidirectional stream of messages (raw bytes). One task may receive and others send at the same time."""

    def __init__(self, connection: "Connection", stream_id: int) -> None:
        self.connection = connection
        self.id = stream_id
        self.gzip = False
        """Compress what is sent."""
        self.local_ended = False
        self.remote_ended = False
        self.failure: MeshdError | None = None
        """Why nothing more can be sent or received, other than by a clean end."""
        self.writable = trio.lowlevel.ParkingLot()
        self._readable = trio.lowlevel.ParkingLot()
        self._turn = trio.lowlevel.ParkingLot()
        self._sending = False
        self._inbound = bytearray()  # arrived and not looked at; the window bounds it
        self._credit = 0
        self._deframer = Deframer(connection.limits.max_message_bytes, "identity")
        self.uncredited = 0

    @property
    def peer(self) -> str:
        """The other side's ``ip:port``."""
        return self.connection.peer

    async def receive(self) -> bytes | None:
        """The peer's next message; None when it has ended its side cleanly. One task at a time.

        Raises:
            RpcError: the call ended with a status (client), or a message is broken or over the limit.
            UnavailableError: the connection is lost.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while (message := self._deframer.take()) is None:
            if self._inbound:
                self._deframer.feed(self._inbound)
                self._inbound.clear()
                credit, self._credit = self._credit, 0
                self.connection.credit(self, credit)
            elif self.failure is not None:
                raise self.failure.with_traceback(None)
            elif self.remote_ended:
                self.finish_receiving()
                return None
            else:
                await self._readable.park()
                waited = True
        self.connection.count_message("received", len(message))
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()  # others' turn; a cancel here would lose the message
        return message

    async def receive_some(self) -> bytes:
        """The peer's next bytes as they come, for a stream that is no gRPC; empty when it has ended its side cleanly.

        Raises:
            RpcError: the peer has reset the stream.
            UnavailableError: the connection is lost.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._inbound:
            if self.failure is not None:
                raise self.failure.with_traceback(None)
            if self.remote_ended:
                return b""
            await self._readable.park()
        data = bytes(self._inbound)
        self._inbound.clear()
        credit, self._credit = self._credit, 0
        self.connection.credit(self, credit)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    def finish_receiving(self) -> None:
        """Called when all messages are read: raise if this was no clean end."""
        self._deframer.finish()

    async def send(self, message: bytes, *, last: bool = False) -> None:
        """Send one message; returns when it is on its way, waits while the peer's window is shut.

        ``last`` ends this side with it. A cancel before the first byte leaves the stream as it was; after it, the
        stream is reset (only this one).

        Raises:
            RpcError: the call has ended, or the message is over the limit.
            UnavailableError: the connection is lost.
        """
        await self._send((message,), last=last)

    async def send_parts(self, parts: Sequence[bytes]) -> None:
        """Send one message that is the concatenation of ``parts``, without ever having it whole in memory.

        Raises:
            RpcError, UnavailableError: as ``send``.
        """
        await self._send(parts, last=False)

    async def _send(self, parts: Sequence[bytes], *, last: bool) -> None:
        size, limit = sum(map(len, parts)), self.connection.limits.max_sent_bytes
        if size > limit:
            raise RpcError(Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes is over the limit of {limit}")
        await self._take_turn()
        try:
            if self.gzip:
                framed = await self._compressed(b"".join(parts))
                self.before_sending()
                await self._send_chunks((framed,), len(framed), end=last)
            else:
                self.before_sending()
                await self._send_chunks(frame_parts(parts, CHUNK_BYTES), PREFIX_BYTES + size, end=last)
        finally:
            self._sending = False
            self._turn.unpark()
        self.connection.count_message("sent", size)
        await trio.lowlevel.cancel_shielded_checkpoint()  # the writer's turn; what is sent is no more to be cancelled

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are, for a stream that is no gRPC, and end this side with them.

        Raises:
            RpcError, UnavailableError: as ``send``.
        """
        await self._take_turn()
        try:
            self.check_sendable()
            await self._send_chunks((data,), len(data), end=True)
        finally:
            self._sending = False
            self._turn.unpark()

    def before_sending(self) -> None:
        """Called before every message: send the headers that must come first; raise if sending is over."""
        self.check_sendable()

    def check_sendable(self) -> None:
        """Raise if nothing more can be sent."""
        if self.failure is not None:
            raise self.failure.with_traceback(None)
        if self.local_ended:
            raise RpcError(Status.CANCELLED, "this side of the call has ended already")

    def reset(self, error_code: int, failure: MeshdError) -> None:
        """End the stream at once, both ways; the connection goes on."""
        if self.failure is None:
            self.connection.reset_stream(self, error_code)
            self.fail(failure)

    # -- what the connection tells the stream

    def accept_encoding(self, fields: dict[str, str]) -> None:
        """Take the peer's ``grpc-encoding``; raises RpcError UNIMPLEMENTED for one we do not know."""
        encoding = fields.get("grpc-encoding", "identity")
        if encoding not in ("identity", "gzip"):
            raise RpcError(Status.UNIMPLEMENTED, f"grpc-encoding {encoding!r} is not supported; use identity or gzip")
        self._deframer = Deframer(self.connection.limits.max_message_bytes, encoding)

    def on_headers(self, headers: Metadata) -> None:
        """The peer's headers or trailers have come."""

    def on_data(self, data: bytes, credit: int) -> None:
        """Bytes have come; ``credit`` of the stream's window is given back when they are read."""
        self._inbound += data
        self._credit += credit
        self._readable.unpark_all()

    def on_end(self) -> None:
        """The peer has ended its side."""
        self.remote_ended = True
        self._readable.unpark_all()

    def fail(self, failure: MeshdError) -> None:
        """Nothing more comes or goes; wake who waits."""
        if self.failure is None:
            self.failure = failure
        self._readable.unpark_all()
        self.writable.unpark_all()

    # -- sending

    async def _take_turn(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._sending:
            await self._turn.park()
        self._sending = True

    async def _compressed(self, message: bytes) -> bytes:
        for piece in frame_compressed(message):
            if piece is not None:
                return piece
            await trio.lowlevel.checkpoint()
        raise AssertionError("frame_compressed ends with a message")

    async def _send_chunks(self, chunks: Iterable[bytes], size: int, *, end: bool = False) -> None:
        """Send chunks that are ``size`` bytes together, as the peer's window has room."""
        connection = self.connection
        sent = 0
        whole = False
        try:
            for data in chunks:
                view = memoryview(data)
                at = 0
                while not whole and (at < len(data) or not size):
                    self.check_sendable()
                    if connection.congested or (room := connection.window(self)) <= 0:
                        await self.writable.park()
                        continue
                    chunk = view[at : at + min(room, CHUNK_BYTES)]
                    at += len(chunk)
                    sent += len(chunk)
                    whole = sent == size
                    connection.send_data(self, chunk, end=end and whole)
                    if not whole:
                        await trio.lowlevel.checkpoint()
        finally:
            if sent and not whole:  # cancelled, or failed, in the middle of a message
                self.reset(
                    RESET_CANCEL, RpcError(Status.CANCELLED, "an earlier message was cut in the middle by a cancel")
                )
