import pytest

from meshd.policies.mesh_traffic_permission.validate import validate
from tests.policies.mtp import entry, mtp

TAGGED = "MeshSubset, MeshService, MeshServiceSubset"
SPIFFE = {"spiffeID": {"type": "Exact", "value": "spiffe://default/web"}}


@pytest.mark.parametrize(
    "spec",
    [
        {"from": [entry("Allow")]},
        {"targetRef": {"kind": "Dataplane", "sectionName": "http"}, "from": [entry("Deny", "MeshService", name="a")]},
        {"targetRef": {"kind": "MeshService", "name": "web"}, "rules": [{"default": {"allow": [SPIFFE]}}]},
    ],
)
def test_good_specs(spec):
    assert validate(mtp("p", spec)) == ()


@pytest.mark.parametrize(
    ("spec", "violations"),
    [
        ({}, ["spec: at least one of 'from' or 'rules' has to be defined"]),
        (
            {"from": [entry("Allow")], "rules": [{"default": {"deny": [SPIFFE]}}]},
            ["spec: field 'from' must be empty when 'rules' is defined"],
        ),
        (
            {
                "targetRef": {"kind": "MeshGateway", "name": "gw"},
                "from": [entry(None, "MeshService"), entry("Deny", "Dataplane")],
            },
            [
                f"spec.targetRef.kind: value 'MeshGateway' is not supported here, use one of Mesh, Dataplane, {TAGGED}",
                "spec.from[0].targetRef: name or labels must be set when kind is MeshService",
                "spec.from[0].default.action: must be defined: Allow, Deny or AllowWithShadowDeny",
                f"spec.from[1].targetRef.kind: value 'Dataplane' is not supported here, use one of Mesh, {TAGGED}",
            ],
        ),
        (
            {
                "rules": [
                    {"default": {}},
                    {"default": {"deny": [{}], "allow": [{"spiffeID": {"type": "Prefix", "value": "x"}}]}},
                ]
            },
            [
                "spec.rules[0].default: at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined",
                "spec.rules[1].default.allow[0].spiffeID.value: must be a valid SPIFFE ID: 'x' does not begin with spiffe://",
                "spec.rules[1].default.deny[0]: must have spiffeID or sni: an empty match is met by no client",
            ],
        ),
    ],
)
def test_all_violations_are_reported(spec, violations):
    assert [str(v) for v in validate(mtp("p", spec))] == violations
