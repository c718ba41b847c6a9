from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.l4 import choose
from meshd.l4.choose import Ejection, Wheel
from meshd.l4.table import Cluster
from meshd.topology.view import Endpoint, Reach


def endpoint(name: str, weight: int = 1, priority: int = 0, zone: str = "a") -> Endpoint:
    return Endpoint(name, 1, zone, weight, priority, Reach.INSTANCE, {})


def cluster(*endpoints: Endpoint) -> Cluster:
    return Cluster("default", "web", endpoints)


def spin(target: Cluster, times: int, wheel: Wheel | None = None) -> Counter[str]:
    counts: Counter[str] = Counter()
    wheel = wheel or Wheel()
    for _ in range(times):
        chosen, wheel = choose.turn(wheel, target, choose.candidates(target, {}, (), 0.0))
        counts[chosen.address] += 1
    return counts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 50))
def test_shares_are_exact_over_a_full_turn_from_any_offset(weights, offset):
    target = cluster(*(endpoint(str(i), w) for i, w in enumerate(weights)))
    assert spin(target, sum(weights), choose.started(target, offset)) == {str(i): w for i, w in enumerate(weights)}


def test_three_thousand_connections_follow_the_weights():
    target = cluster(endpoint("a", 1), endpoint("b", 2), endpoint("c", 3))
    assert spin(target, 3000) == {"a": 500, "b": 1000, "c": 1500}


def test_turns_are_smooth():
    target = cluster(endpoint("a", 5), endpoint("b", 1), endpoint("c", 1))
    wheel, order = Wheel(), ""
    for _ in range(7):
        chosen, wheel = choose.turn(wheel, target, target.endpoints)
        order += chosen.address
    assert order == "aabacaa"


def test_listeners_start_at_their_own_offset():
    target = cluster(*(endpoint(str(i)) for i in range(5)))
    firsts = {choose.turn(choose.started(target, o), target, target.endpoints)[0].address for o in range(5)}
    assert len(firsts) == 5


def test_wheel_forgets_endpoints_that_are_gone():
    wheel = Wheel()
    for generation in range(20):
        target = cluster(endpoint(f"x{generation}"), endpoint(f"y{generation}"))
        _, wheel = choose.turn(wheel, target, target.endpoints)
    assert len(wheel.owed) <= 4


def test_zones_behind_one_address_stay_two_paths():
    target = cluster(endpoint("gw", 1, zone="b"), endpoint("gw", 2, zone="c"))
    wheel, zones = Wheel(), Counter()
    for _ in range(3):
        chosen, wheel = choose.turn(wheel, target, target.endpoints)
        zones[chosen.zone] += 1
    assert zones == {"b": 1, "c": 2}


def names(pool) -> str:
    return "".join(e.address for e in pool)


def test_worse_priority_only_while_no_better_one_is_alive_and_back_when_it_returns():
    target = cluster(endpoint("l", priority=0), endpoint("r", priority=1), endpoint("s", priority=1))
    ejections = {target.path(target.endpoints[0]): choose.after_failure(None, 100.0)}
    assert names(choose.candidates(target, {}, (), 100.0)) == "l"
    assert names(choose.candidates(target, ejections, (), 100.5)) == "rs"
    assert names(choose.candidates(target, ejections, (), 101.0)) == "l"


def test_when_all_are_ejected_all_are_used_best_priority_first():
    target = cluster(endpoint("l", priority=0), endpoint("r", priority=1))
    ejections = {target.path(e): choose.after_failure(None, 0.0) for e in target.endpoints}
    assert names(choose.candidates(target, ejections, (), 0.1)) == "l"
    assert names(choose.candidates(target, ejections, {target.path(target.endpoints[0])}, 0.1)) == "r"
    assert choose.candidates(target, ejections, {target.path(e) for e in target.endpoints}, 0.1) == ()


def test_ejection_doubles_to_a_bound_and_counts_simultaneous_failures_once():
    ejection, now, lengths = None, 0.0, []
    for _ in range(6):
        ejection = choose.after_failure(ejection, now)
        assert choose.after_failure(ejection, now + 0.01) == ejection
        lengths.append(ejection.until - now)
        now = ejection.until
    assert lengths == [1, 2, 4, 5, 5, 5]


def test_one_probe_at_a_time():
    due = Ejection(2, 10.0)
    assert choose.is_live(due, 10.0)
    probed = choose.probing(due, 10.0)
    assert not choose.is_live(probed, 10.1)
    assert choose.is_live(probed, 10.0 + choose.PROBE_S)
    assert choose.after_failed_probe(probed, 10.2) == Ejection(3, 14.2)


def test_ejection_is_per_service():
    one = endpoint("gw")
    web, db = cluster(one), replace(cluster(one), name="db")
    ejections = {web.path(one): choose.after_failure(None, 0.0)}
    assert not choose.is_live(ejections.get(web.path(one)), 0.5)
    assert choose.is_live(ejections.get(db.path(one)), 0.5)


def test_parts_of_a_service_take_turns_of_their_own():
    whole = cluster(endpoint("a"), endpoint("b"))
    part = replace(whole, endpoints=(endpoint("a"), endpoint("b")), subset=(("version", "v1"),))
    balancer = choose.Balancer(lambda: 0)
    picks = [(at, balancer.next("sni", at, (), 0.0)) for at in (whole, part) * 4]
    for target in (whole, part):
        counts = Counter(pick.endpoint.address for at, pick in picks if at is target and pick is not None)
        assert counts == {"a": 2, "b": 2}
    assert balancer.wheels == 2
    balancer.keep((), {("sni", "default", "web")})
    assert balancer.wheels == 2
    balancer.keep((), ())
    assert balancer.wheels == 0


def test_nothing_to_choose_from_is_an_error():
    with pytest.raises(ValueError, match="'web'"):
        choose.turn(Wheel(), cluster(), ())
