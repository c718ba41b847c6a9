"""ZoneIngresses as documents."""

from meshd.model.steps import finished
from meshd.xds.abilities import Abilities
from meshd.xds.resources import CLUSTER, LISTENER, XdsResource
from meshd.xds.zone_ingress import IngressRenderer
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
