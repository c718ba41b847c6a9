"""One HTTP/2 connection through an ingress is tied to one instance behind it; requests are not, for long."""

import pytest

from tests.conformance.asking import spread
from tests.conformance.cases import over
from tests.conformance.world import ENVOY
from tests.e2e.lab import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@over(ENVOY)
def test_requests_come_to_every_instance_behind_an_ingress(world):
    seen = set()

    def all_of_them():
        seen.update(spread(world.places["web"], 200))
        return seen == {"a-0", "b-0", "b-1"}

    eventually(all_of_them, 60)
