"""A service in one zone, reached by name from another; every hop's counters prove the path."""

import ipaddress

import pytest

from tests.e2e.lab import eventually
from tests.e2e.scenario import zones

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def connections(lab, zone, part):
    """How many connections the engine of a zone carried where the labels have ``part``."""
    samples = lab.metrics(zone, "meshd_l4_connections_total")
    return sum(v for s, v in samples.items() if part in s)


def hops(lab):
    return {
        "egress": connections(lab, "zone-a", "egress-zone-a"),
        "ingress": connections(lab, "zone-b", "ingress-zone-b-0"),
        "inbound": connections(lab, "zone-b", "payments-zone-b-0"),
    }


@pytest.mark.parametrize("egress", [False, True], ids=["ingress-only", "through-egress"])
def test_a_service_in_zone_b_is_reached_by_name_from_zone_a(tmp_path, egress):
    with zones(tmp_path, {"zone-a": {}, "zone-b": {"instances": 1}}, egress=egress) as lab:
        vip = lab.vips["zone-a"]
        assert ipaddress.ip_address(vip) in ipaddress.ip_network(lab.zones["zone-a"].cidr)
        before = hops(lab)
        for _ in range(10):
            assert lab.fetch("zone-a", "payments.mesh", vip=vip) == "payments-zone-b-0"
        eventually(lambda: hops(lab)["inbound"] - before["inbound"] == 10)
        grown = {hop: count - before[hop] for hop, count in hops(lab).items()}
        assert grown == {"egress": 10 if egress else 0, "ingress": 10, "inbound": 10}


def test_dns_corners_as_dig_shows_them(tmp_path):
    with zones(tmp_path, {"zone-a": {"instances": 1}}) as lab:
        vip = lab.vips["zone-a"]
        assert lab.dig("zone-a", "PAYments.MESH") == [vip]
        assert lab.dig("zone-a", "payments.mesh", "AAAA")[0].startswith("::ffff:")
        assert lab.dig("zone-a", "payments.mesh", "+tcp") == [vip]
        assert lab.dig("zone-a", "payments.mesh", "MX") == []
        assert lab.dig("zone-a", "nobody.mesh") == []


def test_explicit_outbounds_and_restart_of_everything(tmp_path):
    """A full restart changes no VIP and traffic flows again."""
    with zones(tmp_path, {"zone-a": {}, "zone-b": {"instances": 1}}) as lab:
        for name in ("global", "zone-a", "zone-b"):
            assert lab.zones[name].process.stop() == 0, lab.zones[name].process.text()[-2000:]
        for name in ("zone-b", "global", "zone-a"):
            lab.start(name)
        assert lab.resolve("zone-a", "payments.mesh", 20) == lab.vips["zone-a"]
        eventually(lambda: lab.fetch("zone-a", "payments.mesh") == "payments-zone-b-0", 20)
