"""What a connection speaks, by its first bytes, and the connection with these bytes put back."""

from contextlib import suppress

import trio

from meshd.rpc.guard import PREFACE


class Replayed(trio.abc.Stream):
    """A stream of which some bytes were read already: they come first, once more."""

    def __init__(self, stream: trio.abc.Stream, first: bytes) -> None:
        self._stream = stream
        self._first = first

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio."""
        if self._first:
            first, self._first = self._first, b""
            await trio.lowlevel.checkpoint()
            return first
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See trio."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """See trio."""
        await self._stream.aclose()


async def first_bytes(stream: trio.abc.Stream, wait_s: float) -> bytes:
    """As many bytes as it takes to tell HTTP/2 (then exactly its preface) from anything else; maybe none in time."""
    first = b""
    with trio.move_on_after(wait_s), suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        while first != PREFACE and PREFACE.startswith(first):
            data = await stream.receive_some(len(PREFACE) - len(first))
            if not data:
                break
            first += data
    return first
