import pytest

from tests.policies.support import policy, wrong

MESH_SERVICE = {"kind": "MeshService", "name": "db"}


def to(*refs, target=MESH_SERVICE):
    return {"to": [{"targetRef": target, "rules": [{"default": {"backendRefs": list(refs)}}]}]}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"to": [{"targetRef": MESH_SERVICE, "rules": []}]},
        to({"kind": "MeshServiceSubset", "name": "db", "tags": {"v": "1"}, "weight": 0}),
        to({"kind": "MeshService", "labels": {"a": "b"}, "port": 80}),
        to({"kind": "MeshExternalService", "name": "x"}, target={"kind": "MeshExternalService", "name": "y"}),
        to({"kind": "MeshMultiZoneService", "name": "x", "port": 80}),
        {
            "targetRef": {"kind": "MeshGateway", "name": "g", "tags": {"port": "*"}},
            **to(MESH_SERVICE, target={"kind": "Mesh"}),
        },
    ],
)
def test_good_specs(spec):
    assert wrong("MeshTCPRoute", spec) == []


@pytest.mark.parametrize(
    ("spec", "violations"),
    [
        ({"to": []}, ["spec.to: must have at least one item, or be left out"]),
        ({"to": [{"targetRef": MESH_SERVICE}]}, ["spec.to[0].rules: is required"]),
        (
            {"targetRef": {"kind": "MeshHTTPRoute", "name": "r"}, **to(target={"kind": "Mesh"})},
            [
                (
                    "spec.targetRef.kind: value 'MeshHTTPRoute' is not supported here, use one of "
                    "Mesh, Dataplane, MeshSubset, MeshGateway, MeshService, MeshServiceSubset"
                ),
                (
                    "spec.to[0].targetRef.kind: value 'Mesh' is not supported here, use one of "
                    "MeshService, MeshExternalService, MeshMultiZoneService"
                ),
                "spec.to[0].rules[0].default.backendRefs: must be set",
            ],
        ),
        (
            {"to": [{"targetRef": MESH_SERVICE, "rules": to(MESH_SERVICE)["to"][0]["rules"] * 2}]},
            ["spec.to[0].rules: must have at most one item, not 2"],
        ),
        (
            to({"kind": "MeshMultiZoneService", "name": "x"}, {"kind": "MeshSubset"}, {"kind": "MeshServiceSubset"}),
            [
                "spec.to[0].rules[0].default.backendRefs[0].port: must be set with kind MeshMultiZoneService",
                (
                    "spec.to[0].rules[0].default.backendRefs[1].kind: value 'MeshSubset' is not supported here, use "
                    "one of MeshService, MeshExternalService, MeshMultiZoneService, MeshServiceSubset"
                ),
                "spec.to[0].rules[0].default.backendRefs[2].name: must be set when kind is MeshServiceSubset",
            ],
        ),
    ],
)
def test_all_violations_are_reported(spec, violations):
    assert wrong("MeshTCPRoute", spec) == violations


def test_a_weight_that_was_not_written_is_written_out():
    spec = policy("MeshTCPRoute", "p", to(MESH_SERVICE)).spec
    [ref] = spec.model_dump(mode="json", exclude_unset=True)["to"][0]["rules"][0]["default"]["backendRefs"]
    assert ref == {"kind": "MeshService", "name": "db", "weight": 1}
