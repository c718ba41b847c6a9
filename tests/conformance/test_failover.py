"""Traffic leaves by itself what dies or falls silent, without a control plane's word, and returns to it.

At the moment of a death one request of each loop may be on its way: what a proxy knows as a request is asked again
elsewhere, what is bytes to it is lost.
"""

import os
import signal
import time

import pytest

from tests.conformance.asking import spread, traffic
from tests.conformance.cases import over, over_each
from tests.conformance.test_reach import route_by_egress
from tests.conformance.world import BUILTIN_CALLS, ENVOY, ENVOY_CALLS
from tests.e2e.lab import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SERVICES = ("web", "raw")
AFTER_S = 10.0
"""When everybody must have left it."""
WATCHED_S = 13.0
AT_ONCE_S = 1.0


def signal_all(world, number, *, hop=""):
    """Send a signal to all processes of zone-b, or to the Envoy of one hop; returns their ids."""
    if hop:
        pids = [world.envoys()[hop]]
    else:
        pids = [world.lab.zones["zone-b"].process.popen.pid, *world.envoys("zone-b").values()]
    for pid in pids:
        os.kill(pid, number)
    return pids


def during(world, act, watched_s):
    """The traffic to each service while ``act`` does something, and for a while after; its clock starts at the act."""
    with traffic(world.places["web"]) as web, traffic(world.places["raw"]) as raw:
        found = {"web": web, "raw": raw}
        for t in found.values():
            t.more(100)
        for t in found.values():
            t.marked = t.now()
        act()
        time.sleep(watched_s)
    for service, t in found.items():
        print(f"{world.combination.name}: {service}: {t.says()}, by others until {t.last_not_by('a-0'):.2f} s")
    return found


def lost(world, service, t):
    """What failed although the proxies could have helped it: all but, of bytes, what was on its way in each loop."""
    failed = [[r for r in rows if not r.answer.is_ok] for rows in (t.requests, t.kept)]
    if not world.knows_requests(service):
        failed = [rows[1:] for rows in failed]
    return [row for rows in failed for row in rows]


def all_answer(world):
    """Whether zone-b is used again: by connections, which go to both, and by requests."""
    by = set(spread(world.places["web"], 12))
    return set(spread(world.places["raw"], 12)) == {"a-0", "b-0", "b-1"} and by in (
        {"a-0", "b-0", "b-1"}, {"a-0", "b-0"}, {"a-0", "b-1"},
    )  # fmt: skip


@over_each((ENVOY, True), (ENVOY_CALLS, True), (BUILTIN_CALLS, False))
def test_a_zone_is_killed_and_returns(world, egress):
    route_by_egress(world, egress=egress)
    late_attempts = []

    def die():
        signal_all(world, signal.SIGKILL)
        world.lab.zones["zone-b"].process.popen.wait(10)
        time.sleep(AFTER_S)
        late_attempts.append(world.failed_attempts())

    found = during(world, die, WATCHED_S - AFTER_S)
    late_attempts.append(world.failed_attempts())
    world.lab.start("zone-b")
    for service, t in found.items():
        assert not lost(world, service, t), lost(world, service, t)[:5]
        late = t.after(t.marked + AFTER_S)
        assert late
        assert {r.answer.body for r in late} == {"a-0"}
        assert max(r.took for r in late) < AT_ONCE_S
        assert t.slowest_s < 2 * AT_ONCE_S
    # Nor is it tried much: once in a while whether it is back, in all loops and by some attempts each.
    before, after = late_attempts
    print(f"{world.combination.name}: {after - before} attempts failed in the last {WATCHED_S - AFTER_S} s")
    assert after - before <= 12
    eventually(lambda: all_answer(world), 60)


@over_each((ENVOY, True), (BUILTIN_CALLS, False))
def test_a_zone_falls_silent_and_returns(world, egress):
    """All of it is stopped, so connections to it stay open, are even taken, and nothing ever comes back."""
    route_by_egress(world, egress=egress)
    stopped = []
    try:
        found = during(world, lambda: stopped.extend(signal_all(world, signal.SIGSTOP)), WATCHED_S)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    for service, t in found.items():
        assert not lost(world, service, t), lost(world, service, t)[:5]
        late = t.after(t.marked + AFTER_S)
        assert {r.answer.body for r in late if r.answer.is_ok} <= {"a-0"}
        # What was left alone is tried again after some seconds: by one request of each loop, or two.
        slow = [r for r in late if r.took > AT_ONCE_S]
        assert len(slow) <= max(4, len(late) / 20), (len(slow), len(late))
        assert max(r.took for r in t.requests if r.answer.is_ok) < 2 * PATIENCE_S
    eventually(lambda: all_answer(world), 60)


PATIENCE_S = 5.0
"""What a new mesh gives a connection (MeshTimeout)."""


@over(ENVOY, BUILTIN_CALLS)
@pytest.mark.parametrize("hop", ["ingress", "b-0"])
def test_one_envoy_is_killed_and_started_again(world, hop):
    found = during(world, lambda: signal_all(world, signal.SIGKILL, hop=hop), 3)
    for service, t in found.items():
        assert not lost(world, service, t), lost(world, service, t)[:5]
    eventually(lambda: all_answer(world), 60)


@over(ENVOY, BUILTIN_CALLS)
def test_an_application_dies_behind_its_proxy(world):
    """With locality, where all would go to it for ever.

    An Envoy in front of an application that speaks HTTP answers 503. To a client that carries bytes that is an answer
    like any other, so these are not asked (docs/kuma.md says what helps).
    """
    world.mesh(locality=True)
    for service in SERVICES:
        eventually(lambda s=service: set(spread(world.places[s], 20)) == {"a-0"}, 20)
    try:
        found = during(world, lambda: world.kill_application("a-0"), WATCHED_S)
    finally:
        world.start_application("a-0")
    if world.engine("a-0") == "envoy" and not world.speaks_http:
        found.pop("web")
    for service, t in found.items():
        # Bytes are lost where a client tries it again, and it does not remember: once for each of these times.
        assert len(lost(world, service, t)) <= (0 if world.knows_requests(service) else 2), t.failed[:5]
        others = [r.answer.body for r in t.after(t.marked + 1) if r.answer.is_ok]
        assert set(others) <= {"b-0", "b-1"}
        assert t.slowest_s < 2 * AT_ONCE_S
    for service in SERVICES:
        eventually(lambda s=service: set(spread(world.places[s], 20)) == {"a-0"}, 60)
