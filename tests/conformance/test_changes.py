"""What must not cost a request: certificates that are replaced, a proxy that leaves, a control plane started again."""

import signal

import pytest

from tests.conformance.asking import traffic
from tests.conformance.cases import over
from tests.conformance.test_drain import kept_alone
from tests.conformance.world import ALL, BUILTIN_CALLS, ENVOY, ENVOY_CALLS
from tests.e2e.lab import dump, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LIFE_S = 8
KINDS = (
    "meshes", "zoneingresses", "zoneegresses", "meshes/default/dataplanes", "meshes/default/meshtrafficpermissions",
    "meshes/default/meshtimeouts", "meshes/default/meshretries", "meshes/default/meshcircuitbreakers",
)  # fmt: skip


def issued(world, zone):
    found = world.lab.metrics(zone, "meshd_ca_identities_issued_total")
    return sum(found.values())


@over(ENVOY, BUILTIN_CALLS, ENVOY_CALLS)
def test_certificates_are_replaced_under_traffic(world):
    world.mesh(life=f"{LIFE_S}s")
    with traffic(world.places["web"]) as web, traffic(world.places["raw"]) as raw:
        # A certificate is replaced at half its life. zone-b has two proxies with one, zone-a two.
        before = {zone: issued(world, zone) for zone in ("zone-a", "zone-b")}
        for zone, count in before.items():
            eventually(lambda zone=zone, count=count: issued(world, zone) >= count + 4, 3 * LIFE_S)
        web.more(20)
        raw.more(20)
    print("web:", web.says(), "raw:", raw.says())
    assert not web.failed + raw.failed, (web.failed + raw.failed)[:5]


def by_egress(world, traffic_):
    """Whether it is what connections of now go by."""
    before = world.connections("egress")
    traffic_.more(20)
    return world.connections("egress") > before


@over(*ALL)
def test_routing_changes_over_to_the_egress_and_back_under_traffic(world):
    with traffic(world.places["web"]) as web, traffic(world.places["raw"]) as raw:
        for egress in (True, False):
            world.mesh(egress=egress)
            eventually(lambda e=egress: by_egress(world, raw) == e, 15)
            raw.more(100)
    print("web:", web.says(), "raw:", raw.says())
    for service, t in (("web", web), ("raw", raw)):
        kept_alone(world, service, t)


def configuration(world, hops):
    """How often the configuration of these Envoys changed."""
    what = "^(cluster_manager.cluster|listener_manager.listener)_(added|modified|removed)$"
    return {hop: world.stats(hop, what) for hop in hops}


def stored(world, zone):
    return {kind: sorted(dump(item) for item in world.lab.get(zone, f"/{kind}")["items"]) for kind in KINDS}


@over(ENVOY, BUILTIN_CALLS)
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_control_plane_is_started_again_under_traffic(world, how):
    zones = ("zone-a", "zone-b") if world.engine("client") == "envoy" else ("zone-b",)
    hops = [hop for hop in ("client", "egress", "ingress", "a-0", "b-0", "b-1") if world.zone(hop) in zones]
    world.left_behind()
    before, pids = configuration(world, hops), world.envoys()
    resources = {zone: stored(world, zone) for zone in zones}
    with traffic(world.places["web"]) as web, traffic(world.places["raw"]) as raw:
        for zone in zones:
            process = world.lab.zones[zone].process
            if how == "kill":
                process.kill()
            else:
                process.popen.send_signal(signal.SIGTERM)
                assert process.popen.wait(20) == 0
            raw.more(50)
            world.lab.start(zone)
            assert world.lab.resolve(zone, "web.mesh", 3) == world.lab.resolve(zone, "web.mesh")
            for hop in hops:
                eventually(lambda hop=hop: world.stats(hop, "^control_plane.connected_state$").popitem()[1] == 1, 15)
            raw.more(100)
    print("web:", web.says(), "raw:", raw.says())
    assert not web.failed + raw.failed, (web.failed + raw.failed)[:5]
    assert world.envoys() == pids
    assert configuration(world, hops) == before
    for zone in zones:
        eventually(lambda zone=zone: stored(world, zone) == resources[zone], 5)
