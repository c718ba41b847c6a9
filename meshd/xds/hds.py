"""Health discovery: what a proxy is asked to probe, and what its report means for its Dataplane. Pure.

Field numbers: Envoy ``api/envoy/service/health/v3/hds.proto``. Source: reference/dataplane.md 2.8.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from meshd.discovery.fields import VARINT, fields, submessages, text
from meshd.discovery.messages import Node
from meshd.discovery.wire import decode_node
from meshd.kinds.dataplane import Dataplane, Inbound, InboundState, ServiceProbe
from meshd.kinds.defaults import in_state
from meshd.xds import names
from meshd.xds.abilities import LOOPBACKS, Abilities
from meshd.xds.encode import PREFIX, Document, encode

SPECIFIER = PREFIX + "envoy.service.health.v3.HealthCheckSpecifier"
LOCAL_CLUSTER = re.compile(r"localhost:(\d{1,5})\Z")
PASSTHROUGH = {False: "127.0.0.6", True: "::6"}
"""From where probes of a host that redirects come, so that they are not taken for traffic of the mesh (by IPv6)."""
UNKNOWN, HEALTHY = 0, 1
ID_PATH = (1, 1, 1)
"""The field numbers that lead to the node's id in what a proxy says first."""


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """How proxies probe where the ``serviceProbe`` does not say, and how often they report."""

    report: timedelta = timedelta(seconds=5)
    interval: timedelta = timedelta(seconds=1)
    no_traffic_interval: timedelta = timedelta(seconds=1)
    timeout: timedelta = timedelta(seconds=2)
    healthy_threshold: int = 1
    unhealthy_threshold: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """What a proxy says: of itself, and of its applications by port. ``node`` is in the first message only."""

    node: Node | None = None
    is_report: bool = False
    proxy: bool = True
    applications: Mapping[int, bool] = field(default_factory=dict)


def specifier(spec: Dataplane, abilities: Abilities, settings: HealthSettings) -> bytes:
    """The encoded ``HealthCheckSpecifier`` for a proxy: its own admin API, and what is to be probed."""
    checks = [_admin_check(abilities, settings)] if abilities.admin_socket or abilities.admin_port else []
    probed: dict[int, Inbound] = {}
    for inbound in spec.networking.inbound:
        if inbound.service_probe is not None:
            probed.setdefault(inbound.application_port, inbound)
    checks += [_check(inbound, spec, abilities, settings) for _, inbound in sorted(probed.items())]
    return encode(SPECIFIER, {"interval": seconds(settings.report), "clusterHealthChecks": checks})


def _admin_check(abilities: Abilities, settings: HealthSettings) -> Document:
    address: Document
    if abilities.admin_socket:
        address = {"pipe": {"path": abilities.admin_socket}}
    else:
        address = _socket_address(abilities.admin_address or LOOPBACKS[0], abilities.admin_port)
    # While it drains, Envoy is not ready any more.
    how = {"httpHealthCheck": {"path": "/ready"}}
    return _cluster(names.ADMIN, address, {**_timing(ServiceProbe(), settings), **how})


def _check(inbound: Inbound, spec: Dataplane, abilities: Abilities, settings: HealthSettings) -> Document:
    probe = inbound.service_probe or ServiceProbe()
    host = inbound.service_address or inbound.address or spec.networking.address
    how = {**_timing(probe, settings), "tcpHealthCheck": {}}
    cluster = _cluster(f"localhost:{inbound.application_port}", _socket_address(host, inbound.application_port), how)
    if abilities.redirect is not None and host not in LOOPBACKS:
        cluster["upstreamBindConfig"] = {"sourceAddress": {"address": PASSTHROUGH[":" in host], "portValue": 0}}
    return cluster


def _cluster(name: str, address: Document, check: Document) -> Document:
    endpoints = [{"endpoints": [{"address": address}]}]
    return {"clusterName": name, "localityEndpoints": endpoints, "healthChecks": [check]}


def _socket_address(host: str, port: int) -> Document:
    return {"socketAddress": {"address": host, "portValue": port}}


def _timing(probe: ServiceProbe, settings: HealthSettings) -> Document:
    return {
        "timeout": seconds(probe.timeout or settings.timeout),
        "interval": seconds(probe.interval or settings.interval),
        "noTrafficInterval": seconds(settings.no_traffic_interval),
        "healthyThreshold": probe.healthy_threshold or settings.healthy_threshold,
        "unhealthyThreshold": probe.unhealthy_threshold or settings.unhealthy_threshold,
    }


def seconds(duration: timedelta) -> str:
    """A duration as proto-JSON has it."""
    whole, micros = divmod(round(duration.total_seconds() * 1_000_000), 1_000_000)
    return f"{whole}.{micros:06d}".rstrip("0").rstrip(".") + "s"


def decode(data: bytes) -> Report:
    """Read a ``HealthCheckRequestOrEndpointHealthResponse``.

    Raises:
        ValueError: it is none.
    """
    node: Node | None = None
    is_report, proxy = False, True
    applications: dict[int, bool] = {}
    for number, part in submessages(data):
        if number == 1:
            node = next((decode_node(p) for n, p in submessages(part) if n == 1), node)
        elif number == 2:
            is_report = True
            for name, is_healthy in _clusters(part):
                port = LOCAL_CLUSTER.match(name)
                if name == names.ADMIN:
                    proxy = is_healthy
                elif port is not None:
                    applications[int(port[1])] = is_healthy
    return Report(node, is_report, proxy, applications)


def _clusters(data: bytes) -> Iterator[tuple[str, bool]]:
    """Name and health of the clusters in an ``EndpointHealthResponse``: each has one endpoint, the first counts."""
    for number, cluster in submessages(data):
        if number != 2:
            continue
        name, health = "", None
        for part_number, part in submessages(cluster):
            if part_number == 1:
                name = text(part)
            elif part_number == 2 and health is None:
                health = next((_status(endpoint) for n, endpoint in submessages(part) if n == 2), None)
        if health is not None:
            yield name, health in (UNKNOWN, HEALTHY)


def _status(endpoint: bytes) -> int:
    found = UNKNOWN
    for number, wire_type, value in fields(endpoint):
        if number == 2 and wire_type == VARINT and isinstance(value, int):
            found = value
    return found


def reported(spec: Dataplane, report: Report) -> Dataplane:
    """The Dataplane with its inbounds Ready or NotReady as the proxy says; the same value if nothing changes.

    An inbound that is not probed follows the proxy's own health, one of which the report does not know yet stays as it
    is while that is good. What is Ignored stays so.
    """
    inbound = tuple(_transition(i, report) for i in spec.networking.inbound)
    if inbound == spec.networking.inbound:
        return spec
    return spec.model_copy(update={"networking": spec.networking.model_copy(update={"inbound": inbound})})


def _transition(inbound: Inbound, report: Report) -> Inbound:
    is_healthy: bool | None = report.proxy
    if report.proxy and inbound.service_probe is not None:
        is_healthy = report.applications.get(inbound.application_port)
    if is_healthy is None:
        return inbound
    wanted = InboundState.READY if is_healthy else InboundState.NOT_READY
    if inbound.state in (InboundState.IGNORED, wanted):
        return inbound
    return in_state(inbound, wanted)
