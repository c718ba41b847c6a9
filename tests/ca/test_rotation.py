from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.ca import rotation
from meshd.ca.identity import Identity
from meshd.ca.rotation import Reason
from tests.ca.builders import NOW

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
ONE = Identity("default", ("a",), b"chain", b"key", NOW - 10 * SECOND, NOW + 24 * HOUR)
FAR = NOW + 1000 * HOUR


@pytest.mark.parametrize(
    ("identity", "uris", "is_current", "root_ends", "life", "expected"),
    [
        (None, ("a",), False, FAR, DAY, (NOW, Reason.FIRST)),
        (replace(ONE, not_after=NOW), ("a",), True, FAR, DAY, (NOW, Reason.FIRST)),
        (ONE, ("a", "b"), True, FAR, DAY, (NOW, Reason.URIS)),
        (ONE, ("a",), False, FAR, DAY, (NOW + 2 * SECOND, Reason.AUTHORITY)),
        (replace(ONE, not_after=NOW + SECOND), ("a",), False, FAR, DAY, (NOW + SECOND, Reason.AUTHORITY)),
        (ONE, ("a",), True, FAR, DAY, (NOW + 12 * HOUR, Reason.HALF_LIFE)),
        (ONE, ("a",), True, NOW + 24 * HOUR, 2 * DAY, (NOW + 24 * HOUR, Reason.HALF_LIFE)),
        (ONE, ("a",), True, FAR, HOUR, (NOW, Reason.LIFE)),
        (ONE, ("a",), True, FAR, DAY + HOUR, (NOW, Reason.LIFE)),
        (ONE, ("a",), True, FAR, DAY + SECOND / 2, (NOW + 12 * HOUR, Reason.HALF_LIFE)),
        (ONE, ("a",), False, FAR, HOUR, (NOW + 2 * SECOND, Reason.AUTHORITY)),
    ],
    ids=[
        "first",
        "expired",
        "uris",
        "new CA settles",
        "new CA, old cert ends",
        "half life",
        "as long as its CA",
        "shorter",
        "longer",
        "fraction of a second",
        "new CA and life settle",
    ],
)
def test_when_the_next_certificate_is_due(identity, uris, is_current, root_ends, life, expected):
    since = NOW - 3 * SECOND
    found = rotation.due(identity, uris, is_current=is_current, root_ends=root_ends, since=since, life=life, now=NOW)
    assert found == expected


def test_half_life_does_not_count_the_back_dating():
    short = replace(ONE, not_after=NOW + 10 * SECOND)
    assert rotation.half_life(short) == NOW + 5 * SECOND


def test_both_roots_are_trusted_for_an_hour_after_a_change():
    trust = rotation.advance(None, b"old\n", NOW)
    changed = rotation.advance(trust, b"new\n", NOW + HOUR)
    assert changed.bundle == b"new\nold\n"
    assert changed.since == NOW + HOUR
    assert changed.next_change == NOW + 2 * HOUR
    assert rotation.advance(changed, b"new\n", NOW + 2 * HOUR - SECOND) == changed
    assert rotation.advance(changed, b"new\n", NOW + 2 * HOUR).bundle == b"new\n"


def test_going_back_to_the_old_root_keeps_each_once():
    trust = rotation.advance(rotation.advance(rotation.advance(None, b"a\n", NOW), b"b\n", NOW), b"a\n", NOW)
    assert trust.bundle == b"a\nb\n"


def test_disabling_mtls_forgets_every_root():
    assert rotation.advance(rotation.advance(None, b"a\n", NOW), b"", NOW) is None


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from([b"a\n", b"b\n", b"c\n", b""]), st.integers(0, 5000))))
def test_the_root_in_force_is_always_first_and_nothing_is_trusted_longer_than_the_overlap(steps):
    trust, now, last_in_force = None, NOW, {}
    for pem, seconds in steps:
        if trust is not None:
            last_in_force[trust.pem] = now + timedelta(seconds=seconds)
        now += timedelta(seconds=seconds)
        trust = rotation.advance(trust, pem, now)
        if trust is None:
            last_in_force.clear()
            assert pem == b""
            continue
        assert trust.bundle.startswith(pem)
        for retired in trust.retired:
            assert now < retired.until <= last_in_force[retired.pem] + rotation.OVERLAP
        assert len({pem, *(r.pem for r in trust.retired)}) == 1 + len(trust.retired)


def test_a_failing_proxy_backs_off_exponentially_to_five_minutes():
    limiter = rotation.Limiter()
    waits = []
    now = NOW
    for _ in range(9):
        limiter.failed("ca", "p", now, 1)
        waits.append(limiter.wait("ca", "p", now) // SECOND)
        now += limiter.wait("ca", "p", now)
        assert limiter.wait("ca", "p", now) == timedelta()
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    limiter.succeeded("ca", "p")
    limiter.failed("ca", "p", now, 0.8)
    assert limiter.wait("ca", "p", now) == 4 * SECOND


def test_one_proxy_never_opens_the_circuit_and_ten_do():
    limiter = rotation.Limiter()
    for _ in range(50):
        limiter.failed("ca", "p0", NOW, 1)
    assert limiter.wait("ca", "other", NOW) == timedelta()
    for i in range(9):
        assert limiter.open_circuits() == 0
        limiter.failed("ca", f"q{i}", NOW, 1)
    assert limiter.open_circuits() == 1
    assert limiter.wait("ca", "other", NOW) == rotation.COOLDOWN
    assert limiter.wait("another ca", "other", NOW) == timedelta()


def open_limiter():
    limiter = rotation.Limiter()
    for i in range(10):
        limiter.failed("ca", f"p{i}", NOW, 1)
    return limiter


def test_after_the_cooldown_one_probes_and_its_failure_opens_again():
    limiter, later = open_limiter(), NOW + rotation.COOLDOWN
    assert limiter.wait("ca", "p3", later) == timedelta()
    assert limiter.wait("ca", "p4", later) == rotation.COOLDOWN
    limiter.failed("ca", "p3", later, 1)
    assert limiter.wait("ca", "p4", later) == rotation.COOLDOWN


def test_after_the_cooldown_a_success_closes_the_circuit():
    limiter, later = open_limiter(), NOW + rotation.COOLDOWN
    assert limiter.wait("ca", "p3", later) == timedelta()
    limiter.succeeded("ca", "p3")
    assert limiter.wait("ca", "p4", later) == timedelta()
    assert limiter.open_circuits() == 0


def test_a_new_ca_is_tried_at_once():
    limiter = open_limiter()
    limiter.forget("ca")
    assert limiter.wait("ca", "p0", NOW) == timedelta()
