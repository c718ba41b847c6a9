import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshd.ca.identity import dataplane_uris
from meshd.kinds.dataplane_rules import validate as dataplane_violations
from meshd.kinds.mesh import Mode
from meshd.policies.mesh_traffic_permission import POLICY, rbac
from meshd.policies.mesh_traffic_permission.permit import by_tags, of_policies
from meshd.policies.mesh_traffic_permission.validate import validate
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


SERVICE_A, SERVICE_C_D = ({"kuma.io/service": name} for name in ("a", "c/d"))


def kind_of(uri):
    """What a URI is a value of: the service is all after the mesh; of the others the value is what has no slash."""
    return "kuma.io/service" if uri.startswith("spiffe://default/") else uri.rpartition("/")[0]


@settings(max_examples=400)
@given(FROM, URIS)
@example(
    [entry("Allow", "MeshSubset", tags=SERVICE_A), entry("Deny", "MeshSubset", tags=SERVICE_C_D)],
    ["spiffe://default/a", "spiffe://default/c/d"],
)
def test_entries_in_order_never_let_in_more(items, uris):
    permit = by_tags("default", [mtp("p", {"from": items})])
    listed = [e for group in permit.groups for e in group]
    allowed, shadow = decided(rbac._in_order("default", listed).config, uris)
    engine = said(permit, uris)
    assert allowed <= engine[0]
    kinds = [kind_of(uri) for uri in uris]
    if len(kinds) == len(set(kinds)):
        assert (allowed, shadow) == engine


@given(st.from_regex(r"[a-zA-Z0-9.\-_:/]+", fullmatch=True), st.from_regex(r"[a-zA-Z0-9.\-_:]+", fullmatch=True))
def test_what_a_policy_may_say_is_what_certificates_have(tag, value):
    """Over all characters that both accept; a text that differed would let a refused client in."""
    item = mtp("p", {"from": [entry("Deny", "MeshSubset", tags={tag: value})]})
    assert not validate(item)
    proxy = dataplane("dp", inbound("web", 8080, {"kuma.io/service": "web", tag: value}))
    assert not dataplane_violations(proxy)
    assert holds(rbac._with("default", tag, value), dataplane_uris(proxy))


@pytest.mark.parametrize("tag", ["kuma.io/service", "team"])
def test_a_value_with_a_slash_is_in_no_policy_and_in_no_certificate(tag):
    item = mtp("p", {"from": [entry("Deny", "MeshSubset", tags={tag: "c/d"})]})
    assert [v.field for v in validate(item)] == [f'spec.from[0].targetRef.tags["{tag}"]']
    proxy = dataplane("dp", inbound("web", 8080, {"kuma.io/service": "web", tag: "c/d"}))
    assert dataplane_violations(proxy)


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
