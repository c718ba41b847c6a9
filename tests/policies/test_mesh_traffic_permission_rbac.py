import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.kinds.mesh import Mode
from meshd.policies.mesh_traffic_permission import POLICY, rbac
from meshd.policies.mesh_traffic_permission.permit import by_tags, of_policies
from meshd.rules.match import by_specificity
from meshd.xds.abilities import Abilities
from meshd.xds.encode import encode
from meshd.xds.inbound import draft_of, finished
from tests.policies.mtp import entry, mtp
from tests.topology.builders import dataplane, inbound, mesh

CHAIN = "type.googleapis.com/envoy.config.listener.v3.FilterChain"


def holds(principal, uris):
    """Whether a client is meant, as Envoy decides it: any URI, or else the subject, which is empty in our certificates.

    Source: Envoy ``source/extensions/filters/common/rbac/matchers.cc``.
    """
    ((kind, value),) = principal.items()
    match kind:
        case "any":
            return True
        case "notId":
            return not holds(value, uris)
        case "andIds":
            return all(holds(p, uris) for p in value["ids"])
        case "orIds":
            return any(holds(p, uris) for p in value["ids"])
        case "authenticated":
            if not value:
                return True
            ((how, wanted),) = value["principalName"].items()
            texts = [*uris, ""]
            return wanted in texts if how == "exact" else any(text.startswith(wanted) for text in texts)
    raise AssertionError(principal)


def matches(rules, uris):
    return any(holds(p, uris) for policy in rules.get("policies", {}).values() for p in policy["principals"])


def decided(config, uris):
    """(let in, counted as refused) by the two engines of a filter."""
    assert config["rules"]["action"] == "ALLOW"
    shadow = config.get("shadowRules", {"action": "DENY"})
    assert shadow["action"] == "DENY"
    return matches(config["rules"], uris), matches(shadow, uris)


def said(permit, uris):
    verdict = permit.decide(uris)
    return verdict.allowed, verdict.shadow_denied


TAGS = st.dictionaries(
    st.sampled_from(["kuma.io/service", "team", "kuma.io/zone"]), st.sampled_from(["a", "b", "c/d"]), max_size=3
)
ACTIONS = st.sampled_from(["Allow", "Deny", "AllowWithShadowDeny", None])
FROM = st.lists(st.tuples(ACTIONS, TAGS), max_size=5).map(
    lambda items: [entry(a, "MeshSubset", tags=t) if t else entry(a) for a, t in items]
)
VALUES = st.sampled_from(["spiffe://default", "spiffe://default/a", "spiffe://default/ab", "spiffe://other/a", ""])
MATCHES = st.lists(
    st.one_of(
        st.builds(lambda t, v: {"spiffeID": {"type": t, "value": v}}, st.sampled_from(["Exact", "Prefix"]), VALUES),
        st.just({"sni": {"type": "Exact", "value": "web.mesh"}}),
        st.builds(
            lambda v: {"spiffeID": {"type": "Prefix", "value": v}, "sni": {"type": "Exact", "value": "x"}}, VALUES
        ),
        st.just({}),
    ),
    max_size=3,
)
CONF = st.fixed_dictionaries({"deny": MATCHES, "allow": MATCHES, "allowWithShadowDeny": MATCHES})
POLICIES = st.lists(
    st.one_of(
        FROM.map(lambda items: {"from": items}),
        st.lists(CONF, max_size=2).map(lambda confs: {"rules": [{"default": c} for c in confs]}),
    ),
    max_size=3,
).map(lambda specs: by_specificity([mtp(f"p{i}", spec) for i, spec in enumerate(specs)]))
URIS = st.lists(
    st.sampled_from(
        [
            *(f"spiffe://{m}/{s}" for m in ("default", "other") for s in ("a", "b", "ab", "c/d")),
            *(f"kuma://{t}/{v}" for t in ("team", "kuma.io/zone", "kuma.io/service") for v in ("a", "b", "c/d")),
        ]
    ),
    unique=True,
    min_size=1,
    max_size=6,
)


@settings(max_examples=400)
@given(POLICIES, URIS)
def test_an_envoy_decides_what_the_engine_decides(policies, uris):
    permit = of_policies("default", policies)
    assert decided(rbac.rbac_of(permit).config, uris) == said(permit, uris)


@settings(max_examples=400)
@given(FROM, URIS)
def test_entries_in_order_never_let_in_more(items, uris):
    permit = by_tags("default", [mtp("p", {"from": items})])
    listed = [e for group in permit.groups for e in group]
    allowed, shadow = decided(rbac._in_order("default", listed).config, uris)
    engine = said(permit, uris)
    assert allowed <= engine[0]
    keys = [uri.rpartition("/")[0] for uri in uris]
    if len(keys) == len(set(keys)):
        assert (allowed, shadow) == engine


def test_too_many_regions_are_written_in_order():
    items = [entry("Allow")]
    for tag in ("a", "b", "c", "d"):
        items += [entry("Deny", "MeshSubset", tags={tag: str(n)}) for n in range(6)]
    permit = by_tags("default", [mtp("p", {"from": items})])
    (principal,) = rbac.rbac_of(permit).allow
    assert len(principal["andIds"]["ids"][1]["notId"]["orIds"]["ids"]) == 24
    for uris in (["spiffe://default/a"], ["spiffe://default/a", "kuma://c/3"]):
        assert decided(rbac.rbac_of(permit).config, uris) == said(permit, uris)


def allow(*services):
    return {
        "action": "ALLOW",
        "policies": {
            "MeshTrafficPermission": {
                "permissions": [{"any": True}],
                "principals": [
                    {"authenticated": {"principalName": {"exact": f"spiffe://default/{s}"}}} for s in services
                ],
            }
        },
    }


SHOP = mtp("shop", {"from": [entry("Allow", "MeshService", name="shop")]})


def chains(protocol, policies, mode=Mode.STRICT):
    dp = dataplane("dp", inbound("web", 8080, {"kuma.io/protocol": protocol}))
    backend = mesh().spec.enabled_backend().model_copy(update={"mode": mode}) if mode else None
    draft = draft_of(dp, dp.spec.networking.inbound[0], backend, Abilities())
    POLICY.shaper.inbound(draft, policies)
    found = [finished(chain) for chain in draft.chains]
    for chain in found:
        encode(CHAIN, chain)
    return found


def test_a_tcp_inbound_has_a_network_filter_first():
    (chain,) = chains("tcp", [SHOP])
    assert [f["name"].rpartition(".")[2] for f in chain["filters"]] == ["rbac", "tcp_proxy"]
    assert chain["filters"][0]["typedConfig"] == {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
        "statPrefix": "inbound_10_0_0_1_8080.",
        "rules": allow("shop"),
    }


@pytest.mark.parametrize("protocol", ["http", "http2", "grpc"])
def test_an_http_inbound_has_an_http_filter_first(protocol):
    (chain,) = chains(protocol, [SHOP])
    (manager,) = chain["filters"]
    first = manager["typedConfig"]["httpFilters"][0]
    assert first == {
        "name": "envoy.filters.http.rbac",
        "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": allow("shop"),
        },
    }


def test_no_policy_is_nobody():
    (chain,) = chains("tcp", [])
    assert chain["filters"][0]["typedConfig"]["rules"] == {"action": "ALLOW"}


def test_only_chains_of_mesh_mtls_ask_who_it_is():
    assert [len(chain["filters"]) for chain in chains("tcp", [], Mode.PERMISSIVE)] == [1, 1, 2]
    assert [len(chain["filters"]) for chain in chains("tcp", [SHOP], None)] == [1]


def test_at_an_egress_rules_are_not_looked_at():
    dp = dataplane("dp", inbound("web"))
    draft = draft_of(dp, dp.spec.networking.inbound[0], mesh().spec.enabled_backend(), Abilities())
    draft.dataplane = None
    conf = {"allow": [{"spiffeID": {"type": "Prefix", "value": "spiffe://default"}}]}
    POLICY.shaper.inbound(draft, [mtp("r", {"rules": [{"default": conf}]})])
    assert draft.chains[0].filters[0]["typedConfig"]["rules"] == {"action": "ALLOW"}
