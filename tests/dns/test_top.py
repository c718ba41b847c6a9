import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from meshd.dns.top import PERIOD_S, PERIODS, Summary, TopNames, merged


@given(st.lists(st.integers(0, 200), max_size=3000), st.integers(1, 20))
def test_a_summary_is_small_and_wrong_by_no_more_than_it_says(asked: list[int], size: int) -> None:
    summary = Summary(size)
    for i in asked:
        summary.add((b"%d" % i, "NOERROR"))
        assert len(summary.counts) < 2 * size
    true = Counter((b"%d" % i, "NOERROR") for i in asked)
    assert summary.error * size <= len(asked)
    for key, count in true.items():
        assert count - summary.error <= summary.counts.get(key, 0) <= count


def test_what_is_asked_most_is_found_below_a_flood_of_ever_new_names() -> None:
    top = TopNames(3)
    rng = random.Random(1)
    for i in range(60_000):
        top.tick(i / 2000)
        top.add((b"new%d" % i, "NXDOMAIN"))
        if i % 50 == 0:
            top.add((b"name%d" % min(int(rng.expovariate(1)), 2), "NOERROR"))
    assert [name for (name, _), _ in top.ranking(30)] == [b"name0", b"name1", b"name2"]


def test_the_last_minute_counts() -> None:
    top = TopNames(5)
    top.tick(0)
    top.add((b"old", "NOERROR"))
    top.tick(PERIOD_S)
    top.add((b"new", "NOERROR"))
    top.add((b"new", "NOERROR"))
    assert top.ranking(PERIOD_S) == [((b"new", "NOERROR"), 2), ((b"old", "NOERROR"), 1)]
    # Nobody asked since, so nothing ticked.
    assert top.ranking(PERIOD_S * PERIODS) == [((b"new", "NOERROR"), 2)]
    assert top.ranking(PERIOD_S * (PERIODS + 1)) == []
    top.tick(PERIOD_S * 1000)
    assert top.ranking(PERIOD_S * 1000) == []


def test_rankings_of_processes_are_one() -> None:
    assert merged([[("a", "NOERROR", 3), ("b", "NOERROR", 2)], [("b", "NOERROR", 2), ("b", "NXDOMAIN", 1)]], 2) == [
        ("b", "NOERROR", 4),
        ("a", "NOERROR", 3),
    ]
