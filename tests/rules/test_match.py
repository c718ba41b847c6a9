import itertools
import random
from typing import Any

import pytest

from meshd.model.resource import Resource, ResourceKey, Spec
from meshd.rules.match import by_specificity, of_inbound, of_proxy, of_tags, selects_inbound
from meshd.rules.target_ref import TargetRef
from tests.topology.builders import dataplane, inbound


class PolicySpec(Spec):
    target_ref: TargetRef | None = None


def policy(name: str, labels: dict[str, str] | None = None, /, **ref: Any) -> Resource:
    spec = PolicySpec.model_validate({"targetRef": ref} if ref else {})
    return Resource(ResourceKey("P", "default", name), spec, labels or {})


DP_LABELS = {"kuma.io/zone": "zone-a", "kuma.io/origin": "zone", "app": "shop"}
DP = dataplane(
    "dp-1",
    inbound("web", 8080, {"team": "a"}, name="http"),
    inbound("admin", 9090, {"team": "b"}),
    labels=DP_LABELS,
)
GATEWAY = dataplane("gw", gateway={"type": "DELEGATED", "tags": {"kuma.io/service": "gw", "team": "a"}})


@pytest.mark.parametrize(
    ("ref", "selected"),
    [
        ({}, ["http", "9090"]),
        ({"kind": "Mesh"}, ["http", "9090"]),
        ({"kind": "Mesh", "proxyTypes": ["Sidecar"]}, ["http", "9090"]),
        ({"kind": "Mesh", "proxyTypes": ["Gateway"]}, []),
        ({"kind": "MeshSubset", "tags": {"team": "a"}}, ["http"]),
        ({"kind": "MeshSubset", "tags": {"team": "a"}, "proxyTypes": ["Gateway"]}, []),
        ({"kind": "MeshService", "name": "admin"}, ["9090"]),
        ({"kind": "MeshServiceSubset", "name": "web", "tags": {"team": "b"}}, []),
        ({"kind": "MeshServiceSubset", "name": "web", "tags": {"team": "*"}}, ["http"]),
        ({"kind": "Dataplane"}, ["http", "9090"]),
        ({"kind": "Dataplane", "name": "dp-1"}, ["http", "9090"]),
        ({"kind": "Dataplane", "name": "dp-2"}, []),
        ({"kind": "Dataplane", "name": "dp-1", "namespace": "other"}, []),
        ({"kind": "Dataplane", "labels": {"app": "shop"}}, ["http", "9090"]),
        ({"kind": "Dataplane", "labels": {"app": "other"}}, []),
        ({"kind": "Dataplane", "labels": {"app": "shop"}, "sectionName": "9090"}, ["9090"]),
        ({"kind": "Dataplane", "sectionName": "http"}, ["http"]),
        ({"kind": "Dataplane", "sectionName": "8080"}, []),
        ({"kind": "MeshGateway", "name": "dp-1"}, []),
        ({"kind": "MeshExternalService", "name": "web"}, []),
    ],
)
def test_top_level_selects_inbounds(ref, selected):
    inbounds = DP.spec.networking.inbound
    found = [i.name or str(i.port) for i in inbounds if selects_inbound(policy("p", **ref), DP, i)]
    assert found == selected


@pytest.mark.parametrize(
    ("labels", "selected"),
    [
        ({"kuma.io/origin": "global"}, True),
        ({"kuma.io/origin": "zone", "kuma.io/zone": "zone-a"}, True),
        ({"kuma.io/origin": "zone", "kuma.io/zone": "zone-b"}, False),
        ({"kuma.io/origin": "zone", "kuma.io/zone": "zone-b", "kuma.io/policy-role": "producer"}, True),
        ({"kuma.io/policy-role": "workload-owner", "k8s.kuma.io/namespace": "x"}, False),
    ],
)
def test_a_policy_of_another_zone_or_namespace_does_not_apply(labels, selected):
    assert selects_inbound(policy("p", labels, kind="Mesh"), DP, DP.spec.networking.inbound[0]) is selected


def test_a_policy_of_a_zone_names_dataplanes_of_its_zone_only():
    here = policy("p", {"kuma.io/zone": "zone-a"}, kind="Dataplane", name="dp-1")
    there = policy("p", {"kuma.io/zone": "zone-b"}, kind="Dataplane", name="dp-1")
    assert selects_inbound(here, DP, DP.spec.networking.inbound[0])
    assert not selects_inbound(there, DP, DP.spec.networking.inbound[0])


def test_shadowed_policies_do_not_apply():
    shadow = policy("s", {"kuma.io/effect": "shadow"}, kind="Mesh")
    assert of_inbound([shadow], DP, DP.spec.networking.inbound[0]) == ()
    assert of_proxy([shadow], DP) == ()
    assert of_tags([shadow], {"kuma.io/service": "web"}) == ()


def test_a_delegated_gateway_is_selected_as_a_whole():
    policies = [
        policy("a", kind="MeshSubset", tags={"team": "a"}, proxyTypes=["Gateway"]),
        policy("b", kind="MeshSubset", tags={"team": "b"}),
        policy("c", kind="Dataplane", name="gw"),
        policy("d", kind="Mesh", proxyTypes=["Sidecar"]),
        policy("e", kind="MeshGateway", name="gw"),
    ]
    assert [p.key.name for p in of_proxy(policies, GATEWAY)] == ["c", "a"]


def test_references_by_tags_are_about_a_service_without_a_dataplane():
    policies = [
        policy("mesh"),
        policy("named", kind="MeshService", name="db"),
        policy("other", kind="MeshService", name="web"),
        policy("dp", kind="Dataplane"),
    ]
    assert [p.key.name for p in of_tags(policies, {"kuma.io/service": "db"})] == ["mesh", "named"]


ORDERED = [
    policy("mesh-global", {"kuma.io/origin": "global"}, kind="Mesh"),
    policy("z-unlabelled"),
    policy("mesh-zone-z", {"kuma.io/origin": "zone"}, kind="Mesh"),
    policy("mesh-zone-a", {"kuma.io/origin": "zone"}, kind="Mesh"),
    policy("mesh-producer", {"kuma.io/origin": "zone", "kuma.io/policy-role": "producer"}, kind="Mesh"),
    policy("mesh-consumer", {"kuma.io/origin": "zone", "kuma.io/policy-role": "consumer"}, kind="Mesh"),
    policy("mesh-owner", {"kuma.io/origin": "zone", "kuma.io/policy-role": "workload-owner"}, kind="Mesh"),
    policy("dp-all", kind="Dataplane"),
    policy("dp-labels", kind="Dataplane", labels={"a": "b"}),
    policy("dp-labels-section", kind="Dataplane", labels={"a": "b"}, sectionName="http"),
    policy("dp-name", kind="Dataplane", name="x"),
    policy("dp-name-section", kind="Dataplane", name="x", sectionName="http"),
    policy("subset", kind="MeshSubset", tags={"a": "b", "c": "d"}),
    policy("gateway", kind="MeshGateway", name="gw"),
    policy("gateway-tags", kind="MeshGateway", name="gw", tags={"a": "b"}),
    policy("service", kind="MeshService", name="web"),
    policy("service-subset", kind="MeshServiceSubset", name="web"),
]


def test_order_is_from_the_least_to_the_most_specific_whatever_the_input_order():
    names = [p.key.name for p in ORDERED]
    rng = random.Random(1)
    for _ in range(30):
        shuffled = rng.sample(ORDERED, len(ORDERED))
        assert [p.key.name for p in by_specificity(shuffled)] == names


def test_the_smaller_display_name_wins():
    synced = policy("zzz-hash", {"kuma.io/display-name": "aaa"})
    for pair in itertools.permutations([synced, policy("bbb")]):
        assert [p.key.name for p in by_specificity(pair)] == ["bbb", "zzz-hash"]


def test_a_policy_about_a_route_is_about_every_proxy():
    made = policy("p", kind="MeshHTTPRoute", name="r")
    assert of_proxy([made], DP) == of_proxy([made], GATEWAY) == (made,)
    assert of_inbound([made], DP, DP.spec.networking.inbound[0]) == ()
