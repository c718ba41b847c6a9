import pytest

from meshd.kinds import KINDS
from meshd.kinds.defaults import on_write
from meshd.model.codec import decode_document
from meshd.model.registry import Registry

REGISTRY = Registry(KINDS)
DATAPLANE = {
    "type": "Dataplane",
    "mesh": "default",
    "name": "web-1",
    "networking": {
        "address": "10.0.0.1",
        "inbound": [{"port": 80, "tags": {"kuma.io/service": "web", "kuma.io/zone": "lie"}}, {"port": 81}],
    },
}


def written(document, zone, **labels):
    resource = decode_document({**document, "labels": labels}, REGISTRY)
    return on_write(resource, REGISTRY[resource.key.kind], zone=zone)


def test_zone_marks_a_dataplane():
    resource = written(DATAPLANE, "zone-a", team="x")
    assert resource.labels == {
        "team": "x",
        "kuma.io/mesh": "default",
        "kuma.io/origin": "zone",
        "kuma.io/zone": "zone-a",
        "kuma.io/env": "universal",
        "kuma.io/proxy-type": "sidecar",
    }
    inbound = resource.spec.networking.inbound
    assert inbound[0].tags == {"kuma.io/service": "web", "kuma.io/zone": "zone-a"}
    assert inbound[1].tags == {}


def test_twice_is_once():
    once = written(DATAPLANE, "zone-a")
    assert on_write(once, REGISTRY["Dataplane"], zone="zone-a") is once


@pytest.mark.parametrize(("kind", "label"), [("DELEGATED", "sidecar"), ("BUILTIN", "gateway")])
def test_gateway_has_its_zone_and_type(kind, label):
    networking = {"address": "10.0.0.1", "gateway": {"type": kind, "tags": {"kuma.io/service": "gw"}}}
    resource = written({**DATAPLANE, "networking": networking}, "zone-a")
    assert resource.labels["kuma.io/proxy-type"] == label
    assert resource.spec.networking.gateway.tags["kuma.io/zone"] == "zone-a"


@pytest.mark.parametrize(
    ("document", "zone", "expected"),
    [
        ({"type": "Mesh", "name": "default"}, "", {}),
        ({"type": "Mesh", "name": "default"}, "zone-a", {}),
        ({"type": "Secret", "mesh": "m", "name": "s", "data": "YQ=="}, "", {"kuma.io/mesh": "m"}),
        (
            {"type": "ZoneEgress", "name": "e", "networking": {"port": 1}},
            "zone-a",
            {
                "kuma.io/origin": "zone",
                "kuma.io/zone": "zone-a",
                "kuma.io/env": "universal",
                "kuma.io/proxy-type": "zoneegress",
            },
        ),
        ({"type": "ZoneIngress", "name": "e", "networking": {"port": 1}}, "", {"kuma.io/proxy-type": "zoneingress"}),
    ],
)
def test_labels_by_kind_and_role(document, zone, expected):
    assert written(document, zone).labels == expected


def test_what_came_from_the_global_gets_no_zone():
    resource = written(
        {"type": "Secret", "mesh": "m", "name": "s", "data": "YQ=="}, "zone-a", **{"kuma.io/origin": "global"}
    )
    assert resource.labels == {"kuma.io/origin": "global", "kuma.io/mesh": "m"}


def test_embedded_zone_proxies_are_labelled_while_they_are_there():
    listener = {"type": "ZoneIngress", "address": "10.0.0.1", "port": 10001}
    networking = {"address": "10.0.0.1", "listeners": [listener]}
    label = "kuma.io/listener-zoneingress"
    assert written({**DATAPLANE, "networking": networking}, "z").labels[label] == "enabled"
    assert label not in written(DATAPLANE, "z", **{label: "enabled"}).labels
