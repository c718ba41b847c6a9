from meshd.topology.services import MeshIndex, available_services, offers_of
from tests.topology.builders import available, dataplane, external, inbound, ingress


def offer(resource):
    return [(s.mesh, s.tags["kuma.io/service"], s.tags.get("v"), s.instances, s.external_service) for s in resource]


def test_available_services_group_healthy_inbounds_by_equal_tags_sorted_by_mesh_and_tags():
    dataplanes = [
        dataplane("1", inbound("web", tags={"v": "2"}), mesh="m2"),
        dataplane("2", inbound("web", tags={"v": "2"}), inbound("web", 81, {"v": "1"}), inbound("db", 82)),
        dataplane("3", inbound("web", tags={"v": "2"})),
        dataplane("4", inbound("web", tags={"v": "1"}, state="NotReady"), inbound("x", state="Ignored")),
        dataplane("5", inbound("web", health={"ready": False})),
        dataplane("6", gateway={"type": "BUILTIN", "tags": {"kuma.io/service": "gw"}}),
    ]
    externals = [
        external("e1", "ext", "h:1", tags={"kuma.io/zone": "zone-a"}),
        external("e2", "ext", "h:2", tags={"kuma.io/zone": "zone-a"}),
        external("e3", "other", "h:2", tags={"kuma.io/zone": "zone-b"}),
        external("e4", "anywhere", "h:2"),
    ]
    expected = [
        ("default", "db", None, 1, False),
        ("default", "web", "1", 1, False),
        ("default", "web", "2", 2, False),
        ("m2", "web", "2", 1, False),
        ("default", "ext", None, 2, True),
    ]
    assert offer(available_services(dataplanes, externals, "zone-a")) == expected
    assert offer(available_services(reversed(dataplanes), reversed(externals), "zone-a")) == expected


def test_entries_of_gateways_of_other_meshes_are_no_services():
    crossing = {**available("gw", 1), "tags": {"kuma.io/service": "gw", "kuma.io/mesh": "other"}}
    nameless = {**available("x", 1), "tags": {"team": "a"}}
    found = offers_of(ingress("b", "zone-b", [crossing, nameless, available("web", 2)]))
    assert [o.instances for o in found] == [2]


def test_a_change_touches_the_services_it_names():
    index = MeshIndex()
    assert index.set_dataplane("d", dataplane("d", "web", "db")) == {"web", "db"}
    assert index.set_dataplane("d", dataplane("d", "web", "db")) == set()
    assert index.set_dataplane("d", dataplane("d", "web", "cache")) == {"db", "cache"}
    assert index.set_external("e", external("e", "Ext", "h:1")) == {"ext"}
    assert index.set_external("e", external("e", "other", "h:1")) == {"ext", "other"}
    before = offers_of(ingress("b", "zone-b", [available("web", 1), available("x", 1)]))
    after = offers_of(ingress("b", "zone-b", [available("web", 2), available("x", 1)]))
    assert index.set_ingress("b", before, ()) == {"web", "x"}
    assert index.set_ingress("b", after - before, before - after) == {"web"}
    assert index.of_ingress("b") == {"web", "x"}
    assert index.elsewhere() == {"web", "x", "other"}
    assert index.set_dataplane("d", None) == {"web", "cache"}
    assert index.services() == {"web", "x", "other"}
    parts, reason = index.parts("web")
    assert (parts.name, parts.locals, [r.instances for r in parts.remotes["b"]], reason) == ("web", (), [2], "")
    assert index.parts("gone") is None
