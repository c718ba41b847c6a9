"""Steps: one place in the turn, the result comes out, and nothing is left behind."""

import gc
import weakref
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager

import pytest
import trio

from meshd.runtime.steps import CLEAN_EVERY, FULL_S, SMALL_STEPS, in_steps, one_step, small_step


def counting(count: int, log: list[str], name: str) -> Generator[None, None, str]:
    for i in range(count):
        log.append(f"{name}{i}")
        yield
    return name


async def test_returns_what_the_work_returns() -> None:
    assert await in_steps(counting(3, [], "a")) == "a"


class Turns(trio.abc.Instrument):
    """Notes where a turn of the loop begins."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def after_io_wait(self, timeout: float) -> None:
        del timeout
        self._log.append("|")


async def test_one_step_of_all_work_in_a_turn_of_the_loop() -> None:
    log: list[str] = []
    instrument = Turns(log)
    trio.lowlevel.add_instrument(instrument)
    async with trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(in_steps, counting(10, log, name), 0.0)
    trio.lowlevel.remove_instrument(instrument)
    turns = [turn.split() for turn in " ".join(log).split("|")]
    assert max(len(turn) for turn in turns) == 1
    assert sorted(entry for turn in turns for entry in turn) == sorted(f"{n}{i}" for n in "ab" for i in range(10))


@pytest.mark.parametrize(("step", "at_most"), [(one_step, 1), (small_step, SMALL_STEPS)])
async def test_what_cannot_be_cut_takes_turns(
    step: Callable[[], AbstractAsyncContextManager[None]], at_most: int
) -> None:
    log: list[str] = []

    async def work() -> None:
        async with step():
            log.append("x")

    instrument = Turns(log)
    trio.lowlevel.add_instrument(instrument)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(work)
    trio.lowlevel.remove_instrument(instrument)
    turns = "".join(log).split("|")
    assert "".join(turns) == "x" * 20
    assert max(map(len, turns)) == at_most


async def test_many_single_steps_leave_no_garbage_behind() -> None:
    left = weakref.ref(Cycle())
    gc.disable()
    try:
        for _ in range(CLEAN_EVERY):
            async with small_step():
                pass
    finally:
        gc.enable()
    assert left() is None


async def test_several_yields_share_a_step_while_there_is_time(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock  # on it no time passes, so a step has all the time it wants
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(in_steps, counting(3, log, name))
    assert "".join(log) in {"a0a1a2b0b1b2", "b0b1b2a0a1a2"}


async def test_an_error_leaves_the_place_to_others() -> None:
    def failing() -> Generator[None, None, None]:
        yield
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await in_steps(failing())
    assert await in_steps(counting(1, [], "a")) == "a"


async def test_cancelled_work_is_closed() -> None:
    closed: list[bool] = []

    def endless() -> Generator[None, None, None]:
        try:
            while True:
                yield
        finally:
            closed.append(True)

    with trio.move_on_after(0.01):
        await in_steps(endless())
    assert closed == [True]


class Cycle:
    """Only a collection finds it."""

    def __init__(self) -> None:
        self.itself = self


async def test_the_garbage_of_a_step_is_collected_after_it() -> None:
    gone: list[bool] = []

    def littering() -> Generator[None, None, None]:
        left = weakref.ref(Cycle())
        yield
        gone.append(left() is None)

    gc.disable()
    try:
        await in_steps(littering(), 0.0)
    finally:
        gc.enable()
    assert gone == [True]


async def test_all_garbage_is_looked_for_once_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    generations: list[int] = []

    def collected(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            generations.append(info["generation"])

    await in_steps(counting(1, [], "a"))
    gc.disable()
    gc.callbacks.append(collected)
    try:
        await in_steps(counting(3, [], "a"), 0.0)
        assert generations == [1, 1, 1]
        await trio.sleep(FULL_S)
        await in_steps(counting(3, [], "a"), 0.0)
    finally:
        gc.callbacks.remove(collected)
        gc.enable()
    assert generations == [1, 1, 1, 2, 1, 1]
