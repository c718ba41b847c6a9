"""A service of another zone, by VIP and by outbound, with and without egress; counters prove every hop."""

import grpc
import pytest

from tests.conformance.asking import ask
from tests.conformance.cases import over
from tests.conformance.world import ALL
from tests.e2e.lab import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

HOPS = ("client", "egress", "ingress", "b-0", "a-0")


def counted(world):
    return {hop: world.connections(hop) for hop in HOPS}


def route_by_egress(world, *, egress):
    """Switch the mesh over and wait until a request shows it."""
    world.mesh(egress=egress)

    def is_so():
        before = world.connections("egress")
        assert ask(world.places["far-raw"]).is_ok
        return (world.connections("egress") > before) == egress

    eventually(is_so, 20)


@over(*ALL)
@pytest.mark.parametrize("egress", [False, True], ids=["ingress-only", "through-egress"])
def test_every_hop_carries_every_connection(world, egress):
    route_by_egress(world, egress=egress)
    before = counted(world)
    for place in [world.places["far-raw"], world.explicit["far-raw"]] * 5:
        assert ask(place).body == "b-0"
    expected = {"client": 10, "egress": 10 if egress else 0, "ingress": 10, "b-0": 10, "a-0": 0}

    def grown():
        return {hop: count - before[hop] for hop, count in counted(world).items()}

    eventually(lambda: grown() == expected, 5)
    for place in (world.places["far"], world.explicit["far"]):
        assert ask(place).body == "b-0"


@over(*ALL)
def test_http_is_http_between_envoys_and_bytes_elsewhere(world):
    requests = "^http.far.downstream_rq_total$"
    before = world.stats("client", requests) if world.engine("client") == "envoy" else {}
    seen = ask(world.places["far"], "/headers").body
    assert ("x-request-id" in seen) == (world.engine("b-0") == "envoy")
    if world.engine("client") == "envoy":
        grown = sum(world.stats("client", requests).values()) - sum(before.values())
        assert grown == (1 if world.speaks_http else 0)
    assert "x-request-id" not in ask(world.places["far-raw"], "/headers").body
    assert ask(world.explicit["far"], "/prefaces").body == "0", (
        "HTTP/2 was sent to an application that does not speak it"
    )


@over(*ALL)
@pytest.mark.parametrize("service", ["chat", "feed"])
def test_http2_is_carried_from_end_to_end(world, service):
    for address, port in (world.places[service], world.explicit[service]):
        with grpc.insecure_channel(f"{address}:{port}") as channel:
            call = channel.unary_unary("/conformance.Any/Ask")
            assert [call(b"", timeout=10) for _ in range(5)] == [b"b-0"] * 5
