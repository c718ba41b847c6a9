"""A Trio loop of its own, in a thread of its own, for work that must not wait behind the main loop's.

The thread lives exactly as long as the ``run`` that hosts it: cancelling the one cancels the other, an exception in
the one ends the other. The two loops share the interpreter, so immutable values cross by reference; a ``Latest`` cell
is not safe between threads and crosses by a ``Mirror``.
"""

import contextlib
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

import trio

from meshd.runtime.latest import Latest

T = TypeVar("T")

SWITCH_INTERVAL_S = 0.00005
"""How long a busy thread may keep the interpreter while another waits for it. For the whole process.

It has to be less than a busy loop computes between two of its own system calls. With each call such a loop gives the
interpreter away for a moment too short for the waiting thread to wake up, and that starts the waiting anew: at 0.5 ms
and with steps of 0.1 ms, the hosted loop got its turn by luck (docs/adr/009-dns.md has figures)."""


class Main(Protocol):
    """What a hosted loop runs: calls ``started`` once useful, then goes on until cancelled."""

    async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run until cancelled."""


class Mirror(Generic[T]):
    """A cell of one loop that follows a cell of another. Newest wins here too: nothing queues between."""

    def __init__(self, initial: T) -> None:
        self.cell = Latest(initial)
        """For the following loop alone."""
        self._newest = initial

    def _publish(self) -> None:
        self.cell.publish(self._newest)

    async def follow(self, source: Latest[T], follower: trio.lowlevel.TrioToken) -> None:
        """In the source's loop: hand over every value that is not there yet, until the following loop is gone."""
        seen = source.version if source.value is self._newest else 0
        while True:
            seen, self._newest = await source.newer_than(seen)
            try:
                # Idempotent: however far the follower is behind, one call is waiting for it at most.
                follower.run_sync_soon(self._publish, idempotent=True)
            except trio.RunFinishedError:
                return


class LoopThread:
    """Hosts one loop. Use once.

    Cells cross in three ways: ``mirror`` and ``reflect`` are called before ``run``, ``mirror_later`` inside the hosted
    loop. What is passed to ``call_back`` runs in the hosting loop.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._inward: list[Callable[[trio.lowlevel.TrioToken], Awaitable[None]]] = []
        self._outward: list[Callable[[trio.lowlevel.TrioToken], Awaitable[None]]] = []
        self._hosting: trio.lowlevel.TrioToken | None = None
        self._hosted: trio.lowlevel.TrioToken | None = None
        self._scope: trio.CancelScope | None = None
        self._followers: trio.Nursery | None = None
        self._lock = threading.Lock()
        self._stopping = False

    def mirror(self, source: Latest[T]) -> Latest[T]:
        """A cell for the hosted loop that follows ``source``, a cell of the hosting loop."""
        mirror = Mirror(source.value)
        self._inward.append(partial(mirror.follow, source))
        return mirror.cell

    def reflect(self, source: Latest[T]) -> Latest[T]:
        """A cell for the hosting loop that follows ``source``, a cell of the hosted loop."""
        mirror = Mirror(source.value)
        self._outward.append(partial(mirror.follow, source))
        return mirror.cell

    def mirror_later(self, find: Callable[[], Latest[T]], initial: T) -> Latest[T]:
        """From the hosted loop: ``mirror`` of the cell that ``find``, called in the hosting loop, returns.

        Has the value ``initial`` until then. Follows until ``run`` ends, so it is for things that stay.
        """
        mirror = Mirror(initial)

        def begin() -> None:
            if self._followers is not None and self._hosted is not None:
                self._followers.start_soon(mirror.follow, find(), self._hosted)

        self.call_back(begin)
        return mirror.cell

    def call_back(self, function: Callable[..., object], *args: object) -> None:
        """From the hosted loop: run a function in the hosting loop, soon, without waiting for it.

        It must not raise: there is nobody to catch it. Silent if that loop has ended.
        """
        if self._hosting is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._hosting.run_sync_soon(function, *args)

    async def run(self, main: Main, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run ``main`` in the thread until it ends or this is cancelled; raises what it raises.

        A cancellation waits for ``main`` to clean up. ``started`` is passed on.
        """
        if sys.getswitchinterval() > SWITCH_INTERVAL_S:  # set only once: the interpreter cuts it to whole microseconds
            sys.setswitchinterval(SWITCH_INTERVAL_S)
        hosting = self._hosting = trio.lowlevel.current_trio_token()
        attached = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_when_cancelled)
            nursery.start_soon(self._follow_all, attached)
            self._followers = nursery
            with trio.CancelScope(shield=True):
                # A limiter of its own: the thread stays for good and must not take a place from the short ones.
                await trio.to_thread.run_sync(
                    trio.run, self._host, main, hosting, attached, task_status, limiter=trio.CapacityLimiter(1)
                )
            self._followers = None
            nursery.cancel_scope.cancel()
        # The thread may have ended because of a cancellation from here: then say so.
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _host(
        self, main: Main, hosting: trio.lowlevel.TrioToken, attached: trio.Event, task_status: trio.TaskStatus[None]
    ) -> None:
        """The hosted loop's first task."""
        threading.current_thread().name = self.name
        with trio.CancelScope() as scope:
            with self._lock:
                self._hosted, self._scope = trio.lowlevel.current_trio_token(), scope
                if self._stopping:
                    scope.cancel()
            self.call_back(attached.set)
            async with trio.open_nursery() as followers:
                for follow in self._outward:
                    followers.start_soon(follow, hosting)
                async with trio.open_nursery() as nursery:
                    await nursery.start(main)
                    self.call_back(task_status.started)
                followers.cancel_scope.cancel()

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
            for follow in self._inward:
                nursery.start_soon(follow, hosted)
