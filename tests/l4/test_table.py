from meshd.ca.identity import service_sni
from meshd.l4.table import Cluster, ExternalRoute, IdentityKey, RouteTable, SniListener
from meshd.topology.view import Endpoint, Group, Reach
from tests.l4.lab import Allow


def listener() -> SniListener:
    endpoints = tuple(Endpoint(a, 1, "a", 1, 0, Reach.INSTANCE, {"version": v}) for a, v in (("x", "V1"), ("y", "v2")))
    return SniListener("127.0.0.1", 1, {b"web{mesh=default}": Cluster("default", "web", endpoints)})


def test_sni_matches_in_any_case():
    found = listener().find(b"WEB{mesh=DEFAULT}")
    assert isinstance(found, Cluster)
    assert len(found.endpoints) == 2


def test_subset_sni_narrows_to_the_endpoints_whose_tags_agree():
    found = listener().find(b"web{mesh=default,version=v1}")
    assert isinstance(found, Cluster)
    assert [e.address for e in found.endpoints] == ["x"]


def test_subset_sni_leads_through_gates_with_the_weight_of_what_is_behind():
    gates = tuple(Endpoint(zone, 1, zone, 1, 0, Reach.INGRESS, {}) for zone in ("b", "c"))
    groups = {
        "b": (Group({"version": "v1"}, 3), Group({"version": "v2"}, 1)),
        "c": (Group({"version": "v1"}, 2),),
    }
    passing = SniListener("127.0.0.1", 1, {b"web{mesh=default}": Cluster("default", "web", gates, groups=groups)})
    found = passing.find(b"web{mesh=default,version=V1}")
    assert isinstance(found, Cluster)
    assert [(e.zone, e.weight) for e in found.endpoints] == [("b", 3), ("c", 2)]
    assert found.subset == (("version", "v1"),), "it is balanced apart from the whole"
    found = passing.find(b"web{mesh=default,version=v2}")
    assert isinstance(found, Cluster)
    assert [e.zone for e in found.endpoints] == ["b"]


def test_subset_sni_of_an_external_service_narrows_what_is_behind_the_permit():
    endpoints = tuple(Endpoint(f"{v}.example", 443, "", 1, 0, Reach.EXTERNAL, {"version": v}) for v in ("v1", "v2"))
    identity = IdentityKey("default", "egress", ())
    route = ExternalRoute(identity, Allow(), Cluster("default", "api", endpoints))
    leaving = SniListener("127.0.0.1", 1, {b"api{mesh=default}": route})
    found = leaving.find(b"api{mesh=default,version=v2}")
    assert isinstance(found, ExternalRoute)
    assert found.permit is route.permit
    assert [e.address for e in found.cluster.endpoints] == ["v2.example"]
    assert leaving.find(b"api{mesh=default,version=v3}") is None


def test_unknown_names_have_no_route():
    for name in (
        b"",
        b"web",
        b"web{",
        b"web{mesh=other}",
        b"web{mesh=default,version=v3}",
        b"db{mesh=default}",
        b"\xff{}",
    ):
        assert listener().find(name) is None


def test_service_sni_sorts_the_mesh_in_among_the_tags():
    assert service_sni("backend", "default") == b"backend{mesh=default}"
    assert service_sni("backend", "default", {"version": "v1", "a": "b"}) == b"backend{a=b,mesh=default,version=v1}"


def test_empty_table_needs_no_identity():
    assert RouteTable().identities() == frozenset()
