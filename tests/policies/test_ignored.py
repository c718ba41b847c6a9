from dataclasses import replace

import pytest

from meshd.kinds.without_effect import NO_EFFECT
from meshd.policies.ignored import REASON, ignored, without_engine
from meshd.policies.initial import initial_policies
from meshd.policies.mesh_retry import MeshRetry
from tests.policies.support import POLICIES, policy
from tests.topology import builders as b

WEB = b.dataplane("web-1", b.inbound("web", name="main"))
INITIAL = initial_policies(POLICIES, b.mesh(), "")


def said(*policies, of=WEB):
    found = ignored(POLICIES, lambda kind, mesh: [p for p in policies if (p.key.kind, p.key.mesh) == (kind, mesh)], of)
    assert {violation.message for violation in found} <= {REASON, NO_EFFECT}
    return [violation.field for violation in found]


def test_permissions_are_followed():
    assert "MeshTrafficPermission" not in without_engine(POLICIES)
    allow = {"from": [{"targetRef": {"kind": "Mesh"}, "default": {"action": "Allow"}}]}
    assert said(policy("MeshTrafficPermission", "p", allow)) == []


TO = {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"tcp": {"maxConnectAttempt": 9}}}]}


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ({"kind": "Mesh"}, ["MeshRetry p"]),
        ({"kind": "MeshService", "name": "web"}, ["MeshRetry p"]),
        ({"kind": "MeshService", "name": "other"}, []),
        ({"kind": "Mesh", "proxyTypes": ["Gateway"]}, []),
    ],
)
def test_what_is_about_the_proxy_is_named(top, expected):
    assert said(policy("MeshRetry", "p", {"targetRef": top, **TO})) == expected


def test_what_is_about_an_inbound_is_named():
    rule = {"default": {"connectionLimits": {"maxConnections": 1}}}
    spec = {"targetRef": {"kind": "Dataplane", "sectionName": "main"}, "rules": [rule]}
    assert said(policy("MeshCircuitBreaker", "p", spec)) == ["MeshCircuitBreaker p"]


def test_what_a_mesh_began_with_is_worth_a_word_only_once_it_is_changed():
    assert said(*INITIAL) == []
    changed = [replace(p, spec=MeshRetry()) if p.key.kind == "MeshRetry" else p for p in INITIAL]
    assert said(*changed) == ["MeshRetry mesh-retry-all-default"]


def test_a_copy_of_the_globals_initial_policy_is_known_by_its_display_name():
    [retry] = [p for p in INITIAL if p.key.kind == "MeshRetry"]
    name = retry.key.name
    copy = replace(retry, key=replace(retry.key, name=f"{name}-x7c2"), labels={"kuma.io/display-name": name})
    assert said(copy) == []


def test_a_shadow_does_nothing_anywhere():
    assert said(policy("MeshRetry", "p", TO, {"kuma.io/effect": "shadow"})) == []


def test_a_zone_proxy_has_no_such_policies():
    assert said(policy("MeshRetry", "p", TO), of=b.egress("e")) == []


def test_a_kind_that_has_no_effect_anywhere_is_named_too():
    spec = {"targetRef": {"kind": "MeshService", "name": "web"}, **TO}
    assert said(policy("MeshHealthCheck", "p", spec)) == ["MeshHealthCheck p"]
    assert said(policy("MeshHealthCheck", "p", {**spec, "targetRef": {"kind": "MeshService", "name": "api"}})) == []
