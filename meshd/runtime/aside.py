"""What would be too much at once: long pure computations beside the loop, one at a time; other work, a few at a time.

The threads share the interpreter, so this makes nothing faster: it lets the loop run in between.
"""

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import trio

P = ParamSpec("P")
T = TypeVar("T")


class Aside:
    """A place for one computation at a time; others wait in line, so that together they hold up little else."""

    def __init__(self) -> None:
        self._line = trio.CapacityLimiter(1)

    async def run(self, compute: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``compute`` returns or raises. Cancelled in line at once, and in the thread once it is through."""
        return await trio.to_thread.run_sync(lambda: compute(*args, **kwargs), limiter=self._line)


class Few:
    """Room for so many pieces of work at once; others wait in line, in their order."""

    def __init__(self, room: int) -> None:
        self._room = trio.Semaphore(room)

    async def run(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``work`` returns or raises."""
        async with self._room:
            return await work(*args, **kwargs)
