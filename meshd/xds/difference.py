"""What differs between two views of a mesh, so that only that is rendered again. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from meshd.topology.view import MeshView, ServiceView
from meshd.xds.hosts import is_at

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two views of a mesh: services by name, None for any."""

    services: frozenset[str] | None = None
    ingress: frozenset[str] | None = None
    egress: frozenset[str] | None = None

    def with_services(self, names: frozenset[str]) -> "Difference":
        """The same with these services, as far as Dataplanes call them."""
        return self if self.services is None else replace(self, services=self.services | names)

    def with_moved(self, view: MeshView, hosts: set[str]) -> "Difference":
        """The same with the services that have an endpoint at one of these names."""

        def more(names: frozenset[str] | None, services: Mapping[str, ServiceView]) -> frozenset[str] | None:
            return None if names is None else names | {n for n, service in services.items() if is_at(service, hosts)}

        return Difference(
            more(self.services, view.services),
            more(self.ingress, view.ingress_services),
            more(self.egress, view.egress_services),
        )


NOTHING: frozenset[str] = frozenset()
UNCHANGED = Difference(NOTHING, NOTHING, NOTHING)


def difference(before: MeshView | None, after: MeshView) -> Difference:
    """What changed between two views; views share what did not."""
    if before is None or before.mesh.version != after.mesh.version:
        return Difference()
    return Difference(
        _changed(before.services, after.services),
        _changed(before.ingress_services, after.ingress_services),
        _changed(before.egress_services, after.egress_services),
    )


def _changed(before: Mapping[str, T], after: Mapping[str, T]) -> frozenset[str]:
    if before is after:
        return frozenset()
    found = {name for name, value in after.items() if before.get(name) is not value}
    return frozenset(found.union(before.keys() - after.keys()))
