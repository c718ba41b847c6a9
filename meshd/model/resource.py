"""A resource: the key that names it, the spec its user wrote, and the metadata that travels with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from meshd.model import labels as label

NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Spec(BaseModel):
    """Base of every spec, status and part of one: immutable, camelCase outside, unknown fields are errors.

    Decode through ``meshd.model.codec`` (strict at our own edges, lenient for what a peer of another version sends).
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        use_enum_values=False,
    )

    def write_out(self, field: str) -> None:
        """Make a field count as written by its author even if it has its default.

        For the "after" validator of a spec that Kuma stores with its defaults: other control planes rely on them.
        """
        self.model_fields_set.add(field)


@dataclass(frozen=True, slots=True, order=True)
class ResourceKey:
    """Names one resource: ``kind`` as in YAML ``type``; ``mesh`` is empty for kinds of global scope."""

    kind: str
    mesh: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.mesh}/{self.name}" if self.mesh else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as the store holds it. Immutable; ``dataclasses.replace`` builds the next one.

    ``version`` is the store's, 0 for one that was never stored; it moves only when spec, status, labels or owner
    change. ``created`` and ``modified`` are UTC, stamped by the store. ``owner`` is deleted -> this is deleted.
    ``wire`` is the spec exactly as a KDS peer sent it (protobuf bytes or JSON text, by the kind's encoding), kept so
    that fields we do not know are passed on; ``None`` for a resource that was written here.
    """

    key: ResourceKey
    spec: Spec
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    status: Spec | None = None
    owner: ResourceKey | None = None
    version: int = 0
    created: datetime | None = None
    modified: datetime | None = None
    wire: bytes | None = None

    @property
    def display_name(self) -> str:
        """The name its author gave it: a synced resource carries it in a label, since its own name is hashed."""
        return self.labels.get(label.DISPLAY_NAME) or self.key.name

    def same_content(self, other: "Resource") -> bool:
        """Whether storing one over the other would change nothing but version and times."""
        return (
            self.spec == other.spec
            and self.status == other.status
            and dict(self.labels) == dict(other.labels)
            and self.owner == other.owner
            and self.wire == other.wire
        )
