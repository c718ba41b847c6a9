"""Which resources are forgotten in time; what becomes of one when its proxy comes is in ``test_server``."""

from datetime import UTC, datetime, timedelta

import pytest

from meshd.kinds.proxy_insights import DataplaneInsight, DiscoverySubscription
from meshd.model.resource import Resource, ResourceKey
from meshd.xds.lifecycle import expired, is_registered
from tests.xds.support import dataplane

NOW = datetime(2026, 1, 10, tzinfo=UTC)
AGE = timedelta(hours=72)


def subscription(*days: float | None) -> DiscoverySubscription:
    connected, disconnected = (None if d is None else NOW - timedelta(days=d) for d in days)
    return DiscoverySubscription(connect_time=connected, disconnect_time=disconnected)


@pytest.mark.parametrize(
    ("labels", "subscriptions", "goes"),
    [
        ({}, [subscription(9, 4)], True),
        ({}, [subscription(9, 2)], False),
        ({}, [subscription(9, 4), subscription(4, 1)], False),
        ({}, [subscription(9, 4), subscription(3, None)], False),
        ({}, [], False),
        ({}, None, False),
        ({"kuma.io/zone": "zone-1"}, [subscription(9, 4)], True),
        ({"kuma.io/zone": "zone-2"}, [subscription(9, 4)], False),
        ({"meshd.io/config-file": "true"}, [subscription(9, 4)], False),
    ],
)
def test_who_was_connected_and_is_gone_for_long_is_forgotten(labels, subscriptions, goes):
    resource = dataplane(labels=labels)
    insights = {}
    if subscriptions is not None:
        spec = DataplaneInsight(subscriptions=tuple(subscriptions))
        insights["default", "web-1"] = Resource(ResourceKey("DataplaneInsight", "default", "web-1"), spec)
    assert expired([resource], insights, "zone-1", AGE, NOW) == ([resource] if goes else [])


@pytest.mark.parametrize(
    ("labels", "is_so"),
    [
        ({}, False),
        ({"meshd.io/registered-by-proxy": "true"}, True),
        ({"meshd.io/registered-by-proxy": "true", "kuma.io/zone": "zone-1"}, True),
        ({"meshd.io/registered-by-proxy": "true", "kuma.io/zone": "zone-2"}, False),
    ],
)
def test_only_this_zones_registrations_are_its_own(labels, is_so):
    assert is_registered(dataplane(labels=labels), "zone-1") is is_so
