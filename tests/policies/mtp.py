"""Builders for the tests of MeshTrafficPermission."""

from types import MappingProxyType
from typing import Any

from meshd.model.resource import Resource, ResourceKey
from meshd.policies.mesh_traffic_permission.spec import MeshTrafficPermission
from meshd.topology.view import MeshView
from tests.topology.builders import mesh as build_mesh


def mtp(name: str, spec: dict[str, Any], labels: dict[str, str] | None = None) -> Resource:
    key = ResourceKey("MeshTrafficPermission", "default", name)
    return Resource(key, MeshTrafficPermission.model_validate(spec), labels or {})


def entry(action: str | None, kind: str = "Mesh", **ref: Any) -> dict[str, Any]:
    return {"targetRef": {"kind": kind, **ref}, "default": {"action": action} if action else {}}


def view(*policies: Resource, mtls: bool = True) -> MeshView:
    nothing: Any = MappingProxyType({})
    return MeshView(
        mesh_name="default",
        zone="zone-a",
        version="",
        mesh=build_mesh(mtls=mtls),
        services=nothing,
        egress_services=nothing,
        ingress_services=nothing,
        vips=nothing,
        local_dataplanes=nothing,
        policies={"MeshTrafficPermission": policies},
    )
