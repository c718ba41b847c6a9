from meshd.model.resource import ResourceKey
from meshd.xds.arrivals import AT_ONCE, EVERY_S, WAIT_S, Arrivals


def key(name: str) -> ResourceKey:
    return ResourceKey("Dataplane", "default", name)


def test_some_are_served_at_once_and_then_one_a_second() -> None:
    arrivals = Arrivals()
    assert [arrivals.wait_s(key("a"), 10.0) for _ in range(AT_ONCE + 2)] == [0.0] * AT_ONCE + [EVERY_S, 2 * EVERY_S]
    assert arrivals.wait_s(key("b"), 10.0) == 0.0


def test_who_comes_once_a_second_never_waits() -> None:
    arrivals = Arrivals()
    assert not any(arrivals.wait_s(key("a"), second * EVERY_S) for second in range(100))


def test_nobody_waits_longer_than_said_however_often_it_came() -> None:
    arrivals = Arrivals()
    assert max(arrivals.wait_s(key("a"), 0.01 * n) for n in range(10_000)) <= WAIT_S
    assert arrivals.wait_s(key("a"), 200.0) == 0.0


def test_who_has_not_come_for_long_is_forgotten() -> None:
    arrivals = Arrivals()
    for n in range(10_000):
        arrivals.wait_s(key(str(n)), float(n))
    assert len(arrivals._whole_at) < 200
