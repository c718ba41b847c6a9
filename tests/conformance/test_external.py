"""A service outside of the mesh, over TLS that the egress originates."""

import pytest

from tests.conformance.asking import ask
from tests.conformance.cases import over
from tests.conformance.test_reach import route_by_egress
from tests.conformance.world import ALL
from tests.e2e.lab import VIP_PORT, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@over(*ALL)
@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_an_external_service_is_reached_by_the_egress_over_tls(world, protocol):
    route_by_egress(world, egress=True)
    name = f"outside-{protocol}"
    world.put(
        {
            "type": "ExternalService",
            "mesh": "default",
            "name": name,
            "tags": {"kuma.io/service": name, "kuma.io/protocol": protocol},
            "networking": {
                "address": f"localhost:{world.outside.port}",
                "tls": {"enabled": True, "caCert": {"inlineString": world.outside.ca_pem}},
            },
        }
    )
    place = (world.lab.resolve("zone-a", f"{name}.mesh", 20), VIP_PORT)
    eventually(lambda: ask(place).body == "outside", 15)
    before = {hop: world.connections(hop) for hop in ("client", "egress", "ingress")}
    assert [ask(place).body for _ in range(5)] == ["outside"] * 5
    seen = ask(place, "/headers").body
    if (world.engine("client"), world.engine("egress"), protocol) == ("envoy", "envoy", "http"):
        assert "host: localhost" in seen
    grown = {hop: world.connections(hop) - count for hop, count in before.items()}
    assert grown["client"] == 6, grown
    assert grown["ingress"] == 0, grown
    assert grown["egress"] == 6 or (protocol == "http" and world.engine("client") == "envoy"), grown
