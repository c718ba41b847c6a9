"""Routes, timeouts and retries: what an Envoy of the client does with requests and connections."""

import pytest

from tests.conformance.asking import ask
from tests.conformance.cases import over, to
from tests.conformance.world import ENVOY
from tests.e2e.lab import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


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
