"""Long work of the control plane, cut into steps, so that the connections and queries of the same loop go on meanwhile.

Trio runs every task that is ready once in each turn of its loop, so a connection waits for the sum of one step of each.
All work that is driven from here shares one place in the turn: however many have something to do, a turn holds one
step (docs/adr/004-one-loop.md).
"""

from collections.abc import Generator
from typing import TypeVar

import trio

T = TypeVar("T")

STEP_S = 0.0002
"""How long a step may be: a connection through two engines waits for several in a row. The turn around it costs some
hundredths of a millisecond."""

_place: trio.lowlevel.RunVar[trio.Lock] = trio.lowlevel.RunVar("meshd.steps")


async def in_steps(work: Generator[object, None, T], step_s: float = STEP_S) -> T:
    """Run ``work`` to its end and return what it returns; it yields wherever it may be interrupted.

    Work that yields too seldom keeps the loop for as long as it likes; so yield every tenth of a millisecond or two.
    """
    try:
        place = _place.get()
    except LookupError:
        place = trio.Lock()
        _place.set(place)
    try:
        while True:
            async with place:  # fair: whoever waits has its step in the next turn
                until = trio.current_time() + step_s
                while True:
                    try:
                        next(work)
                    except StopIteration as end:
                        result: T = end.value
                        return result
                    if trio.current_time() >= until:
                        break
    finally:
        work.close()
