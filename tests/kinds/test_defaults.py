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


PROBE = {"serviceProbe": {"tcp": {}}}
UP, DOWN, OFF = "Ready", "NotReady", "Ignored"


def states(wanted, stored=None, *, is_probed=True):
    def resource(inbounds):
        networking = {"address": "10.0.0.1", "inbound": [{"port": port, **rest} for port, rest in inbounds.items()]}
        return decode_document({**DATAPLANE, "networking": networking}, REGISTRY)

    before = resource(stored) if stored is not None else None
    found = on_write(resource(wanted), REGISTRY["Dataplane"], zone="z", is_probed=is_probed, stored=before)
    again = on_write(found, REGISTRY["Dataplane"], zone="z", is_probed=is_probed, stored=found)
    assert again.spec == found.spec
    return [i.state.value for i in found.spec.networking.inbound]


@pytest.mark.parametrize(
    ("wanted", "stored", "expected"),
    [
        ({80: PROBE, 81: {}}, None, [DOWN, UP]),
        ({80: {**PROBE, "state": OFF}}, None, [OFF]),
        ({80: PROBE, 81: {}}, {80: {**PROBE, "state": UP}, 81: {"state": DOWN}}, [UP, DOWN]),
        ({80: PROBE, 81: {}}, {80: {"state": UP}, 81: {**PROBE, "state": DOWN}}, [DOWN, UP]),
        ({80: PROBE, 82: PROBE}, {80: {**PROBE, "state": UP}}, [UP, DOWN]),
        ({80: {}}, {80: {"state": OFF}}, [UP]),
        ({80: {"state": OFF}}, {80: {"state": UP}}, [OFF]),
    ],
)
def test_what_a_proxy_reported_stands_and_what_it_will_report_is_not_ready(wanted, stored, expected):
    assert states(wanted, stored) == expected


def test_where_nobody_probes_everything_is_as_written():
    assert states({80: PROBE}, {80: {**PROBE, "state": DOWN}}, is_probed=False) == [UP]


def test_older_zones_read_the_state_as_health():
    networking = {"address": "10.0.0.1", "inbound": [{"port": 80, **PROBE}]}
    resource = decode_document({**DATAPLANE, "networking": networking}, REGISTRY)
    found = on_write(resource, REGISTRY["Dataplane"], zone="z", is_probed=True)
    assert found.spec.networking.inbound[0].health.ready is False
