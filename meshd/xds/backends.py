"""``backendRefs`` of routes as shares of traffic."""

from collections.abc import Iterable, Sequence

from meshd.rules.backend_ref import BackendRef
from meshd.rules.target_ref import Kind
from meshd.xds.shaping import Backend

Subset = tuple[str, tuple[tuple[str, str], ...]]
"""A service and the sorted tags of some of its instances."""


def backends_of(refs: Iterable[BackendRef]) -> tuple[Backend, ...]:
    """The shares that references stand for, in their order.

    References to resources (MeshExternalService, MeshMultiZoneService, MeshService with a port or by labels) stand for
    none: there are no such resources here.
    """
    return tuple(
        Backend(ref.name, ref.weight, tuple(sorted((ref.tags or {}).items())))
        for ref in refs
        if ref.name and not ref.names_resource
    )


def subsets_of(refs: Iterable[BackendRef]) -> Sequence[Subset]:
    """The parts of services that are referred to."""
    return [
        (backend.service, backend.tags)
        for backend in backends_of(ref for ref in refs if ref.kind is Kind.MESH_SERVICE_SUBSET)
        if backend.tags
    ]
