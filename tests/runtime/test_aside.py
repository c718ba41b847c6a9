import threading
import time

import pytest
import trio

from meshd.runtime.aside import Aside


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
