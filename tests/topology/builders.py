"""Builders of resources for the tests of topology, rules and policies."""

from collections.abc import Mapping, Sequence
from typing import Any

from meshd.kinds.dataplane import Dataplane
from meshd.kinds.external_service import ExternalService
from meshd.kinds.mesh import Mesh
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model.resource import Resource, ResourceKey

SERVICE = "kuma.io/service"
ZONE = "kuma.io/zone"


def mesh(
    name: str = "default", *, mtls: bool = True, zone_egress: bool = False, locality: bool = False, labels: Any = None
) -> Resource:
    spec: dict[str, Any] = {"routing": {"zoneEgress": zone_egress, "localityAwareLoadBalancing": locality}}
    if mtls:
        spec["mtls"] = {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]}
    return Resource(ResourceKey("Mesh", "", name), Mesh.model_validate(spec), labels or {})


def inbound(service: str, port: int = 8080, tags: Mapping[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {"port": port, "tags": {SERVICE: service, "kuma.io/protocol": "tcp", **(tags or {})}, **more}


def dataplane(
    name: str,
    *services: str | dict[str, Any],
    mesh: str = "default",
    address: str = "10.0.0.1",
    labels: Mapping[str, str] | None = None,
    **networking: Any,
) -> Resource:
    items = [s if isinstance(s, dict) else inbound(s, 8080 + i) for i, s in enumerate(services)]
    spec = Dataplane.model_validate({"networking": {"address": address, "inbound": items, **networking}})
    return Resource(ResourceKey("Dataplane", mesh, name), spec, labels or {})


def available(
    service: str, instances: int, *, mesh: str = "default", external: bool = False, **tags: str
) -> dict[str, Any]:
    return {
        "tags": {SERVICE: service, "kuma.io/protocol": "tcp", **tags},
        "instances": instances,
        "mesh": mesh,
        "externalService": external,
    }


def ingress(
    name: str,
    zone: str,
    services: Sequence[dict[str, Any]] = (),
    *,
    address: str | None = None,
    port: int = 10001,
) -> Resource:
    where = f"{zone or 'local'}.example" if address is None else address
    networking = {"address": "0.0.0.0", "port": 10001, "advertisedAddress": where, "advertisedPort": port}
    spec = ZoneIngress.model_validate({"zone": zone, "networking": networking, "availableServices": list(services)})
    return Resource(ResourceKey("ZoneIngress", "", name), spec)


def egress(name: str, zone: str = "", address: str = "10.0.0.9", port: int = 10002) -> Resource:
    spec = ZoneEgress.model_validate({"zone": zone, "networking": {"address": address, "port": port}})
    return Resource(ResourceKey("ZoneEgress", "", name), spec)


def external(
    name: str,
    service: str,
    address: str,
    *,
    mesh: str = "default",
    tags: Mapping[str, str] | None = None,
    host_entry: bool = True,
) -> Resource:
    spec = ExternalService.model_validate(
        {
            "networking": {"address": address, "disableHostDNSEntry": not host_entry},
            "tags": {SERVICE: service, **(tags or {})},
        }
    )
    return Resource(ResourceKey("ExternalService", mesh, name), spec)
