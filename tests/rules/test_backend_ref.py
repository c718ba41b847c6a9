import pytest

from meshd.rules.backend_ref import BackendRef, backend_violations


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"kind": "MeshService", "name": "a"}, False),
        ({"kind": "MeshService", "labels": {"a": "b"}}, False),
        ({"kind": "MeshService", "name": "a", "port": 80}, True),
        ({"kind": "MeshService", "name": "a", "sectionName": "http"}, True),
        ({"kind": "MeshServiceSubset", "name": "a", "tags": {"v": "1"}}, False),
        ({"kind": "MeshExternalService", "name": "a"}, True),
        ({"kind": "MeshMultiZoneService", "name": "a", "port": 80}, True),
    ],
)
def test_what_names_a_resource_of_its_own(document, expected):
    ref = BackendRef.model_validate(document)
    assert ref.names_resource is expected
    assert backend_violations(ref, "r") == []


def test_the_weight_counts_as_written():
    ref = BackendRef.model_validate({"kind": "MeshService", "name": "a"})
    assert ref.model_dump(exclude_unset=True)["weight"] == 1
    assert BackendRef.model_validate({"kind": "MeshService", "name": "a", "weight": 0}).weight == 0
