"""What is particular to a kind, declared once: everything else about the kind is derived from this."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from meshd.model.errors import Violation
from meshd.model.resource import Resource, Spec


class Scope(enum.Enum):
    """Whether a resource belongs to a mesh."""

    GLOBAL = "Global"
    MESH = "Mesh"


class Flow(enum.Flag):
    """Where resources of a kind are made and which way they travel by KDS (reference/kds.md 4.1).

    Source: Kuma ``pkg/core/resources/model/resource.go`` (KDSFlagType).
    """

    NONE = 0
    GLOBAL_TO_ZONE = enum.auto()
    """Made on the global, sent to every zone."""
    ZONE_TO_GLOBAL = enum.auto()
    """Made in a zone, sent to the global."""
    ACROSS_ZONES = enum.auto()
    """Made in a zone; the global forwards it to the other zones."""
    ZONE_LOCAL = enum.auto()
    """A federated zone may own some too, so a sync touches only those that came from the global."""
    HASHED = enum.auto()
    """Gets the hash suffix on its way to a zone (on its way to the global every kind does)."""


def no_further_rules(_: Resource) -> tuple[Violation, ...]:
    """The validator of a kind whose schema says it all."""
    return ()


@dataclass(frozen=True, slots=True)
class ResourceType:
    """One kind.

    ``kind`` is the YAML ``type`` and the KDS ``type_url``; ``path`` the REST plural; ``short`` the KRI part and CLI
    word. ``message`` is the betterproto class of a kind that travels as protobuf; ``None`` means JSON. ``flat`` kinds
    have their spec fields at the top level of YAML, the others under ``spec:``. ``validate`` returns what the schema
    cannot say; it sees a resource whose schema is already right. ``read_only`` kinds are computed: REST refuses to
    write them. ``admin_only`` ones are read and written by administrators alone.
    """

    kind: str
    path: str
    scope: Scope
    flow: Flow
    spec: type[Spec]
    doc: str
    short: str = ""
    message: type[Any] | None = None
    message_name: str = ""
    flat: bool = True
    status: type[Spec] | None = None
    validate: Callable[[Resource], tuple[Violation, ...]] = no_further_rules
    read_only: bool = False
    admin_only: bool = False
    aliases: tuple[str, ...] = ()
    is_policy: bool = False
