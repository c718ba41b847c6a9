"""What a new mesh begins with, word for word as Kuma 2.14.3 makes it."""

import pytest

from meshd.kinds.mesh import Mesh
from meshd.model.codec import decode_document, encode_document
from meshd.model.resource import Resource, ResourceKey
from meshd.policies import Policy
from meshd.policies.initial import initial_policies
from tests.policies.support import POLICIES, REGISTRY

WHOLE = {"kind": "Mesh"}
EXPECTED = {
    "mesh-timeout-all-m": {
        "targetRef": {"kind": "Mesh", "proxyTypes": ["Sidecar"]},
        "to": [
            {
                "targetRef": WHOLE,
                "default": {
                    "connectionTimeout": "5s",
                    "idleTimeout": "1h0m0s",
                    "http": {"requestTimeout": "15s", "streamIdleTimeout": "30m0s"},
                },
            }
        ],
        "from": [
            {
                "targetRef": WHOLE,
                "default": {
                    "connectionTimeout": "10s",
                    "idleTimeout": "2h0m0s",
                    "http": {"requestTimeout": "0s", "streamIdleTimeout": "1h0m0s", "maxStreamDuration": "0s"},
                },
            }
        ],
    },
    "mesh-gateways-timeout-all-m": {
        "targetRef": {"kind": "Mesh", "proxyTypes": ["Gateway"]},
        "to": [{"targetRef": WHOLE, "default": {"idleTimeout": "1h0m0s", "http": {"streamIdleTimeout": "5s"}}}],
        "from": [
            {
                "targetRef": WHOLE,
                "default": {
                    "idleTimeout": "5m0s",
                    "http": {"streamIdleTimeout": "5s", "requestHeadersTimeout": "500ms"},
                },
            }
        ],
    },
    "mesh-circuit-breaker-all-m": {
        "targetRef": WHOLE,
        "to": [
            {
                "targetRef": WHOLE,
                "default": {
                    "connectionLimits": {
                        "maxConnections": 1024,
                        "maxPendingRequests": 1024,
                        "maxRequests": 1024,
                        "maxRetries": 3,
                    }
                },
            }
        ],
    },
    "mesh-retry-all-m": {
        "targetRef": WHOLE,
        "to": [
            {
                "targetRef": WHOLE,
                "default": {
                    "tcp": {"maxConnectAttempt": 5},
                    "http": {
                        "numRetries": 5,
                        "perTryTimeout": "16s",
                        "backOff": {"baseInterval": "25ms", "maxInterval": "250ms"},
                    },
                    "grpc": {
                        "numRetries": 5,
                        "perTryTimeout": "16s",
                        "backOff": {"baseInterval": "25ms", "maxInterval": "250ms"},
                    },
                },
            }
        ],
    },
}


def made(zone="", *skipped):
    mesh = Resource(ResourceKey("Mesh", "", "m"), Mesh(skip_creating_initial_policies=skipped))
    return {p.key.name: p for p in initial_policies(POLICIES, mesh, zone)}


def test_the_policies_of_a_new_mesh():
    printed = {name: encode_document(policy, REGISTRY) for name, policy in made().items()}
    assert {name: document["spec"] for name, document in printed.items()} == EXPECTED
    for document in printed.values():
        assert encode_document(decode_document(document, REGISTRY), REGISTRY) == document


@pytest.mark.parametrize(
    ("zone", "labels"),
    [
        ("", {"kuma.io/mesh": "m"}),
        (
            "zone-a",
            {"kuma.io/mesh": "m", "kuma.io/origin": "zone", "kuma.io/zone": "zone-a", "kuma.io/env": "universal"},
        ),
    ],
)
def test_they_belong_to_the_mesh_and_carry_the_labels_of_who_made_them(zone, labels):
    for policy in made(zone).values():
        assert dict(policy.labels) == labels
        assert policy.owner == ResourceKey("Mesh", "", "m")


@pytest.mark.parametrize(
    ("skipped", "left"),
    [
        (("*",), set()),
        (("MeshTimeout",), {"mesh-circuit-breaker-all-m", "mesh-retry-all-m"}),
        (("MeshRetry", "MeshCircuitBreaker", "TrafficRoute"), {"mesh-timeout-all-m", "mesh-gateways-timeout-all-m"}),
    ],
)
def test_a_mesh_can_be_made_without(skipped, left):
    assert set(made("", *skipped)) == left


def test_a_policy_that_makes_nothing_is_left_out():
    quiet = [Policy(p.type, p.order) for p in POLICIES]
    assert initial_policies(quiet, Resource(ResourceKey("Mesh", "", "m"), Mesh()), "") == ()
