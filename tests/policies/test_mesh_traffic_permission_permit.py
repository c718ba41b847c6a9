import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.l4.table import Verdict
from meshd.policies.mesh_traffic_permission.permit import permit_for, tags_of
from tests.policies.mtp import entry, mtp, view
from tests.topology.builders import dataplane, inbound

WEB = dataplane("dp", inbound("web", 8080, name="http"), labels={"app": "web"})
TAGS = {"kuma.io/service": "web", "kuma.io/protocol": "tcp"}
SHOP = ["spiffe://default/shop", "kuma://kuma.io/zone/zone-b", "kuma://team/a", "kuma://version/2"]
BATCH = ["spiffe://default/batch", "kuma://team/b"]
MULTI = ["spiffe://default/shop", "spiffe://default/batch"]
OTHER_MESH = ["spiffe://other/shop", "kuma://team/z"]

ALLOW_ALL = mtp("everybody", {"from": [entry("Allow")]})


def decide(policies, uris, *, mtls=True, dp=WEB, tags=TAGS, section=""):
    return permit_for(view(*policies, mtls=mtls), dp, tags, section=section).decide(uris)


def allow(rule):
    return Verdict(allowed=True, rule=rule)


def deny(rule):
    return Verdict(allowed=False, rule=rule)


def test_nobody_is_let_in_without_a_policy():
    assert decide([], SHOP) == deny("default")


def test_without_mtls_permissions_have_no_effect():
    assert decide([], [], mtls=False) == allow("mtls-disabled")


@pytest.mark.parametrize(
    ("policies", "uris", "verdict"),
    [
        ([ALLOW_ALL], SHOP, allow("everybody")),
        ([ALLOW_ALL], [], allow("everybody")),
        # by service over an everybody
        ([ALLOW_ALL, mtp("deny-shop", {"from": [entry("Deny", "MeshService", name="shop")]})], SHOP, deny("deny-shop")),
        (
            [ALLOW_ALL, mtp("deny-shop", {"from": [entry("Deny", "MeshService", name="shop")]})],
            BATCH,
            allow("everybody"),
        ),
        # the same service of another mesh is somebody else
        ([mtp("shop", {"from": [entry("Allow", "MeshService", name="shop")]})], OTHER_MESH, deny("default")),
        # by tag over an everybody
        ([ALLOW_ALL, mtp("b", {"from": [entry("Deny", "MeshSubset", tags={"team": "a"})]})], SHOP, deny("b")),
        ([ALLOW_ALL, mtp("b", {"from": [entry("Deny", "MeshSubset", tags={"team": "a"})]})], BATCH, allow("everybody")),
        (
            [ALLOW_ALL, mtp("b", {"from": [entry("Deny", "MeshSubset", tags={"kuma.io/zone": "zone-b"})]})],
            SHOP,
            deny("b"),
        ),
        (
            [mtp("s", {"from": [entry("Allow", "MeshServiceSubset", name="shop", tags={"version": "1"})]})],
            SHOP,
            deny("default"),
        ),
        # two denials over an everybody: neither is let in by the negation of the other
        (
            [
                mtp(
                    "p",
                    {
                        "from": [
                            entry("Allow"),
                            entry("Deny", "MeshService", name="shop"),
                            entry("Deny", "MeshService", name="batch"),
                        ]
                    },
                )
            ],
            BATCH,
            deny("p"),
        ),
        # the last entry and the most specific policy win; of equals the smaller name
        ([mtp("p", {"from": [entry("Deny"), entry("Allow")]})], SHOP, allow("p")),
        (
            [ALLOW_ALL, mtp("zz", {"targetRef": {"kind": "MeshService", "name": "web"}, "from": [entry("Deny")]})],
            SHOP,
            deny("zz"),
        ),
        ([ALLOW_ALL, mtp("a-deny", {"from": [entry("Deny")]})], SHOP, deny("a-deny")),
        ([ALLOW_ALL, mtp("z-deny", {"from": [entry("Deny")]})], SHOP, allow("everybody")),
        # not about this inbound
        (
            [mtp("p", {"targetRef": {"kind": "MeshService", "name": "db"}, "from": [entry("Allow")]})],
            SHOP,
            deny("default"),
        ),
        ([mtp("p", {"from": [entry("Allow")]}, {"kuma.io/effect": "shadow"})], SHOP, deny("default")),
        # shadow
        (
            [mtp("p", {"from": [entry("AllowWithShadowDeny")]})],
            SHOP,
            Verdict(allowed=True, rule="p", shadow_denied=True),
        ),
        # a client of two services is let in as either
        (
            [
                mtp(
                    "p",
                    {"from": [entry("Allow", "MeshService", name="shop"), entry("Deny", "MeshService", name="batch")]},
                )
            ],
            MULTI,
            allow("p"),
        ),
        # the display name names the policy
        ([mtp("p-hash", {"from": [entry("Allow")]}, {"kuma.io/display-name": "p"})], SHOP, allow("p")),
    ],
)
def test_from(policies, uris, verdict):
    for order in itertools.permutations(policies):
        assert decide(order, uris) == verdict


def rules(name, *, ref=None, **conf):
    def condition(text):
        kind, _, value = text.partition(" ")
        return (
            {"spiffeID": {"type": kind, "value": value}}
            if kind != "sni"
            else {"sni": {"type": "Exact", "value": value}}
        )

    default = {field: [condition(t) for t in texts] for field, texts in conf.items()}
    return mtp(name, {"rules": [{"default": default}]} | ({"targetRef": ref} if ref else {}))


EVERY = "Prefix spiffe://default"


@pytest.mark.parametrize(
    ("policies", "uris", "verdict"),
    [
        ([rules("r", allow=["Exact spiffe://default/shop"])], SHOP, allow("r")),
        ([rules("r", allow=["Exact spiffe://default/shop"])], list(reversed(SHOP)), allow("r")),
        ([rules("r", allow=["Exact spiffe://default/sho"])], SHOP, deny("default")),
        ([rules("r", allow=["Prefix spiffe://default/sho"])], SHOP, allow("r")),
        ([rules("r", allow=[EVERY], deny=["Exact spiffe://default/shop"])], SHOP, deny("r")),
        # a deny of the least specific policy beats an allow of the most specific one
        (
            [
                rules("mesh", deny=["Exact spiffe://default/shop"]),
                rules("dp", ref={"kind": "MeshService", "name": "web"}, allow=[EVERY]),
            ],
            SHOP,
            deny("mesh"),
        ),
        ([rules("r", allowWithShadowDeny=[EVERY])], SHOP, Verdict(allowed=True, rule="r", shadow_denied=True)),
        ([rules("r", allow=[EVERY], allowWithShadowDeny=["Exact spiffe://default/batch"])], SHOP, allow("r")),
        # rules in any policy of the inbound: from is not looked at
        ([ALLOW_ALL, rules("r", allow=["Exact spiffe://default/batch"])], SHOP, deny("default")),
        ([ALLOW_ALL, rules("r", ref={"kind": "MeshService", "name": "db"}, allow=[EVERY])], SHOP, allow("everybody")),
        ([rules("r", allow=["sni web.mesh"])], SHOP, deny("default")),
        ([rules("r", allow=[EVERY])], [], deny("default")),
    ],
)
def test_rules(policies, uris, verdict):
    for order in itertools.permutations(policies):
        assert decide(order, uris) == verdict


def test_an_external_service_at_the_egress_is_about_its_tags_and_from_alone():
    tags = {"kuma.io/service": "ext", "team": "x"}
    named = mtp(
        "ext",
        {
            "targetRef": {"kind": "MeshSubset", "tags": {"team": "x"}},
            "from": [entry("Deny", "MeshService", name="shop")],
        },
    )
    assert decide([ALLOW_ALL, named], SHOP, dp=None, tags=tags) == deny("ext")
    assert decide([ALLOW_ALL, named], BATCH, dp=None, tags=tags) == allow("everybody")
    assert decide([rules("r", allow=[EVERY])], SHOP, dp=None, tags=tags) == deny("default")
    on_dataplanes = mtp("dp", {"targetRef": {"kind": "Dataplane"}, "from": [entry("Allow")]})
    assert decide([on_dataplanes], SHOP, dp=None, tags=tags) == deny("default")


def test_of_inbounds_with_equal_tags_the_section_says_which():
    dp = dataplane("dp", inbound("web", 8080), inbound("web", 9090))
    only = mtp("p", {"targetRef": {"kind": "Dataplane", "sectionName": "8080"}, "from": [entry("Allow")]})
    assert decide([only], SHOP, dp=dp, section="8080") == allow("p")
    assert decide([only], SHOP, dp=dp, section="9090") == deny("default")
    assert decide([only], SHOP, dp=dp) == deny("default"), "it could be either, so both must let it in"
    both = mtp("q", {"from": [entry("Allow")]})
    assert decide([only, both], SHOP, dp=dp).allowed


def test_an_inbound_that_is_not_there_lets_nobody_in():
    assert decide([ALLOW_ALL], SHOP, tags={"kuma.io/service": "gone"}) == deny("default")


def test_tags_of_a_certificate():
    uris = [*SHOP, "spiffe://other/x", "kuma://kuma.io/service/forged", "https://x", "kuma://team/b"]
    assert tags_of(uris, "default") == {
        "kuma.io/service": {"shop"},
        "kuma.io/zone": {"zone-b"},
        "team": {"a", "b"},
        "version": {"2"},
    }


ENTRIES = st.lists(
    st.sampled_from(
        [
            entry(action, **ref)
            for action in ("Allow", "Deny", "AllowWithShadowDeny")
            for ref in (
                {},
                {"kind": "MeshService", "name": "shop"},
                {"kind": "MeshService", "name": "batch"},
                {"kind": "MeshSubset", "tags": {"team": "a"}},
            )
        ]
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=80)
@given(st.lists(ENTRIES, max_size=3), st.sampled_from([SHOP, BATCH, MULTI, []]), st.randoms(use_true_random=False))
def test_the_order_of_policies_does_not_matter(specs, uris, rng):
    policies = [mtp(f"p{i}", {"from": items}) for i, items in enumerate(specs)]
    shuffled = rng.sample(policies, len(policies))
    assert decide(policies, uris) == decide(shuffled, uris)
