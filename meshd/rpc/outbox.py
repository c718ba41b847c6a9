"""What waits to be written to a transport, in order, and the one loop that writes it."""

from collections.abc import Callable

import trio

WRITE_BYTES = 64 * 1024
"""What is given to the transport at a time. TLS keeps a buffer as large as the largest write for as long as the
connection lives, and encrypting a megabyte holds up the loop."""


class Outbox:
    """A bounded queue in two steps: above ``limit_bytes`` senders are to wait, above twice that the reader too.

    Nothing blocks in ``put``: the bound is kept by those who ask ``congested`` first. ``on_room`` is called when
    senders may go on.
    """

    def __init__(self, transport: trio.abc.Stream, limit_bytes: int, on_room: Callable[[], None]) -> None:
        self.queued_bytes = 0
        """Bytes waiting, those in the middle of being written included."""
        self._transport = transport
        self._limit_bytes = limit_bytes
        self._on_room = on_room
        self._chunks: list[bytes] = []
        self._work = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._closing = False
        # Nothing but the end of the connection stops the writer: a frame that is begun is finished.
        self._scope = trio.CancelScope(shield=True)

    @property
    def congested(self) -> bool:
        """Whether senders are to wait."""
        return self.queued_bytes >= self._limit_bytes

    def put(self, data: bytes) -> None:
        """Queue bytes (whole frames)."""
        self._chunks.append(data)
        self.queued_bytes += len(data)
        self._work.unpark_all()

    def close(self, linger_s: float) -> None:
        """Write what waits for at most ``linger_s``, then let ``run`` return."""
        self._closing = True
        self._scope.deadline = trio.current_time() + linger_s
        self._work.unpark_all()
        self._room.unpark_all()

    async def wait_for_room(self) -> None:
        """Wait until less than twice the limit waits, or the end."""
        while self.queued_bytes > 2 * self._limit_bytes and not self._closing:
            await self._room.park()

    def _take(self) -> bytes:
        """What to write next: as many chunks as fit into ``WRITE_BYTES``, at least one."""
        size = count = 0
        for chunk in self._chunks:
            size += len(chunk)
            if count and size > WRITE_BYTES:
                break
            count += 1
        taken, self._chunks = self._chunks[:count], self._chunks[count:]
        return taken[0] if count == 1 else b"".join(taken)

    async def run(self) -> None:
        """Write until closed. Raises what the transport raises."""
        with self._scope:
            while self._chunks or not self._closing:
                if not self._chunks:
                    await self._work.park()
                    continue
                data = self._take()
                await self._transport.send_all(data)
                self.queued_bytes -= len(data)
                if not self.congested:
                    self._room.unpark_all()
                    self._on_room()
