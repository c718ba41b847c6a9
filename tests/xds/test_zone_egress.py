"""ZoneEgresses as documents."""

import pytest

from meshd.kinds.external_service import ExternalService
from meshd.model.resource import Resource, ResourceKey
from meshd.model.steps import finished
from meshd.xds.abilities import Abilities
from meshd.xds.resources import CLUSTER, LISTENER, XdsResource
from meshd.xds.zone_egress import EgressRenderer
from tests.l4 import pki
from tests.topology import builders as b
from tests.topology.views import build_views
from tests.xds.support import GOLDENS, by_name, golden_text

PROXY = b.egress("egress")


def read_nothing(mesh, source):
    raise ValueError(f"mesh '{mesh}': {source} is not there")


def api(address="api.example:443", service="api", tls=None, **tags):
    body = {"networking": {"address": address, "tls": tls or {}}, "tags": {b.SERVICE: service, **tags}}
    return Resource(ResourceKey("ExternalService", "default", service), ExternalService.model_validate(body))


def new(shape=lambda *_: None, read=read_nothing, system_ca="/etc/ssl/certs/ca-certificates.crt"):
    return EgressRenderer(shape, read, ipv6=False, system_ca=system_ca)


def rendered(*resources, subsets=(), certified=("default", "other"), renderer=None):
    views = build_views(resources)
    renderer = renderer or new()
    finished(renderer.update(views, None, dict.fromkeys(views, subsets)))
    listener = renderer.listener(PROXY, Abilities(ipv6=False), certified)
    found = [XdsResource(type_url, entry) for type_url, entry in renderer.layer.items()]
    return [*found, *([listener] if listener is not None else [])]


def chains_of(resources):
    return [
        chain["filterChainMatch"]["serverNames"][0]
        for listener in by_name(resources, LISTENER).values()
        for chain in listener["filterChains"]
    ]


AWAY = (
    b.egress("egress"),
    b.ingress("b1", "zone-b", [b.available("web", 3, version="v1")], address="10.1.0.1"),
    b.ingress("b2", "zone-b", [b.available("web", 3, version="v1")], address="10.1.0.2"),
    b.ingress("c", "zone-c", [b.available("web", 1, version="v2")], address="10.2.0.1"),
)


def test_services_of_other_zones(golden):
    found = rendered(b.mesh(zone_egress=True), *AWAY, subsets=[("web", (("version", "v1"),))])
    golden(GOLDENS / "egress-internal.yaml", golden_text(found))


@pytest.mark.parametrize(
    ("case", "tags"),
    [
        ("egress-external-tcp", {}),
        ("egress-external-http", {"kuma.io/protocol": "http"}),
        ("egress-external-grpc", {"kuma.io/protocol": "grpc"}),
    ],
)
def test_an_external_service(golden, case, tags):
    found = rendered(b.mesh(), api(**tags), api("192.0.2.7:5432", "db"))
    golden(GOLDENS / f"{case}.yaml", golden_text(found))


def test_an_external_service_of_another_zone_is_passed_on(golden):
    resources = (
        b.mesh(zone_egress=True),
        b.egress("egress"),
        b.ingress("b", "zone-b", [b.available("api", 1, external=True)], address="10.1.0.1"),
        api(**{"kuma.io/zone": "zone-b"}),
    )
    renderer = new()
    found = rendered(*resources, renderer=renderer)
    golden(GOLDENS / "egress-external-elsewhere.yaml", golden_text(found))
    assert renderer.secret_meshes == set()


def test_without_mtls_and_without_services_there_is_no_listener():
    assert rendered(b.mesh(mtls=False), api()) == []
    assert rendered(b.mesh(zone_egress=True)) == []


def test_a_mesh_without_a_certificate_keeps_nobody_waiting():
    resources = (b.mesh(zone_egress=True), *AWAY, api())
    renderer = new()
    assert chains_of(rendered(*resources, renderer=renderer, certified=())) == ["web{mesh=default}"]
    assert renderer.secret_meshes == {"default"}
    assert chains_of(rendered(*resources, renderer=renderer)) == ["api{mesh=default}", "web{mesh=default}"]


def test_policies_see_the_tags_and_change_both_parts():
    seen = []

    def shape(view, draft):
        seen.append((view.mesh_name, dict(draft.inbound.tags), draft.dataplane, draft.chains[0].is_mtls))
        draft.cluster["connectTimeout"] = "9s"
        draft.chains[0].tcp["idleTimeout"] = "8s"

    found = rendered(b.mesh(), api(team="x"), renderer=new(shape))
    assert seen == [("default", {b.SERVICE: "api", "team": "x"}, None, True)]
    (cluster,) = by_name(found, CLUSTER).values()
    assert cluster["connectTimeout"] == "9s"
    (listener,) = by_name(found, LISTENER).values()
    assert listener["filterChains"][0]["filters"][-1]["typedConfig"]["idleTimeout"] == "8s"


def test_policies_that_change_are_asked_again():
    asked = []
    renderer = new(lambda view, _: asked.append(view.policies))
    views = build_views([b.mesh(), api(), b.dataplane("dp", "web")])
    finished(renderer.update(views, {}, {}))
    finished(renderer.update(views, {}, {}))
    assert len(asked) == 1
    later = build_views([b.mesh(), api(), b.dataplane("dp", "web")])
    finished(renderer.update(later, {}, {}))
    assert len(asked) == 2


def test_material_that_changes_is_read_again():
    held = {}

    def read(mesh, source):
        if source.secret not in held:
            raise ValueError(f"mesh '{mesh}': no Secret '{source.secret}'")
        return held[source.secret]

    renderer = new(read=read)
    views = build_views([b.mesh(), api(tls={"enabled": True, "caCert": {"secret": "ca"}}), api("192.0.2.7:1", "db")])
    finished(renderer.update(views, None, {}))
    assert renderer.refused == {("default", "api"): "mesh 'default': no Secret 'ca'"}
    before = {entry.name: entry.version for _, entry in renderer.layer.items()}
    held["ca"] = pki.trust("default").pem
    assert finished(renderer.update(views, {}, {})) is False
    after = {entry.name: entry.version for _, entry in renderer.layer.items()}
    assert renderer.refused == {}
    assert {name for name in after if after[name] != before[name]} == {"default:api"}
