"""Hashed names, against the vectors of reference/kds.md 5.2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.kds.names import hashed_name, key_of, keys_of, wire_name
from meshd.model.resource import ResourceKey

VECTORS = [
    ("default", "default-timeout-global", "", "", "default-timeout-global-54dbd4c66zwbcf9c"),
    ("default", "default-timeout-zone-1", "zone-1", "", "default-timeout-zone-1-c58w24w4vw27f454"),
    ("default", "redis-zone-1", "zone-1", "", "redis-zone-1-2v6wfvvcvbc9f55d"),
    ("default", "redis-zone-2", "zone-2", "", "redis-zone-2-ff29vc4685c6f594"),
    ("default", "mesh-timeout-all-default", "", "", "mesh-timeout-all-default-bv8z44b7bzb99xc7"),
    ("default", "mesh-retry-all-default", "", "", "mesh-retry-all-default-4266fddczv5d2fvv"),
    ("default", "all-services-default", "", "", "all-services-default-wv4b46z9d8z49284"),
    ("default", "dp-1", "zone-1", "", "dp-1-dff6z597w47d46xx"),
    ("default", "backend", "east", "backend-ns", "backend-cdwzfw22864xvc24"),
    ("", "ingress-1", "zone-1", "", "ingress-1-d42xfc5b76vxd222"),
    ("", "synced-universal-mesh-service", "", "", "synced-universal-mesh-service-46484vczc724vc29"),
]


@pytest.mark.parametrize(("mesh", "name", "zone", "namespace", "expected"), VECTORS)
def test_vectors(mesh: str, name: str, zone: str, namespace: str, expected: str) -> None:
    labels = {"kuma.io/zone": zone} if zone else {}
    if namespace:
        labels["k8s.kuma.io/namespace"] = namespace
    assert hashed_name(mesh, name, labels) == expected


def test_a_long_name_is_cut_to_fit_253() -> None:
    name = hashed_name("default", "x" * 300, {})
    assert len(name) == 253
    assert name.startswith("x" * 236 + "-")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("in-1.", ResourceKey("K", "", "in-1")),
        ("dp.default", ResourceKey("K", "default", "dp")),
        ("dp.ns.default", ResourceKey("K", "default", "dp.ns")),
        ("bare", ResourceKey("K", "", "bare")),
    ],
)
def test_names_are_split_at_the_last_dot(name: str, key: ResourceKey) -> None:
    assert key_of("K", name) == key


def test_a_mesh_may_have_dots_in_its_name() -> None:
    assert keys_of("K", "x.y.z") == (ResourceKey("K", "z", "x.y"), ResourceKey("K", "y.z", "x"))
    assert keys_of("K", "x.y.") == (ResourceKey("K", "", "x.y"),)
    assert len(keys_of("K", "." * 10_000 + "m")) < 70


@given(st.text("abc-.", min_size=1), st.text("abc-"))
def test_wire_names_lead_back_to_their_key(name: str, mesh: str) -> None:
    key = ResourceKey("K", mesh, name)
    assert key_of("K", wire_name(key)) == key
