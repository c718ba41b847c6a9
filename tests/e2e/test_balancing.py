"""Shares follow instances over any number of zones, ingresses and egresses; locality keeps traffic at home."""

from collections import Counter

import pytest

from tests.e2e.lab import eventually
from tests.e2e.scenario import zone_of, zones

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PLAN = {"zone-a": {"instances": 1}, "zone-b": {"instances": 2, "ingresses": 2}, "zone-c": {"instances": 3}}


@pytest.mark.parametrize("egress", [False, True], ids=["ingress-only", "through-egress"])
def test_shares_are_those_of_the_instances(tmp_path, egress):
    count = 3000
    with zones(tmp_path, PLAN, egress=egress, store="memory") as lab:
        # Who was asked before it was ready is left alone for some seconds.
        eventually(lambda: len(lab.spread(lab.vips["zone-a"], 60)) == 6, 20)
        spread = lab.spread(lab.vips["zone-a"], count)
        assert spread[None] == 0, spread
        shares = Counter()
        for instance, n in spread.items():
            shares[zone_of(instance)] += n
        for zone, wish in PLAN.items():
            assert abs(shares[zone] / count - wish["instances"] / 6) < 0.02, (spread, shares)
        assert len(spread) == 6, spread


def test_an_instance_dies_and_returns_and_no_new_connection_is_lost(tmp_path):
    """The application of the local instance dies alone; its proxy lives on."""
    with zones(tmp_path, {"zone-a": {"instances": 1}, "zone-b": {"instances": 2}}, locality=True) as lab:
        vip = lab.vips["zone-a"]
        eventually(lambda: set(lab.spread(vip, 50)) == {"payments-zone-a-0"})
        local = lab.instances["payments-zone-a-0"]
        local.kill()
        spread = lab.spread(vip, 200)
        assert set(spread) == {"payments-zone-b-0", "payments-zone-b-1"}, spread
        lab.application("payments-zone-a-0", local.port)
        eventually(lambda: set(lab.spread(vip, 50)) == {"payments-zone-a-0"}, 15)


def test_locality_stays_local_fails_over_and_returns(tmp_path):
    with zones(tmp_path, {"zone-a": {"instances": 1}, "zone-b": {"instances": 2}}, locality=True) as lab:
        vip = lab.vips["zone-a"]
        eventually(lambda: set(lab.spread(vip, 50)) == {"payments-zone-a-0"})
        local = lab.instances["payments-zone-a-0"]
        lab.zones["zone-a"].config["proxies"], kept = (
            [p for p in lab.zones["zone-a"].config["proxies"] if p["resource"]["name"] != "payments-zone-a-0"],
            lab.zones["zone-a"].config["proxies"],
        )
        lab.zones["zone-a"].process.stop()
        local.stop()
        lab.rewrite("zone-a")
        lab.start("zone-a")
        assert lab.resolve("zone-a", "payments.mesh") == vip
        eventually(lambda: set(lab.spread(vip, 50)) == {"payments-zone-b-0", "payments-zone-b-1"})
        lab.zones["zone-a"].process.stop()
        lab.application("payments-zone-a-0", local.port)
        lab.zones["zone-a"].config["proxies"] = kept
        lab.rewrite("zone-a")
        lab.start("zone-a")
        eventually(lambda: set(lab.spread(vip, 50)) == {"payments-zone-a-0"})
