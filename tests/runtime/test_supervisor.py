import itertools
import logging
import random

import pytest
import trio

from meshd.model.errors import UnavailableError
from meshd.runtime.supervisor import leaves, retrying, supervise


class Recorder:
    def __init__(self, name, events, fail=None):
        self.name, self.events, self.fail = name, events, fail

    async def run(self, *, task_status):
        await trio.sleep(1)
        self.events.append(f"+{self.name}")
        task_status.started()
        try:
            if self.fail:
                await trio.sleep(5)
                raise self.fail
            await trio.sleep_forever()
        finally:
            self.events.append(f"-{self.name}")


async def test_tiers_start_in_order_and_stop_in_reverse(autojump_clock):
    events, stop = [], trio.Event()
    tiers = [[Recorder("store", events)], [Recorder("views", events)], [Recorder("dns", events)]]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise, tiers, stop, lambda: events.append("ready"))
        await trio.sleep(10)
        stop.set()
    assert events == ["+store", "+views", "+dns", "ready", "-dns", "-views", "-store"]


async def test_a_bug_in_any_tier_ends_all(autojump_clock):
    events = []
    tiers = [[Recorder("store", events)], [Recorder("views", events, fail=KeyError("bug"))], [Recorder("dns", events)]]
    with pytest.raises(ExceptionGroup) as caught:
        await supervise(tiers, trio.Event(), lambda: None)
    assert [type(e) for e in leaves(caught.value)] == [KeyError]
    assert {"-store", "-dns"} <= set(events)


async def test_weather_is_retried_with_backoff_and_a_clean_end_too(autojump_clock):
    times = []

    async def attempt():
        times.append(trio.current_time())
        if len(times) == 2:
            return
        raise OSError("away")

    with trio.move_on_after(100):
        await retrying(attempt, (OSError,), name="t", rng=random.Random(1), max_backoff_s=10)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert 0.1 <= gaps[0] <= 0.2
    assert all(g <= 10 for g in gaps)
    assert max(gaps) > 4


async def test_a_bug_passes_through_retrying_also_in_a_group(autojump_clock):
    async def attempt():
        raise ExceptionGroup("x", [OSError("away"), KeyError("bug")])

    with pytest.raises(ExceptionGroup):
        await retrying(attempt, (OSError,), name="t", rng=random.Random(1))


async def test_a_long_run_resets_the_backoff(autojump_clock):
    ends, starts = [], []

    async def attempt():
        starts.append(trio.current_time())
        if len(starts) == 8:
            await trio.sleep(120)
        ends.append(trio.current_time())
        raise OSError("away")

    with trio.move_on_after(400):
        await retrying(attempt, (OSError,), name="t", rng=random.Random(1))
    assert starts[7] - ends[6] > 1
    assert starts[8] - ends[7] <= 0.2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnavailableError("the database is away"), "t: the database is away; trying again"),
        (OSError("no route"), "t: OSError: no route; trying again"),
        (
            ExceptionGroup("x", [UnavailableError("gone"), ExceptionGroup("y", [UnavailableError("gone")])]),
            "t: gone; trying again",
        ),
        (
            ExceptionGroup("x", [UnavailableError("gone"), OSError("no route")]),
            "t: gone; OSError: no route; trying again",
        ),
    ],
)
async def test_each_cause_is_said_once_and_in_words(autojump_clock, caplog, error, said):
    async def attempt():
        raise error

    with trio.move_on_after(20):
        await retrying(attempt, (OSError, UnavailableError), name="t", rng=random.Random(1))
    assert [r.getMessage() for r in caplog.records] == [said]


async def test_who_says_it_himself_is_not_repeated(autojump_clock, caplog):
    async def attempt():
        raise UnavailableError("gone")

    with trio.move_on_after(20):
        await retrying(attempt, (UnavailableError,), name="t", rng=random.Random(1), level=logging.DEBUG)
    assert [r for r in caplog.records if r.levelno > logging.DEBUG] == []
