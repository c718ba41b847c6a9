import pytest

from tests.policies.support import policy, wrong

MESH = {"kind": "Mesh"}
EXACT = {"spiffeID": {"type": "Exact", "value": "spiffe://default/web"}}
REQUEST = {"http": {"requestTimeout": "1s"}}


@pytest.mark.parametrize(
    "spec",
    [
        {"to": [{"targetRef": MESH, "default": {"connectionTimeout": "1ms"}}]},
        {"from": [{"targetRef": MESH, "default": {"idleTimeout": "0s"}}]},
        {"rules": [{"default": REQUEST}, {"matches": [EXACT], "default": REQUEST}]},
        {"rules": [{"matches": [{"sni": {"type": "Exact", "value": "a.b"}}], "default": {"connectionTimeout": "1s"}}]},
        {"to": [{"targetRef": MESH, "default": {"http": {"requestHeadersTimeout": "1s"}}}]},
        {
            "targetRef": {"kind": "MeshHTTPRoute", "name": "r"},
            "to": [{"targetRef": {"kind": "MeshExternalService", "name": "e"}, "default": REQUEST}],
        },
        {
            "targetRef": {"kind": "MeshGateway", "name": "g", "tags": {"port": "http"}},
            "to": [{"targetRef": MESH, "default": REQUEST}],
        },
        {"targetRef": {"kind": "Dataplane", "sectionName": "http"}, "from": [{"targetRef": MESH, "default": REQUEST}]},
        {
            "to": [
                {"targetRef": {"kind": kind, "name": "x"}, "default": REQUEST}
                for kind in ("MeshService", "MeshExternalService", "MeshMultiZoneService", "MeshHTTPRoute")
            ]
        },
    ],
)
def test_good_specs(spec):
    assert wrong("MeshTimeout", spec) == []


@pytest.mark.parametrize(
    ("spec", "violations"),
    [
        ({}, ["spec: at least one of 'from', 'to' or 'rules' has to be defined"]),
        (
            {"to": [{"targetRef": MESH}], "rules": [{"default": {"http": {}}}]},
            [
                "spec: fields 'to' and 'from' must be empty when 'rules' is defined",
                "spec.to[0].default: at least one timeout must be set",
                "spec.rules[0].default.http: at least one timeout must be set in this section",
            ],
        ),
        (
            {
                "to": [
                    {"targetRef": {"kind": "MeshSubset"}, "default": {"connectionTimeout": "0s", "idleTimeout": "-1s"}}
                ]
            },
            [
                (
                    "spec.to[0].targetRef.kind: value 'MeshSubset' is not supported here, use one of "
                    "Mesh, MeshService, MeshExternalService, MeshMultiZoneService, MeshHTTPRoute"
                ),
                "spec.to[0].default.connectionTimeout: must be longer than 0, not 0s",
                "spec.to[0].default.idleTimeout: must not be negative: -1s",
            ],
        ),
        (
            {
                "targetRef": {"kind": "MeshHTTPRoute", "name": "r"},
                "to": [
                    {
                        "targetRef": {"kind": "MeshService", "name": "x"},
                        "default": {"idleTimeout": "1s", "http": {"maxStreamDuration": "1s"}},
                    }
                ],
                "from": [{"targetRef": MESH, "default": REQUEST}],
            },
            [
                "spec.from: must not be set when the top-level targetRef is a MeshHTTPRoute",
                (
                    "spec.to[0].targetRef.kind: value 'MeshService' is not supported here, use one of "
                    "Mesh, MeshExternalService"
                ),
                "spec.to[0].default.idleTimeout: cannot be set when the top-level targetRef is a MeshHTTPRoute",
                (
                    "spec.to[0].default.http.maxStreamDuration: "
                    "cannot be set when the top-level targetRef is a MeshHTTPRoute"
                ),
            ],
        ),
        (
            {
                "rules": [
                    {"matches": [{}, EXACT], "default": {"connectionTimeout": "1s", "http": {"requestTimeout": "1s"}}},
                    {
                        "matches": [{"spiffeID": {"type": "Prefix", "value": "x"}}],
                        "default": {"http": {"requestHeadersTimeout": "1s"}},
                    },
                ]
            },
            [
                "spec.rules[0].matches[0]: must have spiffeID or sni",
                (
                    "spec.rules[0].default.connectionTimeout: "
                    "cannot be set when matches have a spiffeID: it is settled before the client is known"
                ),
                "spec.rules[1].matches[0].spiffeID.value: must be a valid SPIFFE ID: 'x' does not begin with spiffe://",
                (
                    "spec.rules[1].default.http.requestHeadersTimeout: "
                    "cannot be set when matches have a spiffeID: it is settled before the client is known"
                ),
            ],
        ),
        (
            {"targetRef": {"kind": "Dataplane", "sectionName": "x"}, "to": [{"targetRef": MESH, "default": REQUEST}]},
            ["spec.targetRef.sectionName: can only be used with inbound policies"],
        ),
        (
            {"from": [{"targetRef": {"kind": "MeshService", "name": "x"}, "default": {"idleTimeout": "1 hour"}}]},
            [
                (
                    "spec.from[0].default.idleTimeout: '1 hour' is not a duration; "
                    "write a number with a unit, such as '10s' or '1h30m'"
                )
            ],
        ),
    ],
)
def test_all_violations_are_reported(spec, violations):
    assert wrong("MeshTimeout", spec) == violations


def test_a_policy_that_is_not_the_operators_is_about_no_gateway():
    role = {"kuma.io/policy-role": "consumer"}
    spec = {"targetRef": {"kind": "MeshGateway", "name": "g"}, "to": [{"targetRef": MESH, "default": REQUEST}]}
    [violation] = wrong("MeshTimeout", spec, role)
    assert violation.startswith("spec.targetRef.kind: value 'MeshGateway' is not supported here")


def test_durations_are_printed_as_kuma_prints_them():
    conf = {"connectionTimeout": "1500ms", "idleTimeout": "1h", "http": {"requestTimeout": "0"}}
    spec = policy("MeshTimeout", "p", {"to": [{"targetRef": MESH, "default": conf}]}).spec
    assert spec.model_dump(mode="json", exclude_unset=True)["to"][0]["default"] == {
        "connectionTimeout": "1.5s",
        "idleTimeout": "1h0m0s",
        "http": {"requestTimeout": "0s"},
    }
