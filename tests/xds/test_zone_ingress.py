"""ZoneIngresses as documents."""

from itertools import chain, combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.model.steps import finished
from meshd.topology.view import Group
from meshd.xds.abilities import Abilities
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, XdsResource
from meshd.xds.zone_ingress import MAX_COMBINATIONS, IngressRenderer, parts_of
from tests.topology import builders as b
from tests.topology.views import build_views
from tests.xds.support import GOLDENS, by_name, document_of, golden_text

PROXY = b.ingress("ingress", "zone-a")
V1 = (("version", "v1"),)


def rendered(*resources, subsets=(), reuse_port=False):
    views = build_views(resources)
    renderer = IngressRenderer("zone-a")
    finished(renderer.update(views, None, dict.fromkeys(views, subsets)))
    listener = renderer.listener(PROXY, Abilities(reuse_port=reuse_port))
    return [*(XdsResource(type_url, entry) for type_url, entry in renderer.layer.items()), listener]


TWO_MESHES = (
    b.mesh(),
    b.mesh("other"),
    b.dataplane("web-1", b.inbound("web", tags={"version": "v1"}), address="10.0.0.1"),
    b.dataplane("web-2", b.inbound("web", tags={"version": "v2"}), address="10.0.0.2"),
    b.dataplane("web-3", b.inbound("web"), mesh="other", address="10.0.0.3"),
    b.dataplane("db-1", b.inbound("db", state="NotReady"), address="10.0.0.4"),
)


def chains_of(resources):
    (listener,) = by_name(resources, LISTENER).values()
    return {chain["filterChainMatch"]["serverNames"][0]: chain for chain in listener["filterChains"]}


def test_two_meshes(golden):
    golden(GOLDENS / "ingress-two-meshes.yaml", golden_text(rendered(*TWO_MESHES)))


def test_a_subset_has_a_cluster_of_its_instances(golden):
    gone = ("web", (("version", "v3"),))
    found = rendered(*TWO_MESHES, subsets=[("web", V1), gone, ("nobody", V1)])
    golden(GOLDENS / "ingress-subset.yaml", golden_text(found))
    assert chains_of(found).keys() == {
        "db{mesh=default}",
        "web{mesh=default}",
        "web{mesh=default,version=v1}",
        "web{mesh=default,version=v2}",
        "web{mesh=default,version=v3}",
        "web{mesh=other}",
        "web{mesh=other,version=v1}",
        "web{mesh=other,version=v3}",
    }


def test_nothing_to_offer(golden):
    golden(GOLDENS / "ingress-nothing.yaml", golden_text(rendered(b.mesh())))


def test_an_external_service_of_this_zone_leaves_by_its_egress(golden):
    found = rendered(
        b.mesh(zone_egress=True),
        b.egress("egress"),
        b.external("api", "api", "api.example:443", tags={"kuma.io/zone": "zone-a"}),
    )
    golden(GOLDENS / "ingress-external.yaml", golden_text(found))


def test_names_are_compared_in_lower_case():
    found = rendered(
        b.mesh(), b.dataplane("dp", b.inbound("Web", tags={"version": "V1"})), subsets=[("Web", (("version", "V1"),))]
    )
    assert chains_of(found).keys() == {"web{mesh=default}", "web{mesh=default,version=v1}"}
    assert "default:Web" in by_name(found, CLUSTER)


def test_subsets_that_differ_by_case_only_are_one():
    many = [("web", (("version", v),)) for v in ("v1", "V1")]
    found = rendered(
        b.mesh(),
        b.dataplane("a", b.inbound("web", tags={"version": "v1"}), address="10.0.0.1"),
        b.dataplane("b", b.inbound("web", tags={"version": "V1"}), address="10.0.0.2"),
        subsets=many,
    )
    (narrowed,) = [r for r in found if r.name.startswith("default:web-") and r.type_url.endswith("LoadAssignment")]
    assert len(document_of(narrowed)["endpoints"][0]["lbEndpoints"]) == 2


def test_the_listener_is_the_proxys():
    (listener,) = by_name(rendered(b.mesh(), reuse_port=True), LISTENER).values()
    assert listener["name"] == "inbound:0.0.0.0:10001"
    assert listener["enableReusePort"] is True


def named(*tag_sets, state="Ready", subsets=()):
    """How many instances there are for each SNI of a service whose instances have these tags, and its cluster."""
    resources = [b.mesh()]
    for at, tags in enumerate(tag_sets):
        inbound = b.inbound("web", tags={"kuma.io/zone": "zone-a", **tags}, state=state)
        resources.append(b.dataplane(f"web-{at}", inbound, address=f"10.0.0.{at}"))
    found = rendered(*resources, subsets=[("web", tags) for tags in subsets])
    sizes = {
        r.name: len(document_of(r).get("endpoints", [{"lbEndpoints": ()}])[0]["lbEndpoints"])
        for r in found
        if r.type_url == ENDPOINTS
    }
    (listener,) = by_name(found, LISTENER).values()
    clusters = {}
    for each in listener["filterChains"]:
        for sni in each["filterChainMatch"]["serverNames"]:
            assert sni not in clusters, "Envoy refuses a listener with two chains for one name"
            clusters[sni] = each["filters"][0]["typedConfig"]["cluster"]
    assert set(clusters.values()) == sizes.keys() == by_name(found, CLUSTER).keys()
    return {sni: (sizes[cluster], cluster.removeprefix("default:")) for sni, cluster in clusters.items()}


def test_where_all_instances_are_equal_every_subset_is_all_of_them():
    assert named({"version": "v1"}, {"version": "v1"}) == {
        "web{mesh=default}": (2, "web"),
        "web{kuma.io/zone=zone-a,mesh=default}": (2, "web"),
        "web{mesh=default,version=v1}": (2, "web"),
        "web{kuma.io/zone=zone-a,mesh=default,version=v1}": (2, "web"),
    }


def test_what_outbounds_of_other_zones_may_ask_for_is_known():
    v1, v2 = {"version": "v1"}, {"version": "v2"}
    found = named(v1, v1, {**v2, "Canary": "Yes"}, v2)
    assert {sni: size for sni, (size, _) in found.items()} == {
        "web{mesh=default}": 4,
        "web{kuma.io/zone=zone-a,mesh=default}": 4,
        "web{mesh=default,version=v1}": 2,
        "web{kuma.io/zone=zone-a,mesh=default,version=v1}": 2,
        "web{mesh=default,version=v2}": 2,
        "web{kuma.io/zone=zone-a,mesh=default,version=v2}": 2,
        "web{canary=yes,mesh=default}": 1,
        "web{canary=yes,kuma.io/zone=zone-a,mesh=default}": 1,
        "web{canary=yes,mesh=default,version=v2}": 1,
        "web{canary=yes,kuma.io/zone=zone-a,mesh=default,version=v2}": 1,
    }
    assert len({cluster for _, cluster in found.values()}) == 4, "one for each part, not for each name"


def test_what_a_route_says_has_a_cluster_of_its_own_whatever_else_there_is():
    v1, v2 = ({"version": v} for v in ("v1", "v2"))
    (before, _), (after, _) = (
        (found["web{mesh=default,version=v1}"][1], found)
        for found in (named(v1, subsets=[V1]), named(v1, v2, subsets=[V1]))
    )
    assert before == after != "web"


def test_instances_that_are_not_healthy_keep_their_names():
    assert named({"version": "v1"}, state="NotReady").keys() == named({"version": "v1"}).keys()
    assert named({"version": "v1"}, state="NotReady")["web{mesh=default,version=v1}"] == (0, "web")


def test_a_service_has_so_many_names_and_versions_go_before_single_instances():
    groups = [Group({"a-instance": f"i{n}", "version": f"v{n % 2}"}, 1) for n in range(1000)]
    parts = parts_of(groups)
    subsets = [tags for part in parts for tags in part.subsets]
    assert len(subsets) == MAX_COMBINATIONS
    assert subsets[:2] == [(("version", "v0"),), (("version", "v1"),)]


TAGS = st.dictionaries(st.sampled_from(["Kind", "version", "team", "kuma.io/zone"]), st.sampled_from(["a", "b", "B"]))


@settings(max_examples=100)
@given(st.lists(TAGS, max_size=4))
def test_every_combination_of_tags_is_known_once_while_there_are_few(tag_sets):
    tag_sets = tag_sets[:2] if len({t.get("kuma.io/zone", "").lower() for t in tag_sets}) > 1 else tag_sets
    folded = [{k.lower(): v.lower() for k, v in tags.items()} for tags in tag_sets]
    pairs = [sorted(tags.items()) for tags in folded]
    expected = set(chain.from_iterable(combinations(p, n) for p in pairs for n in range(1, len(p) + 1)))
    parts = parts_of([Group({"kuma.io/service": "web", "kuma.io/protocol": "tcp", **tags}, 1) for tags in tag_sets])
    known = [tags for part in parts for tags in part.subsets]
    assert len(known) == len(set(known))
    assert set(known) == expected
    for part in parts:
        having = {frozenset(at for at, p in enumerate(pairs) if set(tags) <= set(p)) for tags in part.subsets}
        assert len(having) == 1
        assert part.is_all == (len(having.pop()) == len(tag_sets))
