"""What is known and what was built of one mesh; the mutable inside of ``build.Topology``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, TypeVar

from meshd.model.resource import Resource
from meshd.topology.digest import Digest
from meshd.topology.services import MeshIndex, TagSet
from meshd.topology.view import MeshView, ServiceView, Vip
from meshd.topology.vips import VipEntry

T = TypeVar("T")
Counts = dict[str, tuple[TagSet, int]]
"""How many healthy instances have a tag set, by its text."""


class Section(Generic[T]):
    """Values by name, and the sorted mapping that views share until one changes."""

    __slots__ = ("_published", "_unsorted", "items")

    def __init__(self) -> None:
        self.items: dict[str, T] = {}
        self._unsorted = False
        self._published: Mapping[str, T] | None = None

    def set(self, name: str, value: T | None) -> T | None:
        """Replace or, with None, remove a value; returns the one before."""
        before = self.items.get(name)
        self._published = None
        if value is None:
            self.items.pop(name, None)
        else:
            self._unsorted = self._unsorted or before is None
            self.items[name] = value
        return before

    def published(self, key: Callable[[T], str]) -> Mapping[str, T]:
        """The values by ``key``, in order of name; the same object until ``set``."""
        if self._published is None:
            if self._unsorted:
                self.items = dict(sorted(self.items.items()))
                self._unsorted = False
            self._published = MappingProxyType({key(value): value for value in self.items.values()})
        return self._published


@dataclass(slots=True)
class MeshState:
    """One mesh: what is known, what was built of it, and what has to be built again."""

    index: MeshIndex = field(default_factory=MeshIndex)
    resource: Resource | None = None
    dataplanes: "Section[Resource]" = field(default_factory=Section)
    policies: dict[str, dict[str, Resource]] = field(default_factory=dict)
    instances: Counts = field(default_factory=dict)
    services: "Section[ServiceView]" = field(default_factory=Section)
    egress: "Section[ServiceView]" = field(default_factory=Section)
    ingress: "Section[ServiceView]" = field(default_factory=Section)
    vips: Mapping[str, Vip] = field(default_factory=lambda: MappingProxyType({}))
    reasons: dict[str, str] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)
    entries: tuple[VipEntry, ...] = ()
    digest: Digest = field(default_factory=Digest)
    touched: set[str] = field(default_factory=set)
    names_touched: bool = True
    vips_stale: bool = True
    changed: bool = True
    """Something besides services has changed (the Mesh, its Dataplanes, its policies)."""
    view: MeshView | None = None
