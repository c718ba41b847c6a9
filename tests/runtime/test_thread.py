import sys
import threading
import time

import pytest
import trio

from meshd.runtime.latest import Latest
from meshd.runtime.thread import SWITCH_INTERVAL_S, LoopThread


@pytest.fixture(autouse=True)
def _switch_interval() -> object:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


async def forever(*, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep_forever()


async def test_it_runs_in_a_thread_of_its_own_with_a_short_switch_interval(nursery: trio.Nursery) -> None:
    seen: list[str] = []

    async def main(*, task_status: trio.TaskStatus[None]) -> None:
        seen.append(threading.current_thread().name)
        await forever(task_status=task_status)

    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(0.005)
        for _ in range(3):
            await nursery.start(LoopThread("guest").run, main)
    finally:
        after = sys.getswitchinterval()
        sys.setswitchinterval(before)
    assert seen == 3 * ["guest"]
    assert after == pytest.approx(SWITCH_INTERVAL_S)


async def test_cancelling_waits_for_the_cleanup() -> None:
    log: list[str] = []

    async def main(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await forever(task_status=task_status)
        finally:
            time.sleep(0.05)
            log.append("cleaned up")

    async with trio.open_nursery() as nursery:
        await nursery.start(LoopThread("guest").run, main)
        nursery.cancel_scope.cancel()
    assert log == ["cleaned up"]


async def test_cancelling_before_it_has_begun_ends_it_too() -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(LoopThread("guest").run, forever)
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("early", [True, False])
async def test_an_exception_ends_the_host(early: bool) -> None:
    async def main(*, task_status: trio.TaskStatus[None]) -> None:
        if not early:
            task_status.started()
            await trio.sleep(0.01)
        raise LookupError("guest")

    async def host() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(LoopThread("guest").run, main)
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await host()
    assert caught.group_contains(LookupError, match="guest")


async def test_run_ends_when_the_guest_ends(nursery: trio.Nursery) -> None:
    async def main(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()

    with trio.fail_after(5):
        await LoopThread("guest").run(main)


async def test_cells_cross_both_ways_and_the_newest_wins(nursery: trio.Nursery) -> None:
    numbers, theirs = Latest(0), Latest(-1)
    thread = LoopThread("guest")
    mirrored, echoes = thread.mirror(numbers), thread.reflect(theirs)
    numbers.publish(1)  # between mirror and run

    async def main(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        seen = 0
        while True:
            seen, value = await mirrored.newer_than(seen)
            theirs.publish(value)

    await nursery.start(thread.run, main)
    for value in range(2, 500):
        numbers.publish(value)
        if value % 50 == 0:
            await trio.sleep(0.001)
    await until(echoes, 499)
    assert echoes.version < 500


async def test_a_cell_can_be_found_later(nursery: trio.Nursery) -> None:
    cells = {"a": Latest("first")}
    thread, theirs = LoopThread("guest"), Latest("")
    seen_there = thread.reflect(theirs)

    async def main(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        cell = thread.mirror_later(lambda: cells["a"], "nothing yet")
        assert cell.value == "nothing yet"
        seen = 0
        while True:
            seen, value = await cell.newer_than(seen)
            theirs.publish(value)

    await nursery.start(thread.run, main)
    await until(seen_there, "first")
    cells["a"].publish("second")
    await until(seen_there, "second")


async def until(cell: Latest, value: object) -> None:
    seen = 0
    with trio.fail_after(5):
        while cell.value != value:
            seen, _ = await cell.newer_than(seen)


async def test_a_guest_answers_while_the_host_computes(nursery: trio.Nursery) -> None:
    ticks: list[float] = []

    async def main(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            await trio.sleep(0.005)
            ticks.append(time.perf_counter())

    await nursery.start(LoopThread("guest").run, main)
    until = time.perf_counter() + 0.3
    while time.perf_counter() < until:  # the host's loop is stuck in Python code
        pass
    assert len(ticks) > 10
