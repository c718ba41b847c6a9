"""What is known and what was built of one mesh; the mutable inside of ``build.Topology``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Generic, TypeVar

from meshd.model.resource import Resource
from meshd.topology.digest import Digest
from meshd.topology.services import MeshIndex, TagSet
from meshd.topology.view import MeshView, ServiceView, Vip
from meshd.topology.vips import VipEntry, VipKey

T = TypeVar("T")
Counts = dict[str, tuple[TagSet, int]]
"""How many healthy instances have a tag set, by its text."""


class Section(Generic[T]):
    """Values by name, and the sorted mapping that views share until one changes.

    ``key`` says under which name views have a value. Replacing one costs a copy of the mapping, which is cheap;
    adding or removing one sorts it.
    """

    __slots__ = ("_changed", "_key", "_published", "items")

    def __init__(self, key: Callable[[T], str]) -> None:
        self.items: dict[str, T] = {}
        self._key = key
        self._changed: set[str] | None = None
        """What was replaced by a value of the same key since the mapping was made; None: more than that."""
        self._published: MappingProxyType[str, T] = MappingProxyType({})

    def set(self, name: str, value: T | None) -> T | None:
        """Replace or, with None, remove a value; returns the one before."""
        before = self.items.get(name)
        if value is None:
            self.items.pop(name, None)
        else:
            self.items[name] = value
        if before is None or value is None or self._key(before) != self._key(value):
            self._changed = None
        elif self._changed is not None:
            self._changed.add(name)
        return before

    def published(self) -> Mapping[str, T]:
        """The values by key, in order of name; the same object until ``set``."""
        if self._changed is None:
            self.items = dict(sorted(self.items.items()))
            self._published = MappingProxyType({self._key(value): value for value in self.items.values()})
        elif self._changed:
            replaced = {self._key(value): value for value in map(self.items.__getitem__, self._changed)}
            self._published = MappingProxyType(self._published | replaced)  # dict(proxy) goes key by key
        self._changed = set()
        return self._published


def _name_of(view: ServiceView) -> str:
    return view.name


def _name_of_resource(resource: Resource) -> str:
    return resource.key.name


class Policies:
    """Policy resources by kind, sorted; the same object until one changes."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Resource]] = {}
        self._published: Mapping[str, tuple[Resource, ...]] | None = None

    def set(self, kind: str, name: str, resource: Resource | None) -> None:
        """Replace or, with None, remove one."""
        of_kind = self.items.setdefault(kind, {})
        of_kind.pop(name, None)
        if resource is not None:
            of_kind[name] = resource
        self._published = None

    def published(self) -> Mapping[str, tuple[Resource, ...]]:
        """Those of each kind that has any."""
        if self._published is None:
            self._published = MappingProxyType(
                {
                    kind: tuple(of_kind[name] for name in sorted(of_kind))
                    for kind, of_kind in sorted(self.items.items())
                    if of_kind
                }
            )
        return self._published


@dataclass(slots=True)
class MeshState:
    """One mesh: what is known, what was built of it, and what has to be built again."""

    index: MeshIndex = field(default_factory=MeshIndex)
    resource: Resource | None = None
    dataplanes: "Section[Resource]" = field(default_factory=lambda: Section(_name_of_resource))
    policies: Policies = field(default_factory=Policies)
    instances: Counts = field(default_factory=dict)
    services: "Section[ServiceView]" = field(default_factory=lambda: Section(_name_of))
    egress: "Section[ServiceView]" = field(default_factory=lambda: Section(_name_of))
    ingress: "Section[ServiceView]" = field(default_factory=lambda: Section(_name_of))
    vips: Mapping[str, Vip] = field(default_factory=lambda: MappingProxyType({}))
    reasons: dict[str, str] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)
    entries: tuple[VipEntry, ...] = ()
    digest: Digest = field(default_factory=Digest)
    touched: set[str] = field(default_factory=set)
    respelled: dict[str, str] = field(default_factory=dict)
    """Services whose spelling changed since ``entries`` was made, in lower case; "": it is gone."""
    externals_touched: bool = True
    external_names: frozenset[str] = frozenset()
    vips_stale: bool = True
    addresses: Mapping[VipKey, IPv4Address] | None = None
    """Those with which ``vips`` was made."""
    changed: bool = True
    """Something besides services has changed (the Mesh, its Dataplanes, its policies)."""
    view: MeshView | None = None
