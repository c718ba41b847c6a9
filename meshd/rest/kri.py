"""Resources by Kuma's identifier (``/_kri/KRI``). Pure.

Source: Kuma 2.14.3 ``pkg/core/kri``, ``pkg/api-server/kri_endpoint.go``.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from meshd.model.codec import kri
from meshd.model.registry import Registry
from meshd.model.resource import Resource
from meshd.model.resource_type import ResourceType
from meshd.rest.errors import bad_request

PARTS = 7
"""``kri_<short>_<mesh>_<zone>_<namespace>_<name>_<section>``."""


@dataclass(frozen=True, slots=True)
class Identifier:
    """A resource of a kind; ``text`` is its identifier without a section."""

    type: ResourceType
    mesh: str
    text: str

    def among(self, resources: Iterable[Resource]) -> Resource | None:
        """The resource that it means; the name that a copy has here does not matter."""
        return next((r for r in resources if kri(r, self.type) == self.text), None)


def read_kri(text: str, registry: Registry) -> Identifier:
    """What an identifier means; the section, a part of a resource, does not count.

    Raises:
        RequestError: 400, it is none.
    """
    parts = text.split("_")
    if len(parts) != PARTS or parts[0] != "kri":
        raise bad_request(f"'{text}' is no identifier: it must be kri_SHORT_MESH_ZONE_NAMESPACE_NAME_SECTION")
    type_ = next((t for t in registry if t.short and t.short == parts[1]), None)
    if type_ is None:
        raise bad_request(f"'{text}' is no identifier: no kind has the short name '{parts[1]}'")
    return Identifier(type_, parts[2], "_".join([*parts[:-1], ""]))
