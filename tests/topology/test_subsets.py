"""The endpoints of some of a service's instances."""

from fractions import Fraction
from math import gcd

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.topology.subsets import narrowed
from meshd.topology.view import Endpoint, Group, Reach
from tests.topology.builders import available, dataplane, egress, external, inbound, ingress, mesh
from tests.topology.views import build_views, rows


def view(*resources, zone="zone-a"):
    return build_views(resources, zone)["default"]


def part(service, **tags):
    return rows(narrowed(service.endpoints, service.groups, tags))


def web(name, address, **tags):
    return dataplane(name, inbound("web", tags=tags), address=address)


MIXED = [available("web", 4, version="v1"), available("web", 2, version="v2")]
HERE = [web("1", "10.0.0.1", version="v1"), web("2", "10.0.0.2", version="v1")]
ZONE_B = [ingress("b-1", "zone-b", MIXED, address="b1"), ingress("b-2", "zone-b", MIXED, address="b2")]
ZONE_C = [ingress("c-1", "zone-c", [available("web", 3, version="v2", canary="yes")], address="c1")]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (
            {"version": "v1"},
            [("10.0.0.1", "zone-a", 1), ("10.0.0.2", "zone-a", 1), ("b1", "zone-b", 2), ("b2", "zone-b", 2)],
        ),
        ({"version": "v2"}, [("b1", "zone-b", 1), ("b2", "zone-b", 1), ("c1", "zone-c", 3)]),
        ({"version": "v2", "canary": "yes"}, [("c1", "zone-c", 1)]),
        ({"version": "v1", "canary": "yes"}, []),
        ({"version": "V1"}, []),
        ({"version": "v3"}, []),
        ({"other": "v1"}, []),
    ],
)
def test_gates_have_the_weight_of_the_instances_that_are_meant(tags, expected):
    service = view(mesh(), *HERE, *ZONE_B, *ZONE_C).services["web"]
    assert [(address, zone, weight) for address, _, zone, weight, _, _ in part(service, **tags)] == expected


def test_an_sni_has_no_case():
    service = view(mesh(), web("1", "10.0.0.1", Version="V1"), *ZONE_B).services["web"]
    found = narrowed(service.endpoints, service.groups, {"version": "v1"}, any_case=True)
    assert {e.address for e in found} == {"10.0.0.1", "b1", "b2"}


def test_through_egress_the_remote_ones_that_are_meant_are_shared():
    gates = [egress("e-1", address="10.0.9.1"), egress("e-2", address="10.0.9.2")]
    built = view(mesh(zone_egress=True, locality=True), *HERE, *ZONE_B, *ZONE_C, *gates)
    assert part(built.services["web"], version="v1") == [
        ("10.0.0.1", 8080, "zone-a", 1, 0, "instance"),
        ("10.0.0.2", 8080, "zone-a", 1, 0, "instance"),
        ("10.0.9.1", 10002, "zone-b", 2, 1, "egress"),
        ("10.0.9.2", 10002, "zone-b", 2, 1, "egress"),
    ]
    assert part(built.services["web"], version="v2") == [
        ("10.0.9.1", 10002, "", 1, 1, "egress"),
        ("10.0.9.2", 10002, "", 1, 1, "egress"),
    ]
    assert part(built.services["web"], version="v2", canary="no") == []
    assert part(built.egress_services["web"], version="v2") == [
        ("b1", 10001, "zone-b", 1, 0, "ingress"),
        ("b2", 10001, "zone-b", 1, 0, "ingress"),
        ("c1", 10001, "zone-c", 3, 0, "ingress"),
    ]


def test_gates_have_the_tags_on_which_those_that_are_meant_agree():
    service = view(mesh(), *ZONE_B).services["web"]
    assert "version" not in service.endpoints[0].tags
    (one, _) = narrowed(service.endpoints, service.groups, {"version": "v2"})
    assert one.tags["version"] == "v2"


def test_a_zone_without_a_way_to_it_has_none():
    lost = ingress("d", "zone-d", MIXED, address="")
    service = view(mesh(zone_egress=True), lost, *ZONE_C, egress("e")).services["web"]
    assert service.remote_instances == {"zone-c": 3, "zone-d": 6}
    assert part(service, version="v2") == [("10.0.0.9", 10002, "zone-c", 1, 0, "egress")]
    assert part(service, version="v1") == []


def test_without_mtls_there_are_local_ones_only():
    service = view(mesh(mtls=False), *HERE, *ZONE_B).services["web"]
    assert {row[0] for row in part(service, version="v1")} == {"10.0.0.1", "10.0.0.2"}


def test_ingresses_that_disagree_count_by_the_highest_report():
    late = ingress("b-2", "zone-b", [available("web", 1, version="v1")], address="b2")
    service = view(mesh(), *HERE, ZONE_B[0], late).services["web"]
    assert [(row[0], row[3]) for row in part(service, version="v2")] == [("b1", 1), ("b2", 1)]


def test_an_ingress_knows_its_own_whether_they_are_healthy_or_not():
    sick = dataplane("3", inbound("web", tags={"version": "v2"}, state="NotReady"), address="10.0.0.3")
    service = view(mesh(), *HERE, sick).ingress_services["web"]
    assert [(g.tags["version"], g.instances) for g in service.groups["zone-a"]] == [("v1", 2), ("v2", 0)]
    assert part(service, version="v2") == []


def test_external_services_are_told_apart_behind_the_egress():
    several = [
        external(name, "api", f"{name}.example:443", tags={"version": name, **tags})
        for name, tags in (("v1", {}), ("v2", {"kuma.io/zone": "zone-a"}))
    ]
    built = view(mesh(zone_egress=True), *several, egress("e"))
    assert part(built.services["api"], version="v2") == [("10.0.0.9", 10002, "zone-a", 1, 0, "egress")]
    assert part(built.services["api"], version="v3") == []
    assert part(built.egress_services["api"], version="v2") == [("v2.example", 443, "zone-a", 1, 0, "external")]
    assert part(built.ingress_services["api"], version="v1") == []
    direct = view(mesh(), *several).services["api"]
    assert part(direct, version="v1") == [("v1.example", 443, "", 1, 0, "external")]


def test_counts_and_tags_are_part_of_the_version():
    before = view(mesh(), *HERE, *ZONE_B)
    swapped = [available("web", 2, version="v1"), available("web", 4, version="v2")]
    after = view(mesh(), *HERE, *(ingress(f"b-{n}", "zone-b", swapped, address=f"b{n}") for n in (1, 2)))
    assert rows(before.services["web"].endpoints) == rows(after.services["web"].endpoints)
    assert before.version != after.version
    assert view(mesh(), *reversed(ZONE_B), *HERE).version == before.version


SETS = st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), st.integers(1, 5), max_size=3)
ZONES = st.dictionaries(st.sampled_from(["zone-b", "zone-c"]), st.tuples(SETS, st.integers(1, 3)), max_size=2)


def worth(endpoints: tuple[Endpoint, ...], instances: int) -> dict[tuple[str, int], Fraction]:
    """Weights as numbers of instances."""
    total = sum(e.weight for e in endpoints)
    return {(e.address, e.port): Fraction(e.weight * instances, total) for e in endpoints}


@settings(max_examples=80)
@given(local=SETS, zones=ZONES, egresses=st.integers(0, 2))
def test_the_parts_of_a_service_are_the_whole(local, zones, egresses):
    resources = [mesh(zone_egress=egresses > 0)]
    resources += [egress(f"e{i}", address=f"10.9.0.{i}") for i in range(egresses)]
    for at, (version, count) in enumerate(local.items()):
        resources += [web(f"{version}-{i}", f"10.0.{at}.{i}", version=version) for i in range(count)]
    for zone, (counts, ingresses) in zones.items():
        offer = [available("web", n, version=version) for version, n in counts.items()]
        resources += [ingress(f"{zone}-{i}", zone, offer, address=f"{zone}-{i}") for i in range(ingresses)]
    built = view(*resources)
    everywhere = [local, *(counts for counts, _ in zones.values())]
    for service, counted in (
        (built.services.get("web"), everywhere),
        (built.egress_services.get("web"), everywhere[1:]),
    ):
        if service is None:
            continue
        total = sum(sum(counts.values()) for counts in counted)
        summed: dict[tuple[str, int], Fraction] = {}
        for version in ("v1", "v2", "v3"):
            found = narrowed(service.endpoints, service.groups, {"version": version})
            instances = sum(counts.get(version, 0) for counts in counted)
            assert bool(found) == bool(instances)
            assert gcd(*(e.weight for e in found)) in (0, 1)
            for place, value in worth(found, instances).items():
                summed[place] = summed.get(place, Fraction(0)) + value
        assert summed == worth(service.endpoints, total)
        assert narrowed(service.endpoints, service.groups, {}) == service.endpoints


def test_what_nothing_is_known_to_be_behind_leads_nowhere():
    gate = Endpoint("b", 1, "zone-b", 1, 0, Reach.INGRESS, {"version": "v1"})
    assert narrowed((gate,), {}, {"version": "v1"}) == ()
    assert narrowed((gate,), {"zone-b": (Group({"version": "v1"}, 0),)}, {"version": "v1"}) == ()
