from fractions import Fraction
from math import gcd

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.builders import available, dataplane, egress, external, inbound, ingress, mesh
from tests.topology.views import build_views, rows, shares


def view(*resources, zone="zone-a"):
    return build_views(resources, zone)["default"]


def web(*resources, zone="zone-a"):
    return view(*resources, zone=zone).services["web"]


LOCAL = dataplane("web-a", "web", address="10.0.0.1")
ZONE_B = [
    ingress("b-1", "zone-b", [available("web", 2)], address="b1"),
    ingress("b-2", "zone-b", [available("web", 2)], address="b2"),
]
ZONE_C = [ingress("c-1", "zone-c", [available("web", 3)], address="c1")]


def test_three_zones_of_1_2_3_instances_and_two_ingresses_get_exact_shares():
    service = web(mesh(), LOCAL, *ZONE_B, *ZONE_C)
    assert rows(service.endpoints) == [
        ("10.0.0.1", 8080, "zone-a", 1, 0, "instance"),
        ("b1", 10001, "zone-b", 1, 0, "ingress"),
        ("b2", 10001, "zone-b", 1, 0, "ingress"),
        ("c1", 10001, "zone-c", 3, 0, "ingress"),
    ]
    assert shares(service) == {"zone-a": Fraction(1, 6), "zone-b": Fraction(2, 6), "zone-c": Fraction(3, 6)}
    assert (service.local_instances, service.remote_instances) == (1, {"zone-b": 2, "zone-c": 3})


def test_the_same_through_two_egresses():
    gates = [egress("e-1", "zone-a", "10.0.9.1"), egress("e-2", "", "10.0.9.2"), egress("e-b", "zone-b", "10.9.9.9")]
    built = view(mesh(zone_egress=True), LOCAL, *ZONE_B, *ZONE_C, *gates)
    assert rows(built.services["web"].endpoints) == [
        ("10.0.9.1", 10002, "", 5, 0, "egress"),
        ("10.0.9.2", 10002, "", 5, 0, "egress"),
        ("10.0.0.1", 8080, "zone-a", 2, 0, "instance"),
    ]
    assert shares(built.services["web"]) == {"zone-a": Fraction(1, 6), "": Fraction(5, 6)}
    passed_on = built.egress_services["web"]
    assert rows(passed_on.endpoints) == [
        ("b1", 10001, "zone-b", 1, 0, "ingress"),
        ("b2", 10001, "zone-b", 1, 0, "ingress"),
        ("c1", 10001, "zone-c", 3, 0, "ingress"),
    ]
    assert shares(passed_on) == {"zone-b": Fraction(2, 5), "zone-c": Fraction(3, 5)}


def test_instances_that_do_not_divide_evenly_scale_everything():
    three = [ingress(f"b-{i}", "zone-b", [available("web", 2)], address=f"b{i}") for i in range(3)]
    service = web(mesh(), LOCAL, *three)
    assert [e.weight for e in service.endpoints] == [3, 2, 2, 2]
    assert shares(service) == {"zone-a": Fraction(1, 3), "zone-b": Fraction(2, 3)}


def test_tag_sets_of_one_zone_add_up_and_only_tags_they_share_are_kept():
    offer = [available("web", 2, version="1", team="x"), available("web", 3, version="2", team="x")]
    service = web(mesh(), LOCAL, ingress("b", "zone-b", offer, address="b"))
    assert service.remote_instances == {"zone-b": 5}
    assert [e.weight for e in service.endpoints] == [1, 5]
    assert service.endpoints[1].tags == {"kuma.io/service": "web", "kuma.io/protocol": "tcp", "team": "x"}


def test_locality_aware_keeps_remote_ones_in_reserve():
    service = web(mesh(locality=True), LOCAL, *ZONE_B, *ZONE_C)
    assert [(e.zone, e.priority) for e in service.endpoints] == [
        ("zone-a", 0),
        ("zone-b", 1),
        ("zone-b", 1),
        ("zone-c", 1),
    ]
    assert shares(service, 0) == {"zone-a": Fraction(1)}
    assert shares(service, 1) == {"zone-b": Fraction(2, 5), "zone-c": Fraction(3, 5)}


def test_locality_aware_through_egress():
    service = web(mesh(locality=True, zone_egress=True), LOCAL, *ZONE_C, egress("e"))
    assert rows(service.endpoints) == [
        ("10.0.0.1", 8080, "zone-a", 1, 0, "instance"),
        ("10.0.0.9", 10002, "zone-c", 3, 1, "egress"),
    ]


def test_egress_on_and_none_there_fails_closed_with_a_reason():
    built = view(mesh(zone_egress=True), LOCAL, *ZONE_C, egress("e", "zone-c"))
    assert [e.zone for e in built.services["web"].endpoints] == ["zone-a"]
    assert built.services["web"].remote_instances == {"zone-c": 3}
    assert built.reasons == (
        "routing.zoneEgress is on and this zone has no ZoneEgress: nothing outside of the zone can be reached",
    )


def test_without_mtls_remote_endpoints_are_not_used():
    built = view(mesh(mtls=False), LOCAL, *ZONE_C)
    assert [e.zone for e in built.services["web"].endpoints] == ["zone-a"]
    assert built.egress_services == {}
    assert built.reasons == ("mTLS is off: services of other zones cannot be reached",)


@pytest.mark.parametrize(("address", "port"), [("", 10001), ("b", 0), ("", 0)])
def test_an_ingress_without_an_advertised_address_and_port_is_skipped_with_a_reason(address, port):
    built = view(mesh(), LOCAL, ingress("b", "zone-b", [available("web", 2)], address=address, port=port), *ZONE_C)
    assert shares(built.services["web"]) == {"zone-a": Fraction(1, 4), "zone-c": Fraction(3, 4)}
    assert built.services["web"].remote_instances == {"zone-b": 2, "zone-c": 3}
    assert built.reasons == ("ZoneIngress b of zone zone-b has no advertised address and port; not used",)


def test_an_ingress_of_two_that_cannot_be_used_leaves_its_share_to_the_other():
    service = web(mesh(), LOCAL, ZONE_B[0], ingress("b-2", "zone-b", [available("web", 2)], port=0))
    assert shares(service) == {"zone-a": Fraction(1, 3), "zone-b": Fraction(2, 3)}


def test_ingresses_behind_one_load_balancer_count_once():
    both = [ingress(f"b-{i}", "zone-b", [available("web", 2)], address="lb") for i in (1, 2)]
    assert rows(web(mesh(), LOCAL, *both).endpoints)[1:] == [("lb", 10001, "zone-b", 2, 0, "ingress")]


def test_an_ingress_that_has_not_reported_yet_takes_no_share():
    service = web(mesh(), LOCAL, ZONE_B[0], ingress("b-2", "zone-b", [], address="b2"))
    assert [(e.address, e.weight) for e in service.endpoints] == [("10.0.0.1", 1), ("b1", 2)]


def test_two_zones_behind_one_address_stay_two_destinations():
    b, c = (ingress(n, f"zone-{n}", [available("web", i)], address="shared") for n, i in (("b", 1), ("c", 2)))
    assert rows(web(mesh(), b, c).endpoints) == [
        ("shared", 10001, "zone-b", 1, 0, "ingress"),
        ("shared", 10001, "zone-c", 2, 0, "ingress"),
    ]


def test_other_meshes_offers_and_local_ingresses_are_not_remote():
    own = ingress("own", "", [available("web", 9)])
    named = ingress("named", "zone-a", [available("web", 9)])
    foreign = ingress("b", "zone-b", [available("web", 9, mesh="other")])
    assert [e.zone for e in web(mesh(), LOCAL, own, named, foreign).endpoints] == ["zone-a"]


@pytest.mark.parametrize(
    "state", [{"state": "NotReady"}, {"health": {"ready": False}}, {"state": "NotReady", "health": {"ready": True}}]
)
def test_unhealthy_inbounds_get_no_traffic_but_keep_their_service(state):
    built = view(mesh(), dataplane("d", inbound("web", **state)))
    assert built.services["web"].endpoints == ()
    assert built.services["web"].local_instances == 0
    assert "web" in built.vips


def test_ignored_inbounds_and_gateways_offer_nothing():
    gateway = dataplane("gw", gateway={"type": "DELEGATED", "tags": {"kuma.io/service": "gw"}})
    built = view(mesh(), dataplane("d", inbound("web", state="Ignored")), gateway)
    assert built.services == {}
    assert sorted(built.local_dataplanes) == ["d", "gw"]


def test_advertised_addresses_go_before_inbound_and_own_ones():
    service = web(
        mesh(),
        dataplane("a", "web", address="10.0.0.1", advertisedAddress="1.1.1.1"),
        dataplane("b", inbound("web", address="10.0.0.22"), address="10.0.0.2"),
    )
    assert [e.address for e in service.endpoints] == ["1.1.1.1", "10.0.0.22"]


def test_the_protocol_is_the_common_denominator_of_all_zones():
    remote = ingress("b", "zone-b", [available("web", 1, **{"kuma.io/protocol": "http2"})])
    local = dataplane("a", inbound("web", tags={"kuma.io/protocol": "grpc"}))
    assert web(mesh(), local, remote).protocol == "http2"


def test_names_that_differ_by_case_only_are_one_service_spelled_as_here():
    built = view(mesh(), LOCAL, ingress("b", "zone-b", [available("WEB", 5)]))
    assert list(built.services) == ["web"]
    assert [e.zone for e in built.services["web"].endpoints] == ["zone-a"]
    assert built.reasons == ("service WEB differs from web by case only; not used",)


def test_an_ingress_reaches_local_instances_only():
    built = view(mesh(), LOCAL, *ZONE_C)
    assert rows(built.ingress_services["web"].endpoints) == [("10.0.0.1", 8080, "zone-a", 1, 0, "instance")]
    assert view(mesh(), *ZONE_C).ingress_services == {}


EXT = external("x", "ext", "api.example:443")


def test_an_external_service_without_egress_is_reached_directly():
    built = view(mesh(), EXT, external("y", "ext", "api2.example:8443"))
    assert rows(built.services["ext"].endpoints) == [
        ("api.example", 443, "", 1, 0, "external"),
        ("api2.example", 8443, "", 1, 0, "external"),
    ]
    assert built.services["ext"].external is EXT
    assert built.ingress_services == {}


def test_an_external_service_with_egress_leaves_there():
    built = view(mesh(zone_egress=True), EXT, egress("e-1", address="e1"), egress("e-2", address="e2"))
    assert rows(built.services["ext"].endpoints) == [
        ("e1", 10002, "", 1, 0, "egress"),
        ("e2", 10002, "", 1, 0, "egress"),
    ]
    assert rows(built.egress_services["ext"].endpoints) == [("api.example", 443, "", 1, 0, "external")]
    assert built.egress_services["ext"].external is EXT


def test_an_external_service_tagged_with_another_zone_leaves_there():
    there = external("x", "ext", "api.example:443", tags={"kuma.io/zone": "zone-b"})
    report = ingress("b", "zone-b", [available("ext", 1, external=True, **{"kuma.io/zone": "zone-b"})], address="b")
    here = view(mesh(zone_egress=True, locality=True), there, report, egress("e"))
    assert rows(here.services["ext"].endpoints) == [("10.0.0.9", 10002, "zone-b", 1, 1, "egress")]
    assert rows(here.egress_services["ext"].endpoints) == [("b", 10001, "zone-b", 1, 0, "ingress")]
    assert here.egress_services["ext"].external is None, "passed on by SNI, not ended here"
    in_b = view(mesh(zone_egress=True), there, egress("e"), zone="zone-b")
    assert rows(in_b.ingress_services["ext"].endpoints) == [("10.0.0.9", 10002, "zone-b", 1, 0, "egress")]
    assert rows(in_b.egress_services["ext"].endpoints) == [("api.example", 443, "zone-b", 1, 0, "external")]


def test_an_external_service_counts_only_while_no_instance_has_its_name():
    built = view(mesh(), external("x", "web", "api.example:443"), LOCAL)
    assert [e.reach.value for e in built.services["web"].endpoints] == ["instance"]
    assert built.services["web"].external is None


def test_external_reports_are_no_instances():
    report = ingress("b", "zone-b", [available("ext", 1, external=True)])
    assert view(mesh(zone_egress=True), report, egress("e")).services["ext"].endpoints == ()


ZONES = st.dictionaries(
    st.sampled_from(["zone-b", "zone-c", "zone-d"]), st.tuples(st.integers(1, 9), st.integers(1, 4)), max_size=3
)


@settings(max_examples=80)
@given(local=st.integers(0, 5), zones=ZONES, egresses=st.integers(0, 3), order=st.randoms(use_true_random=False))
def test_every_instance_gets_the_same_share_whatever_the_shape(local, zones, egresses, order):
    resources = [mesh(zone_egress=egresses > 0)]
    resources += [dataplane(f"d{i}", "web", address=f"10.0.0.{i}") for i in range(local)]
    resources += [egress(f"e{i}", address=f"10.9.0.{i}") for i in range(egresses)]
    for zone, (instances, ingresses) in zones.items():
        offer = [available("web", instances)]
        resources += [ingress(f"{zone}-{i}", zone, offer, address=f"{zone}-{i}") for i in range(ingresses)]
    order.shuffle(resources)
    built = view(*resources)
    if not local and not zones:
        assert built.services == {}
        return
    total = local + sum(n for n, _ in zones.values())
    expected = {zone: Fraction(n, total) for zone, (n, _) in zones.items()}
    service = built.services["web"]
    if egresses and zones:
        name = next(iter(zones)) if len(zones) == 1 else ""
        expected = {name: sum(expected.values(), Fraction(0))}
        sent_on = shares(built.egress_services["web"])
        assert sent_on == {zone: Fraction(n, total - local) for zone, (n, _) in zones.items()}
    if local:
        expected["zone-a"] = Fraction(local, total)
    assert shares(service) == expected
    assert gcd(*(e.weight for e in service.endpoints)) == 1
    assert list(service.endpoints) == sorted(service.endpoints, key=lambda e: (e.priority, e.zone, e.address, e.port))
