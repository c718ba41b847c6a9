"""Worker processes that answer instead of this one: started, told what changes, counted, replaced if they end or hang.

Each has a UDP socket of its own on the one port, made here and handed over, so that what waits in it when a worker ends
is answered by whoever comes next. While there is no worker for it, this process answers.
"""

import contextlib
import json
import logging
import math
import socket as stdlib_socket
import sys

import trio

from meshd.dns.cookies import Cookies
from meshd.dns.metrics import Counts, Tally, state_of
from meshd.dns.pipe import MAX_REPORT_BYTES, SERVE, Pending, Start, frames, order
from meshd.dns.server import Server
from meshd.dns.settings import DnsSettings
from meshd.dns.table import Change, NameTable
from meshd.runtime.log import is_json

log = logging.getLogger(__name__)

READ_BYTES = 1 << 16
SILENT_S = 5.0
"""A worker that serves tells what it counted every second. One that says nothing for so long hangs, and so does whoever
asked it: it is replaced."""
STOP_S = 2.0
"""How long a worker may take to see that it is over."""
FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 10.0
"""Between the end of a worker and the next, if they do not last."""
STABLE_S = 10.0


class Worker:
    """The place of one worker process, which is filled again when it ends. ``secret`` is that of all cookies."""

    def __init__(
        self,
        number: int,
        udp: stdlib_socket.socket,
        listeners: list[trio.SocketListener],
        table: NameTable,
        settings: DnsSettings,
        tally: Tally,
        secret: bytes,
    ) -> None:
        self._number = number
        self._udp = udp
        self._listeners = listeners
        self._table = table
        self._settings = settings
        self._tally = tally
        self._secret = secret
        self._cookies = Cookies(secret)
        self._pending = Pending()
        self._news = trio.Event()
        self.pid = 0
        """Of the process that answers; 0 while this one does."""

    def tell(self, change: Change) -> None:
        """What changed in the table."""
        self._pending.add(change)
        self._news.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a worker until cancelled; started once queries are answered, by whomever."""
        pause_s = 0.0
        while True:
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                standing_in = trio.CancelScope()
                await nursery.start(self._stand_in, standing_in)
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await trio.sleep(pause_s)
                await self._work(standing_in)
                standing_in.cancel()
            lasted_s = trio.current_time() - began
            pause_s = FIRST_PAUSE_S if lasted_s > STABLE_S else min(max(pause_s * 2, FIRST_PAUSE_S), MAX_PAUSE_S)

    async def _stand_in(self, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        with scope:
            server = Server(self._udp, self._listeners, self._table, self._settings, self._tally, self._cookies)
            await server.run(task_status=task_status)

    async def _work(self, standing_in: trio.CancelScope) -> None:
        """One process from its start to its end; ``standing_in`` is cancelled when it serves."""
        ours, theirs = stdlib_socket.socketpair()
        ours.setblocking(False)
        files = tuple(listener.socket.fileno() for listener in self._listeners)
        with theirs:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "meshd.dns.app"], stdin=theirs, pass_fds=(self._udp.fileno(), *files)
            )
        try:
            async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
                await self._talk(stream, process.pid, files, standing_in)
        finally:
            self.pid = 0
            self._tally.states.pop(self, None)
            await ended(process)
        log.warning("dns: worker %d ended with %s; this process answers meanwhile", self._number, process.returncode)
        self._tally.worker("ended")

    async def _talk(
        self, stream: trio.SocketStream, pid: int, files: tuple[int, ...], standing_in: trio.CancelScope
    ) -> None:
        """Tell a process all and what changes, and listen to it, until it is gone."""
        form = "json" if is_json() else "text"
        level = logging.getLevelName(log.root.level).lower()
        start = Start(self._settings, self._secret, self._table.recursive, self._udp.fileno(), files, level, form)
        self._pending = Pending()
        self._pending.add(self._table.contents())
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(order(start))
            for change in self._pending.take():
                await stream.send_all(order(change))
            await stream.send_all(order(SERVE))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_all, stream)
            await self._listen(stream, pid, standing_in)
            nursery.cancel_scope.cancel()

    async def _tell_all(self, stream: trio.SocketStream) -> None:
        # A process that does not take what it is told has ended, or will be seen to have by who listens.
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                self._news = trio.Event()
                for change in self._pending.take():
                    await stream.send_all(order(change))
                if not self._pending:
                    await self._news.wait()

    async def _listen(self, stream: trio.SocketStream, pid: int, standing_in: trio.CancelScope) -> None:
        data = b""
        before: Counts = {}
        with contextlib.suppress(trio.BrokenResourceError, ValueError, TypeError, LookupError):
            while more := await self._hear(stream):
                reports, data = frames(data + more, MAX_REPORT_BYTES)
                for report in reports:
                    said = json.loads(report)
                    if "counts" in said:
                        self._tally.absorb(before, said["counts"])
                        before = said["counts"]
                        state = state_of(said["state"])
                        self._tally.states[self] = lambda state=state: state  # type: ignore[misc]
                    else:
                        self.pid = pid
                        self._tally.worker("started")
                        standing_in.cancel()

    async def _hear(self, stream: trio.SocketStream) -> bytes:
        """What a process says next; nothing if it is gone, or serves and says nothing for too long."""
        said = b""
        with trio.move_on_after(SILENT_S if self.pid else math.inf) as waiting:
            said = bytes(await stream.receive_some(READ_BYTES))
        if waiting.cancelled_caught:
            log.warning("dns: worker %d has said nothing for %.0f s", self._number, SILENT_S)
        return said


async def ended(process: trio.Process) -> None:
    """Wait until a process that was told to end has; it is killed if it takes too long."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(STOP_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
