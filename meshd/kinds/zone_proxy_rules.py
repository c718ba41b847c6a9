"""What the schemas of ZoneIngress and ZoneEgress cannot say.

Source: Kuma ``zone_ingress_validator.go``, ``zone_egress_validator.go`` (rules, not texts).
"""

from collections.abc import Iterator

from meshd.kinds.dataplane import EnvoyAdmin
from meshd.kinds.rules import LOOPBACK, address_violations, overlaps, port_violations, tag_violations
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model.errors import Violation
from meshd.model.names import name_violations
from meshd.model.resource import Resource


def validate_ingress(resource: Resource) -> tuple[Violation, ...]:
    """Every violation of a ZoneIngress."""
    assert isinstance(resource.spec, ZoneIngress)  # noqa: S101 - the registry pairs kind and spec
    return tuple(_ingress(resource.spec))


def validate_egress(resource: Resource) -> tuple[Violation, ...]:
    """Every violation of a ZoneEgress."""
    assert isinstance(resource.spec, ZoneEgress)  # noqa: S101 - the registry pairs kind and spec
    spec = resource.spec
    return tuple(_zone(spec.zone)) + tuple(
        _listener(spec.networking.address, spec.networking.port, spec.networking.admin)
    )


def _ingress(spec: ZoneIngress) -> Iterator[Violation]:
    networking = spec.networking
    yield from _zone(spec.zone)
    yield from _listener(networking.address, networking.port, networking.admin)
    if networking.advertised_address:
        yield from address_violations("networking.advertisedAddress", networking.advertised_address)
    if networking.advertised_port:
        yield from port_violations("networking.advertisedPort", networking.advertised_port)
    if networking.advertised_address and not networking.advertised_port:
        yield Violation("networking.advertisedPort", "is required beside advertisedAddress")
    if networking.advertised_port and not networking.advertised_address:
        yield Violation("networking.advertisedAddress", "is required beside advertisedPort")
    for i, service in enumerate(spec.available_services):
        yield from tag_violations(f"availableServices[{i}].tags", service.tags, need_service=True)


def _zone(zone: str) -> Iterator[Violation]:
    if zone:
        yield from name_violations(zone, "zone")


def _listener(address: str, port: int, admin: EnvoyAdmin | None) -> Iterator[Violation]:
    if address:
        yield from address_violations("networking.address", address)
    yield from port_violations("networking.port", port)
    if admin is not None and admin.port:
        yield from port_violations("networking.admin.port", admin.port)
        if admin.port == port and overlaps(LOOPBACK, address):
            yield Violation("networking.admin.port", "must differ from networking.port")
