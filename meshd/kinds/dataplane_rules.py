"""What the schema of a Dataplane cannot say.

Source: Kuma ``pkg/core/resources/apis/mesh/dataplane_validator.go`` (rules, not texts); that two inbounds may not share
an address and port, and that services may not differ by case only, are our own.
"""

from collections.abc import Iterator
from typing import cast

from meshd.kinds import mesh_rules
from meshd.kinds.dataplane import (
    BackendRef,
    Dataplane,
    Gateway,
    GatewayType,
    Inbound,
    ListenerType,
    Networking,
    Outbound,
    Probes,
    ReachableBackendRef,
    ServiceProbe,
)
from meshd.kinds.rules import (
    LOOPBACK,
    address_violations,
    ip_violations,
    overlaps,
    port_violations,
    protocol_violations,
    service_case_conflicts,
    tag_violations,
)
from meshd.model import labels as label
from meshd.model.errors import Violation
from meshd.model.names import name_violations
from meshd.model.resource import Resource

_BACKEND_KINDS = ("MeshExternalService", "MeshMultiZoneService", "MeshService")


def validate(resource: Resource) -> tuple[Violation, ...]:
    """Every violation of a Dataplane."""
    assert isinstance(resource.spec, Dataplane)  # noqa: S101 - the registry pairs kind and spec
    return (*_violations(resource.spec), *_identity(resource))


def _identity(resource: Resource) -> Iterator[Violation]:
    """Nobody may be called what the zone egresses are: clients would take such a Dataplane for one."""
    networking = cast("Dataplane", resource.spec).networking
    claimed = [(f'networking.inbound[{i}].tags["{label.SERVICE}"]', b.tags) for i, b in enumerate(networking.inbound)]
    if networking.gateway is not None:
        claimed.append((f'networking.gateway.tags["{label.SERVICE}"]', networking.gateway.tags))
    found = [(field, tags.get(label.SERVICE)) for field, tags in claimed]
    for field, name in (*found, (f'labels["{label.WORKLOAD}"]', resource.labels.get(label.WORKLOAD))):
        if name == label.ZONE_EGRESS_SERVICE:
            yield Violation(field, f'"{name}" is the identity of zone egresses; choose another name')


def _violations(spec: Dataplane) -> Iterator[Violation]:
    networking = spec.networking
    yield from address_violations("networking.address", networking.address)
    if networking.advertised_address:
        yield from address_violations("networking.advertisedAddress", networking.advertised_address)
    for i, inbound in enumerate(networking.inbound):
        yield from _inbound(f"networking.inbound[{i}]", inbound, networking.address)
    yield from _shared_inbounds(networking)
    for i, outbound in enumerate(networking.outbound):
        yield from _outbound(f"networking.outbound[{i}]", outbound)
    if networking.gateway is not None:
        yield from _gateway(spec, networking.gateway)
    else:
        yield from _listeners(networking)
    tp = networking.transparent_proxying
    if tp is not None:
        for name in ("redirect_port_inbound", "redirect_port_outbound"):
            if getattr(tp, name) > 65535:
                camel = name.title().replace("_", "").replace("R", "r", 1)
                yield from port_violations(f"networking.transparentProxying.{camel}", getattr(tp, name))
        for i, ref in enumerate(tp.reachable_backends.refs if tp.reachable_backends else ()):
            yield from _reachable(f"networking.transparentProxying.reachableBackends.refs[{i}]", ref)
    if networking.admin is not None:
        yield from _admin(networking, networking.admin.port)
    if spec.probes is not None:
        yield from _probes(spec.probes)
    if spec.metrics is not None:
        yield from mesh_rules.metrics_backend_violations("metrics", spec.metrics)
    yield from service_case_conflicts(spec.services(), (), "networking.inbound")


def _inbound(field: str, inbound: Inbound, address: str) -> Iterator[Violation]:
    yield from port_violations(f"{field}.port", inbound.port)
    if inbound.service_port:
        yield from port_violations(f"{field}.servicePort", inbound.service_port)
    yield from ip_violations(f"{field}.serviceAddress", inbound.service_address)
    yield from ip_violations(f"{field}.address", inbound.address)
    listens_on = inbound.address or address
    if inbound.service_address and inbound.service_address == listens_on and inbound.application_port == inbound.port:
        yield Violation(
            f"{field}.serviceAddress",
            f"the application cannot listen on {listens_on}:{inbound.port}, where its proxy does; "
            "change serviceAddress or servicePort",
        )
    yield from tag_violations(f"{field}.tags", inbound.tags, need_service=bool(inbound.tags))
    yield from protocol_violations(f'{field}.tags["{label.PROTOCOL}"]', inbound.tags.get(label.PROTOCOL))
    yield from protocol_violations(f"{field}.protocol", inbound.protocol)
    if inbound.service_probe is not None:
        yield from _service_probe(f"{field}.serviceProbe", inbound.service_probe)


def _service_probe(field: str, probe: ServiceProbe) -> Iterator[Violation]:
    for name, length in (("interval", probe.interval), ("timeout", probe.timeout)):
        if length is not None and length.total_seconds() <= 0:
            yield Violation(f"{field}.{name}", "must be longer than 0")
    thresholds = (("unhealthyThreshold", probe.unhealthy_threshold), ("healthyThreshold", probe.healthy_threshold))
    for name, count in thresholds:
        if count == 0:
            yield Violation(f"{field}.{name}", "must be at least 1")


def _shared_inbounds(networking: Networking) -> Iterator[Violation]:
    seen: dict[tuple[str, int], int] = {}
    for i, inbound in enumerate(networking.inbound):
        at = (inbound.address or networking.address, inbound.port)
        if at in seen:
            where = f"{at[0]}:{at[1]}"
            yield Violation(f"networking.inbound[{i}].port", f"{where} is taken by networking.inbound[{seen[at]}]")
        seen.setdefault(at, i)


def _outbound(field: str, outbound: Outbound) -> Iterator[Violation]:
    yield from port_violations(f"{field}.port", outbound.port)
    yield from ip_violations(f"{field}.address", outbound.address)
    if outbound.backend_ref is None:
        yield from tag_violations(f"{field}.tags", outbound.tags, need_service=True)
        return
    yield from _backend_ref(f"{field}.backendRef", outbound.backend_ref)
    if outbound.tags:
        yield Violation(f"{field}.backendRef", "an outbound has either backendRef or tags, not both")


def _backend_ref(field: str, ref: BackendRef) -> Iterator[Violation]:
    yield from _kind(f"{field}.kind", ref.kind)
    if not ref.name and not ref.labels:
        yield Violation(field, "needs a name or labels")
    if ref.kind != "MeshExternalService":  # its port comes from its own spec
        yield from port_violations(f"{field}.port", ref.port)


def _reachable(field: str, ref: ReachableBackendRef) -> Iterator[Violation]:
    yield from _kind(f"{field}.kind", ref.kind)
    if ref.name:
        yield from name_violations(ref.name, f"{field}.name")
    elif ref.namespace:
        yield Violation(f"{field}.name", "is required beside a namespace")
    elif not ref.labels:
        yield Violation(field, "needs a name or labels")
    if (ref.name or ref.namespace) and ref.labels:
        yield Violation(f"{field}.labels", "cannot stand beside a name")


def _kind(field: str, kind: str) -> Iterator[Violation]:
    if kind not in _BACKEND_KINDS:
        yield Violation(field, f'must be one of {", ".join(_BACKEND_KINDS)}, not "{kind}"')


def _gateway(spec: Dataplane, gateway: Gateway) -> Iterator[Violation]:
    networking = spec.networking
    yield from tag_violations("networking.gateway.tags", gateway.tags, need_service=bool(gateway.tags))
    protocol = gateway.tags.get(label.PROTOCOL)
    if protocol and protocol != "tcp":
        yield Violation(f'networking.gateway.tags["{label.PROTOCOL}"]', f'a gateway takes "tcp" only, not "{protocol}"')
    if networking.inbound:
        yield Violation("networking.inbound", "a gateway has no inbounds; remove either gateway or inbound")
    if networking.listeners:
        yield Violation("networking.listeners", "a gateway has no zone proxy listeners")
    if gateway.type is GatewayType.BUILTIN:
        if networking.outbound:
            yield Violation("networking.outbound", "a builtin gateway has no outbounds")
        if spec.probes is not None:
            yield Violation("probes", "a builtin gateway has no probes")


def _listeners(networking: Networking) -> Iterator[Violation]:
    names = {inbound.name or str(inbound.port) for inbound in networking.inbound}
    taken = {(inbound.address or networking.address, inbound.port): "an inbound" for inbound in networking.inbound}
    for i, listener in enumerate(networking.listeners):
        field = f"networking.listeners[{i}]"
        if listener.type is ListenerType.UNSPECIFIED:
            yield Violation(f"{field}.type", 'must be "ZoneIngress" or "ZoneEgress"')
        yield from address_violations(f"{field}.address", listener.address)
        yield from port_violations(f"{field}.port", listener.port)
        if listener.name and listener.name in names:
            yield Violation(f"{field}.name", f'"{listener.name}" is taken by another listener or inbound')
        names.add(listener.name)
        at = (listener.address, listener.port)
        if at in taken:
            yield Violation(field, f"{at[0]}:{at[1]} is taken by {taken[at]}")
        taken.setdefault(at, field)


def _admin(networking: Networking, port: int) -> Iterator[Violation]:
    if not port:
        return
    yield from port_violations("networking.admin.port", port)
    for i, inbound in enumerate(networking.inbound):
        address = inbound.address or networking.address
        own = inbound.port == port and overlaps(LOOPBACK, address)
        application = inbound.application_port == port and overlaps(LOOPBACK, inbound.service_address or address)
        if own or application:
            yield Violation("networking.admin.port", f"must differ from the ports of networking.inbound[{i}]")
    for i, outbound in enumerate(networking.outbound):
        if outbound.port == port and overlaps(LOOPBACK, outbound.address or str(LOOPBACK)):
            yield Violation("networking.admin.port", f"must differ from the port of networking.outbound[{i}]")


def _probes(probes: Probes) -> Iterator[Violation]:
    yield from port_violations("probes.port", probes.port)
    for i, endpoint in enumerate(probes.endpoints):
        yield from port_violations(f"probes.endpoints[{i}].inboundPort", endpoint.inbound_port)
        for name, path in (("inboundPath", endpoint.inbound_path), ("path", endpoint.path)):
            if not path.startswith("/"):
                yield Violation(f"probes.endpoints[{i}].{name}", f'must be a path that starts with "/", not "{path}"')
