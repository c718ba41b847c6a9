from meshd.ca.identity import service_sni
from meshd.l4.table import Cluster, RouteTable, SniListener
from meshd.topology.view import Endpoint, Reach


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
