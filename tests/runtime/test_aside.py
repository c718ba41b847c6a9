import threading
import time

import pytest
import trio
import trio.testing

from meshd.runtime.aside import Aside, Few


async def test_the_loop_runs_meanwhile_and_one_computation_at_a_time():
    aside, lock, here = Aside(), threading.Lock(), threading.get_ident()
    turns = 0

    def compute(number: int) -> int:
        assert threading.get_ident() != here
        assert lock.acquire(blocking=False)
        time.sleep(0.1)
        lock.release()
        return number

    done = []

    async def one(number: int) -> None:
        done.append(await aside.run(compute, number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, 1)
        nursery.start_soon(one, 2)
        while len(done) < 2:
            await trio.sleep(0.01)
            turns += 1
    assert sorted(done) == [1, 2]
    assert turns > 5


async def test_what_it_raises_is_raised():
    with pytest.raises(ValueError, match="no"):
        await Aside().run(int, "no")


async def test_a_few_at_a_time_the_others_in_their_order(autojump_clock):
    few, begun, running, most = Few(2), [], 0, 0

    async def one(number: int) -> int:
        nonlocal running, most
        begun.append(number)
        running += 1
        most = max(most, running)
        await trio.sleep(1 + number / 10)
        running -= 1
        if number == 1:
            raise ValueError
        return number

    async def asked(number: int) -> None:
        if number == 1:
            with pytest.raises(ValueError):
                await few.run(one, number)
        else:
            assert await few.run(one, number) == number

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(asked, number)
            await trio.testing.wait_all_tasks_blocked()
    assert begun == list(range(5))
    assert (most, running) == (2, 0)
