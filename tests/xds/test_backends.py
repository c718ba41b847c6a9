from meshd.rules.backend_ref import BackendRef
from meshd.xds.backends import backends_of, subsets_of
from meshd.xds.shaping import Backend


def refs(*documents):
    return [BackendRef.model_validate(document) for document in documents]


def test_services_and_parts_of_them_are_shares_and_resources_are_none():
    found = backends_of(
        refs(
            {"kind": "MeshService", "name": "a", "weight": 3},
            {"kind": "MeshServiceSubset", "name": "b", "tags": {"z": "1", "a": "2"}},
            {"kind": "MeshService", "labels": {"a": "b"}},
            {"kind": "MeshService", "name": "c", "port": 80},
            {"kind": "MeshExternalService", "name": "d"},
        )
    )
    assert found == (Backend("a", 3), Backend("b", 1, (("a", "2"), ("z", "1"))))


def test_parts_of_services():
    made = refs(
        {"kind": "MeshServiceSubset", "name": "b", "tags": {"z": "1"}}, {"kind": "MeshServiceSubset", "name": "b"}
    )
    assert subsets_of(made) == [("b", (("z", "1"),))]
