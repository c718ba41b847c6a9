"""MeshInsight and ServiceInsight of a mesh, and who is online: pure functions of resources.

Source: Kuma ``pkg/insights/resyncer.go``, ``pkg/core/resources/apis/mesh/dataplane_overview_helpers.go`` (behaviour).
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import cast

from meshd.kinds import mesh_insight, service_insight
from meshd.kinds.dataplane import Dataplane, GatewayType
from meshd.kinds.external_service import ExternalService
from meshd.kinds.proxy_insights import DataplaneInsight
from meshd.model import labels as label
from meshd.model.resource import Resource
from meshd.model.steps import Steps


class Health(enum.Enum):
    """How much of a proxy is up."""

    ONLINE = "online"
    OFFLINE = "offline"
    PARTIALLY_DEGRADED = "partially_degraded"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A Dataplane with what its zone saw of it, read once: the counts below visit every proxy several times.

    ``services`` are all it offers or is; ``up`` those of them that take traffic. ``zone`` is a tag its zone sets, or
    the label. ``health``: offline without an open subscription or a ready inbound, degraded if only some are ready.
    """

    spec: Dataplane
    insight: DataplaneInsight | None
    services: tuple[str, ...]
    up: frozenset[str]
    zone: str
    health: Health


def read(dataplane: Resource, insight: DataplaneInsight | None) -> Proxy:
    """The facts about one Dataplane."""
    spec = cast("Dataplane", dataplane.spec)
    gateway, inbounds = spec.networking.gateway, spec.networking.inbound
    services = spec.services()
    tagged = [gateway.tags] if gateway else [i.tags for i in inbounds]
    zone = next((tags[label.ZONE] for tags in tagged if label.ZONE in tags), "")
    ready = [i.is_ready for i in inbounds]
    up: frozenset[str] = frozenset()
    health = Health.OFFLINE
    if insight is not None and insight.is_online:
        if gateway is not None or not inbounds:
            up = frozenset(services)
        else:
            up = frozenset(i.service for i, is_ready in zip(inbounds, ready, strict=True) if is_ready)
        if all(ready):
            health = Health.ONLINE
        elif any(ready):
            health = Health.PARTIALLY_DEGRADED
    return Proxy(spec, insight, services, up, zone or dataplane.labels.get(label.ZONE, ""), health)


STEP = 10
"""Proxies or services that are looked at in one go; each takes some microseconds."""


def join(dataplanes: Iterable[Resource], insights: Iterable[Resource]) -> tuple[Proxy, ...]:
    """Every Dataplane with its insight, which has the same mesh and name."""
    found = {(i.key.mesh, i.key.name): cast("DataplaneInsight", i.spec) for i in insights}
    return tuple(read(d, found.get((d.key.mesh, d.key.name))) for d in dataplanes)


@dataclass(slots=True)
class Count:
    """A tally of proxies by health."""

    by_health: dict[Health, int] = field(default_factory=dict)

    def add(self, health: Health) -> None:
        """One more."""
        self.by_health[health] = self.by_health.get(health, 0) + 1

    def stat(self) -> mesh_insight.DataplaneStat:
        """As MeshInsight has it."""
        return mesh_insight.DataplaneStat(
            total=sum(self.by_health.values()),
            online=self.by_health.get(Health.ONLINE, 0),
            offline=self.by_health.get(Health.OFFLINE, 0),
            partially_degraded=self.by_health.get(Health.PARTIALLY_DEGRADED, 0),
        )


def compute_mesh_insight(
    proxies: Sequence[Proxy],
    external_services: Sequence[Resource],
    policies: Mapping[str, int],
    resources: Mapping[str, int],
) -> Steps[mesh_insight.MeshInsight]:
    """The counts of one mesh. ``policies`` and ``resources`` are how many of each kind it has; zeros are left out."""
    everything, standard, gateway, builtin, delegated = (Count() for _ in range(5))
    kuma_dp: dict[str, Count] = {}
    envoy: dict[str, Count] = {}
    issued: dict[str, Count] = {}
    supported: dict[str, Count] = {}
    for number, proxy in enumerate(proxies):
        if number % STEP == 0:
            yield
        health = proxy.health
        everything.add(health)
        kind = proxy.spec.networking.gateway
        if kind is None:
            standard.add(health)
        else:
            gateway.add(health)
            (builtin if kind.type is GatewayType.BUILTIN else delegated).add(health)
        newest = proxy.insight.subscriptions[-1] if proxy.insight and proxy.insight.subscriptions else None
        version = newest.version if newest else None
        _add(kuma_dp, (version.kuma_dp.version if version and version.kuma_dp else "") or "unknown", health)
        _add(envoy, (version.envoy.version if version and version.envoy else "") or "unknown", health)
        mtls = proxy.insight.mtls if proxy.insight else None
        if mtls is not None:
            _add(issued, mtls.issued_backend or "unknown", health)
            for backend in mtls.supported_backends:
                _add(supported, backend, health)
    internal = {s for p in proxies for s in p.services}
    external = {cast("ExternalService", e.spec).service for e in external_services}
    return mesh_insight.MeshInsight(
        dataplanes=everything.stat(),
        policies={kind: mesh_insight.PolicyStat(total=n) for kind, n in sorted(policies.items()) if n},
        dp_versions=mesh_insight.DpVersions(kuma_dp=_stats(kuma_dp), envoy=_stats(envoy)),
        mtls=mesh_insight.Mtls(issued_backends=_stats(issued), supported_backends=_stats(supported)),
        services=mesh_insight.ServiceStat(
            total=len(internal) + len(external), internal=len(internal), external=len(external)
        ),
        dataplanes_by_type=mesh_insight.DataplanesByType(
            standard=standard.stat(),
            gateway=gateway.stat(),
            gateway_builtin=builtin.stat(),
            gateway_delegated=delegated.stat(),
        ),
        resources={kind: mesh_insight.ResourceStat(total=n) for kind, n in sorted(resources.items()) if n},
    )


def compute_service_insight(
    proxies: Sequence[Proxy],
    external_services: Sequence[Resource],
    domain: str,
    port: int,
    before: Mapping[str, service_insight.Service] = MappingProxyType({}),
) -> Steps[service_insight.ServiceInsight]:
    """Every service of a mesh with how many of its Dataplanes are up, and where. ``domain`` and ``port`` are DNS's.

    Services that are as they were ``before`` are the same objects.
    """
    members: dict[str, list[Proxy]] = {}
    for proxy in proxies:
        for service in proxy.services:
            members.setdefault(service, []).append(proxy)
    yield
    services: dict[str, service_insight.Service] = {}
    for number, name in enumerate(members):
        if number % STEP == 0:
            yield
        found = _service(name, members[name], f"{name}.{domain}:{port}")
        services[name] = before[name] if before.get(name) == found else found
    for resource in external_services:
        spec = cast("ExternalService", resource.spec)
        if spec.service and spec.service not in services:
            services[spec.service] = service_insight.Service(
                status=service_insight.Status.NOT_AVAILABLE,
                service_type=service_insight.ServiceType.EXTERNAL,
                # kumactl crashes on a service without it
                dataplanes=service_insight.DataplaneStat(),
                address_port=spec.networking.address,
            )
    return service_insight.ServiceInsight(services=dict(sorted(services.items())))


def _service(name: str, proxies: Sequence[Proxy], address_port: str) -> service_insight.Service:
    online = sum(name in p.up for p in proxies)
    backends: dict[str, int] = {}
    for proxy in proxies:
        if proxy.insight is not None and proxy.insight.mtls is not None:
            backend = proxy.insight.mtls.issued_backend or "unknown"
            backends[backend] = backends.get(backend, 0) + 1
    if online == 0:
        status = service_insight.Status.OFFLINE
    else:
        whole = online == len(proxies)
        status = service_insight.Status.ONLINE if whole else service_insight.Status.PARTIALLY_DEGRADED
    type_ = _type(proxies[0])
    return service_insight.Service(
        status=status,
        dataplanes=service_insight.DataplaneStat(total=len(proxies), online=online, offline=len(proxies) - online),
        issued_backends=dict(sorted(backends.items())),
        service_type=type_,
        # A gateway is nobody's destination inside the mesh.
        address_port=address_port if type_ is service_insight.ServiceType.INTERNAL else "",
        zones=tuple(sorted({p.zone for p in proxies} - {""})),
    )


def _type(proxy: Proxy) -> service_insight.ServiceType:
    gateway = proxy.spec.networking.gateway
    if gateway is None:
        return service_insight.ServiceType.INTERNAL
    if gateway.type is GatewayType.BUILTIN:
        return service_insight.ServiceType.GATEWAY_BUILTIN
    return service_insight.ServiceType.GATEWAY_DELEGATED


def _add(counts: dict[str, Count], name: str, health: Health) -> None:
    counts.setdefault(name, Count()).add(health)


def _stats(counts: Mapping[str, Count]) -> dict[str, mesh_insight.DataplaneStat]:
    return {name: counts[name].stat() for name in sorted(counts)}
