"""Changes inside an encoded protobuf spec that leave everything else, known or not, as its author sent it."""

from collections.abc import Callable, Mapping

from meshd.discovery.fields import BYTES, VARINT, bytes_field, field, fields, map_entry, string_field, text
from meshd.model import labels as label

Change = Callable[[bytes], bytes]

# Field numbers: reference/kds.md 6.2 to 6.4.
NETWORKING, INBOUND, GATEWAY = 1, 1, 3
INBOUND_TAGS, GATEWAY_TAGS = 2, 1
PROXY_ZONE, AVAILABLE_SERVICES, SERVICE_TAGS = 1, 3, 1
SUBSCRIPTIONS, GENERATION = 1, 7

SUBSCRIBED_KINDS = frozenset({"DataplaneInsight", "ZoneIngressInsight", "ZoneEgressInsight"})
"""Insights that hold xDS subscriptions."""


def within(data: bytes, changes: Mapping[int, Change]) -> bytes:
    """The message with each length-delimited field of a number in ``changes`` replaced by what its change returns."""
    parts = []
    for number, wire_type, value in fields(data):
        change = changes.get(number)
        if change is not None and wire_type == BYTES and isinstance(value, bytes):
            parts.append(bytes_field(number, change(value)))
        else:
            parts.append(field(number, wire_type, value))
    return b"".join(parts)


def zero_generations(kind: str, wire: bytes) -> bytes:
    """An insight without the generations of its subscriptions: local counters that would make every bump an update."""
    if kind not in SUBSCRIBED_KINDS:
        return wire
    return within(wire, {SUBSCRIPTIONS: without_generation})


def without_generation(subscription: bytes) -> bytes:
    """A ``DiscoverySubscription`` without its generation."""
    return b"".join(
        field(number, wire_type, value)
        for number, wire_type, value in fields(subscription)
        if (number, wire_type) != (GENERATION, VARINT)
    )


def pin_zone(kind: str, wire: bytes, zone: str) -> tuple[bytes, tuple[str, ...]]:
    """A spec that says it is of ``zone`` wherever it says of which zone it is, and the other zones it claimed.

    Only tags that are there are changed; none is added.

    Raises:
        ValueError: ``wire`` is no protobuf message.

    Source: Kuma ``pkg/kds/v2/store/sync.go`` (pinZone, pinZoneTag).
    """
    claimed: list[str] = []

    def tag(entry: bytes) -> bytes:
        key, value = map_entry(entry)
        if key != label.ZONE:
            return entry
        if value not in {"", zone}:
            claimed.append(value)
        return bytes_field(1, key.encode()) + bytes_field(2, zone.encode())

    def inside(number: int) -> Change:
        return lambda message: within(message, {number: tag})

    match kind:
        case "ZoneIngress" | "ZoneEgress":
            rest = []
            for number, wire_type, value in fields(wire):
                if number != PROXY_ZONE:
                    rest.append(field(number, wire_type, value))
                elif isinstance(value, bytes) and text(value) not in {"", zone}:
                    claimed.append(text(value))
            pinned = string_field(PROXY_ZONE, zone) + b"".join(rest)
            if kind == "ZoneIngress":
                pinned = within(pinned, {AVAILABLE_SERVICES: inside(SERVICE_TAGS)})
        case "Dataplane":
            networking = {INBOUND: inside(INBOUND_TAGS), GATEWAY: inside(GATEWAY_TAGS)}
            pinned = within(wire, {NETWORKING: lambda message: within(message, networking)})
        case _:
            pinned = wire
    return pinned, tuple(claimed)
