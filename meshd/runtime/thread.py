"""A Trio loop of its own, in a thread of its own, for work that must not wait behind the main loop's.

The thread lives exactly as long as the ``run`` that hosts it: cancelling the one cancels the other, an exception in
the one ends the other. The two loops share the interpreter, so immutable values cross by reference; a ``Latest`` cell
is not safe between threads and crosses by ``mirror``.
"""

import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import trio

from meshd.runtime.latest import Latest

T = TypeVar("T")

SWITCH_INTERVAL_S = 0.0005
"""How long a busy thread may keep the interpreter while another waits for it: Python's own 5 ms, paid at every wake-up
of the hosted loop, would be most of its latency. For the whole process; costs a busy loop a few per cent
(docs/adr/004-one-loop.md)."""


class Main(Protocol):
    """What a hosted loop runs: calls ``started`` once useful, then goes on until cancelled."""

    async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run until cancelled."""


class Mirror(Generic[T]):
    """A cell of the hosted loop that follows one of the hosting loop. Newest wins here too: nothing queues between."""

    def __init__(self, source: Latest[T]) -> None:
        self.source = source
        self.cell = Latest(source.value)
        """For the hosted loop alone."""
        self._newest = source.value

    def _publish(self) -> None:
        self.cell.publish(self._newest)

    async def follow(self, hosted: trio.lowlevel.TrioToken) -> None:
        """In the hosting loop: hand over every new value, until cancelled or the hosted loop is gone."""
        seen = self.source.version if self._newest is self.source.value else 0
        while True:
            seen, self._newest = await self.source.newer_than(seen)
            try:
                # Idempotent: however far the hosted loop is behind, one call is waiting for it at most.
                hosted.run_sync_soon(self._publish, idempotent=True)
            except trio.RunFinishedError:
                return


class LoopThread:
    """Hosts one loop. Use once.

    ``mirror`` first, then ``run``; what is passed to ``call_back`` runs in the hosting loop.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._mirrors: list[Mirror[object]] = []
        self._hosting: trio.lowlevel.TrioToken | None = None
        self._hosted: trio.lowlevel.TrioToken | None = None
        self._scope: trio.CancelScope | None = None
        self._lock = threading.Lock()
        self._stopping = False

    def mirror(self, source: Latest[T]) -> Latest[T]:
        """A cell that the hosted loop may wait on and that follows ``source``, a cell of the hosting loop."""
        mirror = Mirror(source)
        self._mirrors.append(mirror)  # type: ignore[arg-type]  # a list of mirrors of anything; each is consistent
        return mirror.cell

    def call_back(self, function: Callable[..., object], *args: object) -> None:
        """From the hosted loop: run a function in the hosting loop, soon, without waiting for it.

        For results going the other way, as ``call_back(cell.publish, value)``. Silent if that loop has ended.
        """
        if self._hosting is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._hosting.run_sync_soon(function, *args)

    async def run(self, main: Main, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run ``main`` in the thread until it ends or this is cancelled; raises what it raises.

        A cancellation waits for ``main`` to clean up. ``started`` is passed on.
        """
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        self._hosting = trio.lowlevel.current_trio_token()
        attached = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_when_cancelled)
            nursery.start_soon(self._follow_all, attached)
            with trio.CancelScope(shield=True):
                # A limiter of its own: the thread stays for good and must not take a place from the short ones.
                await trio.to_thread.run_sync(
                    trio.run, self._host, main, attached, task_status, limiter=trio.CapacityLimiter(1)
                )
            nursery.cancel_scope.cancel()
        # The thread may have ended because of a cancellation from here: then say so.
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _host(self, main: Main, attached: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """The hosted loop's first task."""
        threading.current_thread().name = self.name
        with trio.CancelScope() as scope:
            with self._lock:
                self._hosted, self._scope = trio.lowlevel.current_trio_token(), scope
                if self._stopping:
                    scope.cancel()
            self.call_back(attached.set)
            async with trio.open_nursery() as nursery:
                await nursery.start(main)
                self.call_back(task_status.started)

    async def _stop_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with self._lock:
                self._stopping = True
                hosted, scope = self._hosted, self._scope
            if hosted is not None and scope is not None:
                with contextlib.suppress(trio.RunFinishedError):
                    hosted.run_sync_soon(scope.cancel)

    async def _follow_all(self, attached: trio.Event) -> None:
        await attached.wait()
        hosted = self._hosted
        if hosted is None:
            raise AssertionError("unreachable: attached is set after the token")
        async with trio.open_nursery() as nursery:
            for mirror in self._mirrors:
                nursery.start_soon(mirror.follow, hosted)
