"""``backendRefs``: where a route sends its traffic, and what share of it."""

from typing import Self

from pydantic import model_validator

from meshd.model.errors import Violation
from meshd.model.fields import UInt32
from meshd.rules.target_ref import Kind, TargetRef, violations

KINDS = (
    Kind.MESH_SERVICE,
    Kind.MESH_SERVICE_SUBSET,
    Kind.MESH_EXTERNAL_SERVICE,
    Kind.MESH_MULTI_ZONE_SERVICE,
)


class BackendRef(TargetRef):
    """``weight`` is a share of the sum of all weights in the list; ``port`` belongs to references to resources."""

    weight: UInt32 = 1
    port: UInt32 | None = None

    @model_validator(mode="after")
    def _written_out(self) -> Self:
        self.write_out("weight")
        return self

    @property
    def names_resource(self) -> bool:
        """Whether a resource of its own is meant (MeshService by port, ...), rather than a ``kuma.io/service``."""
        if self.kind is Kind.MESH_SERVICE:
            return bool(self.section_name) or self.port is not None
        return self.kind is not Kind.MESH_SERVICE_SUBSET


def backend_violations(ref: BackendRef, path: str) -> list[Violation]:
    """Everything wrong with a reference that stands at ``path``."""
    found = violations(ref, path, KINDS)
    if ref.kind is Kind.MESH_MULTI_ZONE_SERVICE and ref.port is None:
        found.append(Violation(f"{path}.port", "must be set with kind MeshMultiZoneService"))
    return found
