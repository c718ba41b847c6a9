"""A short storm of every kind of failure; and that its judge can say no. Longer: ``python -m tests.e2e.chaos``."""

import pytest

from tests.e2e import chaos_judge as judge
from tests.e2e.chaos import run
from tests.e2e.chaos_history import INSTANCES, LINK_S, History, Instance, Seen, Track

SEED = 20260


@pytest.mark.e2e
@pytest.mark.slow
def test_a_short_storm(tmp_path):
    problems = run(tmp_path, SEED, 15, gap_s=(0.5, 1.5), quiet_s=7.0, patient=True)
    assert not problems, "\n".join(problems)


@pytest.fixture
def calm():
    """A world in which everything has been up for long, and nothing runs."""
    storm = History()
    storm.began = storm.storm_at = 0.0
    for track in storm.planes.values():
        track.set("up", 0.0)
    for name, service, zone, owner in INSTANCES:
        instance = storm.instances[name] = Instance(name, zone, owner, 1, 2)
        instance.up.set(True, 0.0)
        instance.service.set(service, 0.0)
    return storm


def seen(service="orders", answer=None, *, zone="zone-a", at=1000.0):
    return Seen(zone, service, "127.9.0.1", at, at + 0.1, answer, "" if answer else "receive: reset")


def test_a_right_answer_is_no_problem(calm):
    calm.seen = [seen(answer="rest-orders-b")]
    assert not judge.request_problems(calm)


def test_the_instance_of_another_service_is_seen(calm):
    calm.seen = [seen(answer="rest-stock-a")]
    (problem,) = judge.request_problems(calm)
    assert "answered by rest-stock-a" in problem


def test_an_instance_that_moved_long_ago_is_seen(calm):
    calm.instances["rest-mover-b"].service.set("right", 990.0)
    calm.seen = [seen("left", answer="rest-mover-b"), seen("left", answer="rest-mover-b", at=991.0)]
    (problem,) = judge.request_problems(calm)
    assert problem.startswith("1000.00")


def test_an_answer_to_one_who_is_denied_is_seen(calm):
    track = calm.denies["zone-a", "orders"]
    track.set("asked-in", 900.0)
    calm.seen = [seen(answer="rest-orders-b")]
    assert not judge.request_problems(calm)
    track.set("force", 950.0)
    (problem,) = judge.request_problems(calm)
    assert "though denied" in problem


@pytest.mark.parametrize(
    ("what", "excused"),
    [
        (lambda _: None, False),
        (lambda s: s.planes["zone-a"].set("down", 999.9), True),
        (lambda s: s.planes["global"].set("down", 900.0), False),
        (lambda s: s.planes["zone-b"].set("down", 900.0), False),
        (lambda s: s.planes["zone-b"].set("stopped", 999.9), True),
        (lambda s: [s.instances[f"rest-orders-{z}"].up.set(False, 900.0) for z in "abc"], True),
        (lambda s: s.instances["rest-orders-b"].up.set(False, 1000.05), True),
        (lambda s: s.instances["rest-orders-b"].service.set(None, 990.0), False),
        (lambda s: s.instances["rest-stock-a"].up.set(False, 1000.05), False),
        (lambda s: s.instances["rest-orders-b"].up.set(False, 990.0), False),
        (
            lambda s: (s.instances["rest-orders-b"].up.set(False, 990.0), s.planes["zone-b"].set("starting", 995.0)),
            True,
        ),
        (lambda s: s.denies["zone-a", "orders"].set("asked-in", 999.0), True),
        (lambda s: s.denies["zone-c", "orders"].set("force", 999.0), False),
    ],
)
def test_what_excuses_a_failed_request(calm, what, excused):
    what(calm)
    calm.seen = [seen()]
    assert bool(judge.request_problems(calm)) != excused


def test_a_remote_instance_counts_once_the_zones_were_linked(calm):
    for name in ("rest-orders-b", "rest-orders-c"):
        calm.instances[name].service.set(None, 500.0)
        calm.instances[name].service.set("orders", 900.0)
    calm.instances["rest-orders-a"].service.set(None, 500.0)
    calm.planes["global"].set("down", 800.0)
    assert not calm.good("zone-a", "orders", 1000.0, 1000.1)
    assert calm.good("zone-b", "orders", 1000.0, 1000.1)
    calm.planes["global"].set("up", 999.0 - LINK_S)
    assert calm.good("zone-a", "orders", 1000.0, 1000.1)


def test_a_vip_that_moves_or_is_shared_is_seen(calm):
    calm.names["zone-a"]["orders"] = {"127.9.0.1"}
    assert not judge.name_problems(calm)
    calm.names["zone-a"]["stock"] = {"127.9.0.1"}
    calm.names["zone-b"]["stock"] = {"127.9.0.1", "127.9.0.2"}
    assert len(judge.name_problems(calm)) == 2


def test_the_history_of_a_value():
    track = Track("a")
    track.set("b", 5.0)
    track.set("a", 6.0)
    assert track.during(1.0, 4.0) == ["a"]
    assert track.during(5.5, 5.6) == ["b"]
    assert track.during(4.0, 7.0) == ["a", "b", "a"]
    assert track.left("a", 4.0, 5.0)
    assert not track.left("a", 5.5, 7.0)
    assert track.always("a", 6.0, 9.0)
