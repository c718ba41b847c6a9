"""Everything that one role sends, encoded once however many streams carry it. Pure but for its own bookkeeping."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from meshd.discovery.messages import Entry
from meshd.kds.envelope import encode
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.model.resource_type import ResourceType

Cross = Callable[[ResourceType, Resource], Resource | None]
"""How a stored resource leaves; None if it does not, ``ValueError`` if it should but cannot."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One encoded resource and the stored one that it was made of."""

    entry: Entry
    source: Resource


class Outbox:
    """The outgoing resources by kind and wire name. ``refused`` are those that could not be encoded, and why.

    ``withheld`` are kinds of which nothing is to be sent, and why: see ``withhold``; ``held_back`` single
    resources, see ``hold_back``. Reads like ``session.Offer``.
    """

    def __init__(self, registry: Registry, kinds: Iterable[str], cross: Cross) -> None:
        self._registry = registry
        self._cross = cross
        self._by_name: dict[str, dict[str, Outgoing]] = {kind: {} for kind in kinds}
        self._name_of: dict[ResourceKey, str] = {}
        self.refused: dict[ResourceKey, str] = {}
        self.withheld: Mapping[str, str] = {}
        self.held_back: dict[ResourceKey, str] = {}

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that are sent at all."""
        return frozenset(self._by_name)

    def update(
        self, keys: Iterable[ResourceKey], get: Callable[[ResourceKey], Resource | None]
    ) -> Mapping[str, set[str]]:
        """Look at these keys again; returns the wire names that changed, by kind.

        What cannot be encoded keeps its last good form: leaving it out would delete it at the other end.
        """
        changed: dict[str, set[str]] = defaultdict(set)
        for key in keys:
            entries = self._by_name.get(key.kind)
            if entries is None:
                continue
            old_name = self._name_of.get(key)
            try:
                outgoing = self._outgoing(key, get(key))
            except ValueError as error:
                self.refused[key] = str(error)
                continue
            self.refused.pop(key, None)
            new_name = outgoing.entry.name if outgoing else None
            if old_name is not None and old_name != new_name:
                del entries[old_name], self._name_of[key]
                changed[key.kind].add(old_name)
            if outgoing is not None and new_name is not None:
                before = entries.get(new_name)
                entries[new_name] = outgoing
                self._name_of[key] = new_name
                if before is None or before.entry.version != outgoing.entry.version:
                    changed[key.kind].add(new_name)
        return changed

    def withhold(self, unreadable: Iterable[ResourceKey]) -> frozenset[str]:
        """Send nothing of the kinds that these belong to; returns the kinds that are withheld no more.

        ``unreadable`` is what is stored and cannot be read. The first response of a kind is all there is of it, so
        without such a resource the other end would delete its copy: a Deny could vanish. Better nothing new than that.
        """
        by_kind: dict[str, list[str]] = defaultdict(list)
        for key in sorted(unreadable):
            if key.kind in self._by_name:
                by_kind[key.kind].append(str(key))
        before, self.withheld = self.withheld, {kind: ", ".join(keys) for kind, keys in by_kind.items()}
        return frozenset(before.keys() - self.withheld.keys())

    def hold_back(self, kind: str, reasons: Mapping[ResourceKey, str]) -> set[str]:
        """Leave out these resources of a kind, as stored, and no others; returns the wire names that this concerns."""
        before = {key for key in self.held_back if key.kind == kind}
        for key in before:
            del self.held_back[key]
        self.held_back.update(reasons)
        return {name for key in before ^ reasons.keys() if (name := self._name_of.get(key)) is not None}

    def sources(self, kind: str) -> Mapping[str, ResourceKey]:
        """The keys of the stored resources of a kind that leave, by wire name."""
        return {name: outgoing.source.key for name, outgoing in self._by_name.get(kind, {}).items()}

    def is_withheld(self, kind: str) -> bool:
        """See ``session.Offer``."""
        return kind in self.withheld

    def kept_back(self, kind: str) -> str:
        """See ``session.Offer``."""
        reasons = {**self.refused, **self.held_back}
        return "; ".join(f"{key}: {reasons[key]}" for key in sorted(reasons) if key.kind == kind)

    def _outgoing(self, key: ResourceKey, resource: Resource | None) -> Outgoing | None:
        if resource is None:
            return None
        type_ = self._registry[key.kind]
        sent = self._cross(type_, resource)
        return None if sent is None else Outgoing(encode(type_, sent), resource)

    def find(self, type_url: str, name: str) -> Outgoing | None:
        """The outgoing resource, or None."""
        outgoing = self._by_name.get(type_url, {}).get(name)
        return None if outgoing is None or outgoing.source.key in self.held_back else outgoing

    def get(self, type_url: str, name: str) -> Entry | None:
        """See ``discovery.Resources``."""
        outgoing = self.find(type_url, name)
        return None if outgoing is None else outgoing.entry

    def names(self, type_url: str) -> Iterable[str]:
        """See ``discovery.Resources``."""
        return tuple(self._by_name.get(type_url, ()))
