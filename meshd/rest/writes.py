"""What a write must hold to beyond its own shape, as far as the rest of the store is concerned. Pure reads."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from meshd.ca.authority import Materials, check_backends
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.external_service import ExternalService
from meshd.kinds.membership import membership_violations
from meshd.kinds.mesh import Mesh
from meshd.kinds.mesh_rules import mesh_delete_violations, mesh_update_violations
from meshd.kinds.small_rules import zone_delete_violations
from meshd.kinds.without_effect import EFFECTLESS, NO_EFFECT
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.kinds.zone_insight import ZoneInsight
from meshd.model.errors import InvalidError, Violation
from meshd.model.resource import Resource, ResourceKey
from meshd.model.resource_type import ResourceType, Scope
from meshd.rest.errors import CREATE, RequestError
from meshd.store.store import Create, Store


def url_violations(type_: ResourceType, key: ResourceKey, document: Mapping[str, Any]) -> list[Violation]:
    """Where the body names another resource than the URL."""
    wanted = [("type", type_.kind), ("name", key.name)]
    if type_.scope is Scope.MESH:
        wanted.append(("mesh", key.mesh))
    return [
        Violation(field, f"{field} from the URL has to be the same as in body: '{value}', not '{document[field]}'")
        for field, value in wanted
        if field in document and document[field] != value
    ] + [Violation(field, "is required") for field, _ in wanted if field not in document]


def check_mesh(store: Store, mesh: str) -> None:
    """Refuse a resource of a mesh that is not there.

    Raises:
        RequestError: 400, as Kuma has it.
    """
    if store.get(ResourceKey("Mesh", "", mesh)) is None:
        violation = Violation("mesh", f"mesh of name {mesh} is not found")
        raise RequestError(400, CREATE, "Mesh is not found", [violation])


def check_among_others(store: Store, resource: Resource) -> None:
    """Refuse a service whose name differs from another of its mesh by case only: SNI and DNS do not tell them apart.

    Raises:
        InvalidError: names both.
    """
    mine = {name: name.lower() for name in services_of(resource)}
    if not mine:
        return
    taken = {}
    for kind in ("Dataplane", "ExternalService"):
        for other in store.list(kind, resource.key.mesh):
            if other.key != resource.key:
                taken.update({name.lower(): (name, other.key) for name in services_of(other)})
    violations = [
        Violation("", f"service '{name}' differs only by case from '{taken[low][0]}' of {taken[low][1]}; rename one")
        for name, low in mine.items()
        if low in taken and taken[low][0] != name
    ]
    if violations:
        raise InvalidError(str(resource.key), violations)


def services_of(resource: Resource) -> tuple[str, ...]:
    """The services that a resource puts into its mesh."""
    if resource.key.kind == "Dataplane":
        return cast("Dataplane", resource.spec).services()
    if resource.key.kind == "ExternalService":
        service = cast("ExternalService", resource.spec).service
        return (service,) if service else ()
    return ()


def mesh_violations(stored: Resource | None, wanted: Resource, materials: Materials) -> list[Violation]:
    """What is wrong with the certificate authority of a Mesh that is about to be written, and with changing it so."""
    changed = mesh_update_violations(cast("Mesh", stored.spec), cast("Mesh", wanted.spec)) if stored else ()
    return [*changed, *check_backends(wanted, materials)]


def dataplane_violations(store: Store, wanted: Resource) -> list[Violation]:
    """Why the mesh of a Dataplane does not let it in."""
    mesh = store.get(ResourceKey("Mesh", "", wanted.key.mesh))
    if mesh is None:
        return []
    return [*membership_violations(cast("Dataplane", wanted.spec), wanted.key.mesh, cast("Mesh", mesh.spec))]


def warnings(store: Store, resource: Resource) -> list[str]:
    """What is allowed but should be known of a resource that was written here."""
    if resource.key.kind in EFFECTLESS:
        return [f"{resource.key} {NO_EFFECT}"]
    if resource.key.kind != "Mesh" or cast("Mesh", resource.spec).enabled_backend() is not None:
        return []
    if len(store.list("Zone")) < 2:
        return []
    return ["services of other zones cannot be reached without mTLS; set mtls.enabledBackend and mtls.backends"]


def check_delete(store: Store, key: ResourceKey) -> None:
    """Refuse to delete a mesh with Dataplanes and a zone that is connected.

    Raises:
        InvalidError: says what is still there.
    """
    violations = _in_the_way(store, key)
    if violations:
        raise InvalidError(str(key), violations)


def _in_the_way(store: Store, key: ResourceKey) -> tuple[Violation, ...]:
    if key.kind == "Mesh":
        return mesh_delete_violations(key.name, [d.key for d in store.list("Dataplane", key.name)])
    if key.kind == "Zone":
        insight = store.get(ResourceKey("ZoneInsight", "", key.name))
        return zone_delete_violations(key.name, cast("ZoneInsight", insight.spec) if insight is not None else None)
    return ()


def initial_edits(store: Store, made: Sequence[Resource]) -> list[Create]:
    """Creates what a new Mesh begins with; what is there under such a name already, readable or not, stays."""
    damaged = store.unreadable()
    return [Create(r) for r in made if store.get(r.key) is None and r.key not in damaged]


def carry_over(new: Resource, stored: Resource | None) -> Resource:
    """What an author does not write but a control plane keeps: owner, status, an ingress's available services."""
    if stored is None:
        if new.key.mesh:
            return replace(new, owner=ResourceKey("Mesh", "", new.key.mesh))
        return new
    spec = new.spec
    if isinstance(spec, ZoneIngress) and not spec.available_services:
        spec = spec.model_copy(update={"available_services": cast("ZoneIngress", stored.spec).available_services})
    status = new.status if new.status is not None else stored.status
    return replace(new, spec=spec, status=status, owner=stored.owner, version=stored.version)
