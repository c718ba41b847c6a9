"""Shares over zones, and who answers when an instance does not."""

import math
from collections import Counter

import pytest

from tests.conformance.asking import spread
from tests.conformance.cases import over
from tests.conformance.test_reach import route_by_egress
from tests.conformance.world import ALL, BUILTIN_CALLS
from tests.e2e.lab import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SHARE = 2 / 3
"""Of zone-b, with two of the three instances."""


def tolerance(count):
    """A balancer that draws lots is outside of this once in 16000 runs (four standard deviations)."""
    return 4 * math.sqrt(SHARE * (1 - SHARE) / count)


@over(*ALL)
@pytest.mark.parametrize("egress", [False, True], ids=["ingress-only", "through-egress"])
def test_a_zone_with_twice_the_instances_gets_twice_the_traffic(world, egress):
    count = 450
    route_by_egress(world, egress=egress)
    world.settled()  # who was asked on a way that was not ready yet is left alone for some seconds
    for service in ("web", "raw"):
        found = spread(world.places[service], count)
        print(service, found)
        by_zone = Counter()
        for name, n in found.items():
            by_zone[str(name)[0]] += n
        assert set(by_zone) == {"a", "b"}, found
        assert abs(by_zone["b"] / count - SHARE) < tolerance(count), found


@over(*ALL)
def test_what_is_near_goes_first_and_comes_back(world):
    """The application of the local instance dies alone; its proxy lives on.

    For an application that is not there Envoy's HTTP inbound answers 503. To a built-in client this is an answer.
    """
    world.mesh(locality=True)
    services = ("raw",) if world.combination is BUILTIN_CALLS else ("web", "raw")
    for service in services:
        eventually(lambda s=service: set(spread(world.places[s], 20)) == {"a-0"}, 20)
    world.kill_application("a-0")
    try:
        for service in services:
            eventually(lambda s=service: set(spread(world.places[s], 20)) <= {"b-0", "b-1"}, 20)
    finally:
        world.start_application("a-0")
    for service in services:
        eventually(lambda s=service: set(spread(world.places[s], 20)) == {"a-0"}, 60)
