"""Routes, timeouts and retries: what an Envoy of the client does with requests and connections."""

from collections import Counter

import pytest

from tests.conformance.asking import ask, spread
from tests.conformance.cases import over, to
from tests.conformance.test_reach import route_by_egress
from tests.conformance.world import ALL, BY_TURNS, ENVOY, ENVOY_CALLS, SERVICES
from tests.e2e.lab import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

BOTH_WAYS = pytest.mark.parametrize("egress", [False, True], ids=["ingress-only", "through-egress"])
TO_ALL = [{"path": {"type": "PathPrefix", "value": "/"}}]


def subset(service, instance, weight):
    return {"kind": "MeshServiceSubset", "name": service, "tags": {"instance": instance}, "weight": weight}


def rule(matches=None, **default):
    return {"matches": matches or TO_ALL, "default": default}


@over(*ALL)
@BOTH_WAYS
def test_an_outbound_leads_to_the_instances_with_its_tags(world, egress):
    """The other zone knows no outbounds of this one, and has to understand what is asked for all the same."""
    route_by_egress(world, egress=egress)
    for (service, *tags), place in world.narrowed.items():
        expected = {name for name in SERVICES if has(name, dict(tags))}
        nobody = {503} if service == "web" and world.speaks_http else {0}
        # Requests over one HTTP/2 connection to an ingress end at one.
        is_one = service == "web" and world.speaks_http and len(expected) > 1
        wanted = [{name} for name in expected] if is_one else [expected or nobody]
        eventually(lambda p=place, w=wanted: set(spread(p, 12)) in w, 15)
        assert set(spread(place, 20)) in wanted, (service, tags)


def has(name, tags):
    return tags.items() <= {"instance": name, "kuma.io/zone": f"zone-{name[0]}"}.items()


@over(ENVOY)
@BOTH_WAYS
def test_requests_go_by_weight_to_subsets_of_two_zones(world, egress):
    route_by_egress(world, egress=egress)
    backends = [subset("web", "a-0", 2), subset("web", "b-1", 1)]
    world.put(to("MeshHTTPRoute", "shares", "web", rules=[rule(backendRefs=backends)]))
    eventually(lambda: set(spread(world.places["web"], 12)) == {"a-0", "b-1"}, 15)
    found = spread(world.places["web"], 450)
    print(found)
    assert set(found) == {"a-0", "b-1"}
    assert abs(found["a-0"] / 450 - 2 / 3) < 0.09  # four standard deviations: Envoy draws lots among clusters


@over(ENVOY)
def test_requests_go_by_header_and_are_redirected_by_path(world):
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": "other.example", "statusCode": 302}}
    rules = [
        rule([{"headers": [{"type": "Exact", "name": "x-to", "value": "b-1"}]}], backendRefs=[subset("web", "b-1", 1)]),
        rule([{"path": {"type": "PathPrefix", "value": "/old"}}], filters=[redirect]),
    ]
    world.put(to("MeshHTTPRoute", "by-request", "web", rules=rules))
    place = world.places["web"]
    eventually(lambda: ask(place, "/old").status == 302, 15)
    assert ask(place, "/old").headers["location"].startswith("http://other.example")
    assert spread(place, 10, headers={"x-to": "b-1"}) == {"b-1": 10}
    assert "a-0" in spread(place, 12)


@over(ENVOY)
def test_a_request_takes_too_long(world):
    assert ask(world.places["far"], "/slow/1000").body == "b-0"
    limit = {"default": {"http": {"requestTimeout": "300ms"}}}
    world.put(to("MeshTimeout", "short", "far", **limit))
    eventually(lambda: ask(world.places["far"], "/slow/1000").status == 504, 15)
    assert ask(world.places["far"], "/slow/10").body == "b-0"


@over(ENVOY)
def test_a_request_is_tried_again_unless_a_policy_says_otherwise(world):
    place, keys = world.places["far"], iter(range(1000))
    assert ask(place, f"/flaky/by-default-{next(keys)}").body == "b-0"
    world.put(to("MeshRetry", "never", "far", default={"http": {"numRetries": 0}}))
    eventually(lambda: ask(place, f"/flaky/never-{next(keys)}").status == 503, 15)


@over(ENVOY, ENVOY_CALLS, BY_TURNS)
def test_connections_are_led_elsewhere(world):
    backends = [subset("raw", "b-1", 2), {"kind": "MeshService", "name": "far-raw", "weight": 1}]
    world.put(to("MeshTCPRoute", "shares", "raw", rules=[{"default": {"backendRefs": backends}}]))
    eventually(lambda: set(spread(world.places["raw"], 12)) == {"b-0", "b-1"}, 15)
    found = spread(world.places["raw"], 450)
    print(found)
    assert found == Counter({"b-1": found["b-1"], "b-0": found["b-0"]})
    assert abs(found["b-1"] / 450 - 2 / 3) < 0.09  # four standard deviations
