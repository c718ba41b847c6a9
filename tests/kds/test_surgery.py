"""Changes inside encoded specs that keep what we do not know."""

import pytest

from meshd.discovery.fields import bytes_field, varint_field
from meshd.kds.surgery import pin_zone, zero_generations
from meshd.model import codec
from tests.kds.lab import REGISTRY, dataplane, ingress

UNKNOWN = bytes_field(900, b"a later version's field") + varint_field(901, 7)


def wire_of(document: dict) -> bytes:
    return codec.spec_to_wire(REGISTRY[document["type"]], codec.decode_document(document, REGISTRY).spec)


def spec_of(kind: str, wire: bytes):
    return codec.spec_from_wire(REGISTRY[kind], wire)


def test_an_ingress_is_pinned_to_its_zone_and_its_services_too() -> None:
    services = [
        {"tags": {"kuma.io/service": "a", "kuma.io/zone": "zone-b"}, "instances": 2, "mesh": "default"},
        {"tags": {"kuma.io/service": "b"}, "instances": 1, "mesh": "default"},
    ]
    wire = wire_of(ingress("in", zone="elsewhere", availableServices=services)) + UNKNOWN
    pinned, claimed = pin_zone("ZoneIngress", wire, "zone-a")
    spec = spec_of("ZoneIngress", pinned)
    assert spec.zone == "zone-a"
    assert spec.available_services[0].tags == {"kuma.io/service": "a", "kuma.io/zone": "zone-a"}
    assert spec.available_services[0].instances == 2
    assert spec.available_services[1].tags == {"kuma.io/service": "b"}
    assert pinned.endswith(UNKNOWN)
    assert sorted(claimed) == ["elsewhere", "zone-b"]


def test_a_dataplane_is_pinned_where_it_names_a_zone() -> None:
    wire = wire_of(dataplane("dp", **{"kuma.io/zone": "zone-b"})) + UNKNOWN
    pinned, claimed = pin_zone("Dataplane", wire, "zone-a")
    assert spec_of("Dataplane", pinned).networking.inbound[0].tags["kuma.io/zone"] == "zone-a"
    assert claimed == ("zone-b",)
    assert pinned.endswith(UNKNOWN)
    untouched, _ = pin_zone("Dataplane", wire_of(dataplane("dp")), "zone-a")
    assert "kuma.io/zone" not in spec_of("Dataplane", untouched).networking.inbound[0].tags


def test_a_gateway_is_pinned() -> None:
    document = {
        "type": "Dataplane",
        "mesh": "default",
        "name": "gw",
        "networking": {
            "address": "10.0.0.1",
            "gateway": {"type": "DELEGATED", "tags": {"kuma.io/service": "gw", "kuma.io/zone": "x"}},
        },
    }
    pinned, _ = pin_zone("Dataplane", wire_of(document), "zone-a")
    assert spec_of("Dataplane", pinned).networking.gateway.tags["kuma.io/zone"] == "zone-a"


def test_pinning_what_is_right_changes_nothing() -> None:
    once, _ = pin_zone("ZoneIngress", wire_of(ingress("in")), "zone-a")
    assert pin_zone("ZoneIngress", once, "zone-a") == (once, ())


def test_generations_of_subscriptions_are_dropped() -> None:
    subscription = bytes_field(1, b"id-1") + varint_field(7, 42) + UNKNOWN
    insight = bytes_field(1, subscription) + UNKNOWN
    expected = bytes_field(1, bytes_field(1, b"id-1") + UNKNOWN) + UNKNOWN
    assert zero_generations("DataplaneInsight", insight) == expected
    assert zero_generations("Dataplane", insight) == insight


def test_broken_bytes_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="protobuf"):
        pin_zone("ZoneIngress", b"\x0a\xff", "zone-a")
