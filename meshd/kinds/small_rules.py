"""What the schemas of ExternalService, Secret and Zone cannot say.

Source: Kuma ``external_service_validator.go``, ``pkg/core/managers/apis/zone`` (rules, not texts).
"""

from collections.abc import Iterator

from meshd.kinds.external_service import ExternalService
from meshd.kinds.rules import (
    data_source_violations,
    is_host_name,
    parse_ip,
    port_violations,
    protocol_violations,
    tag_violations,
)
from meshd.kinds.secret import Secret
from meshd.kinds.zone_insight import ZoneInsight
from meshd.model import labels as label
from meshd.model.errors import Violation
from meshd.model.resource import Resource


def validate_external_service(resource: Resource) -> tuple[Violation, ...]:
    """Every violation of an ExternalService."""
    assert isinstance(resource.spec, ExternalService)  # noqa: S101 - the registry pairs kind and spec
    return tuple(_external_service(resource.spec))


def validate_secret(resource: Resource) -> tuple[Violation, ...]:
    """Every violation of a Secret or GlobalSecret."""
    assert isinstance(resource.spec, Secret)  # noqa: S101 - the registry pairs kind and spec
    return () if resource.spec.data else (Violation("data", "cannot be empty"),)


def zone_delete_violations(zone: str, insight: ZoneInsight | None) -> tuple[Violation, ...]:
    """What forbids deleting a Zone: that it is connected."""
    if insight is None or not insight.is_online:
        return ()
    return (Violation("zone", f'zone "{zone}" is connected; stop its control plane first'),)


def _external_service(spec: ExternalService) -> Iterator[Violation]:
    yield from _address(spec.networking.address)
    tls = spec.networking.tls
    if tls.server_name == "":
        yield Violation("networking.tls.serverName", "cannot be empty; leave it out for the host of the address")
    for name, source in (("caCert", tls.ca_cert), ("clientCert", tls.client_cert), ("clientKey", tls.client_key)):
        yield from data_source_violations(f"networking.tls.{name}", source)
    if (tls.client_cert is None) != (tls.client_key is None):
        yield Violation("networking.tls", "clientCert and clientKey go together")
    yield from tag_violations("tags", spec.tags, need_service=True)
    yield from protocol_violations(f'tags["{label.PROTOCOL}"]', spec.tags.get(label.PROTOCOL))
    if spec.service and spec.service == spec.host:
        yield Violation(f'tags["{label.SERVICE}"]', f'"{spec.service}" cannot be the host of networking.address too')


def _address(address: str) -> Iterator[Violation]:
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or not port.isascii() or (":" in bare and bare == host):
        yield Violation("networking.address", f'must be HOST:PORT, not "{address}"')
        return
    if parse_ip(bare) is None and not is_host_name(bare):
        yield Violation("networking.address", f'"{bare}" is neither an IP address nor a host name')
    yield from port_violations("networking.address", int(port))
