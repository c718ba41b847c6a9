"""Long work of the control plane, cut into steps, so that the connections and queries of the same loop go on meanwhile.

Trio runs every task that is ready once in each turn of its loop, so a connection waits for the sum of one step of each.
All work that is driven from here shares one place in the turn: however many have something to do, a turn holds one
step (docs/adr/004-one-loop.md).
"""

import gc
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

T = TypeVar("T")

STEP_S = 0.0001
"""How long a step may be: a connection through two engines waits for several in a row. The turn around it costs some
hundredths of a millisecond."""

SMALL_STEPS = 4
"""What a small step sets off (a message that is sent, encrypted and answered) comes to half a millisecond or so."""

CLEAN_EVERY = 32
"""After so many single steps the young garbage is collected, before it is much."""

FULL_S, FULL_SHARE = 60.0, 1000
"""How often all garbage is looked for while there is such work: costs some milliseconds, so not more often; and half a
second with a thousand connections, so then less often."""


class _Place:
    """The one place in the turn of a loop, and what is left behind there."""

    def __init__(self) -> None:
        self.lock = trio.Lock()  # fair: whoever waits has its step in the next turn
        self.small = trio.Semaphore(SMALL_STEPS)
        self._unclean = 0
        self._full_at = trio.current_time() + FULL_S

    def left(self) -> None:
        """A step of somebody who does not clean is over: so many leave as much behind as one long one."""
        self._unclean += 1
        if self._unclean >= CLEAN_EVERY:
            self.clean()

    def clean(self) -> None:
        """Collect the garbage of a step.

        Python starts a collection after so many allocations less deallocations. Where resources replace others that
        count stays near zero; young objects gather by the ten thousand and are then gone through at once, which
        keeps every thread for 5-15 ms. A step's own are a few hundred.
        """
        self._unclean = 0
        if trio.current_time() < self._full_at:
            gc.collect(1)
        else:
            began = trio.current_time()
            gc.collect()
            ended = trio.current_time()
            self._full_at = ended + max(FULL_S, (ended - began) * FULL_SHARE)


_place: trio.lowlevel.RunVar[_Place] = trio.lowlevel.RunVar("meshd.steps")


def _our_place() -> _Place:
    try:
        return _place.get()
    except LookupError:
        place = _Place()
        _place.set(place)
        return place


@asynccontextmanager
async def one_step() -> AsyncIterator[None]:
    """The one place in the turn, for something that cannot be cut and that many may have to do at the same time."""
    place = _our_place()
    async with place.lock:
        yield
        place.left()


@asynccontextmanager
async def small_step() -> AsyncIterator[None]:
    """One of ``SMALL_STEPS`` places in the turn, for what takes some hundredths of a millisecond."""
    place = _our_place()
    async with place.small:
        yield
        place.left()


async def in_steps(work: Generator[object, None, T], step_s: float = STEP_S) -> T:
    """Run ``work`` to its end and return what it returns; it yields wherever it may be interrupted.

    Work that yields too seldom keeps the loop for as long as it likes; so yield every tenth of a millisecond or two.
    """
    place = _our_place()
    try:
        while True:
            async with place.lock:
                until = trio.current_time() + step_s
                while True:
                    try:
                        next(work)
                    except StopIteration as end:
                        result: T = end.value
                        return result
                    if trio.current_time() >= until:
                        break
                place.clean()
    finally:
        work.close()
