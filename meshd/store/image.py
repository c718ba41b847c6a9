"""The committed state in memory, and the plan of a write against it: what both stores share.

Pure but for the bookkeeping of ``Image`` itself: planning decides everything (expectations, no-op edits, cascades,
versions and times) before anything is written, so a database has only to store the outcome.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from meshd.model.errors import ConflictError, NotFoundError
from meshd.model.resource import Resource, ResourceKey
from meshd.store.store import Create, Delete, Edit, Put, Update


class Image:
    """Every committed resource, by key, by kind and by owner.

    ``revision`` is the highest version ever given out by this store: versions are taken from it, so that a key that
    was deleted and made again never comes back at a version that somebody still remembers.
    """

    def __init__(self, resources: Iterable[Resource] = (), revision: int = 0) -> None:
        self.revision = revision
        self._by_kind: dict[str, dict[ResourceKey, Resource]] = defaultdict(dict)
        self._owned: dict[ResourceKey, set[ResourceKey]] = defaultdict(set)
        self._lists: dict[tuple[str, str | None], _Sorted] = {}
        for resource in resources:
            self._set(resource)
            self.revision = max(self.revision, resource.version)

    def get(self, key: ResourceKey) -> Resource | None:
        """The resource, or None."""
        of_kind = self._by_kind.get(key.kind)
        return of_kind.get(key) if of_kind else None

    def list(self, kind: str, mesh: str | None = None) -> tuple[Resource, ...]:
        """Every resource of a kind (of one mesh if given), sorted by key."""
        found = self._lists.get((kind, mesh))
        if found is None:
            rows = self._by_kind.get(kind, {}).values()
            found = self._lists[kind, mesh] = _Sorted(r for r in rows if mesh is None or r.key.mesh == mesh)
        return found.as_tuple()

    def owned_by(self, owner: ResourceKey) -> tuple[Resource, ...]:
        """Every resource whose owner is ``owner``, sorted by key."""
        found = (self.get(key) for key in sorted(self._owned.get(owner, ())))
        return tuple(r for r in found if r is not None)

    def apply(self, plan: "Plan") -> None:
        """Make what a plan decided the committed state."""
        for key, resource in plan.changes.items():
            self._forget(key)
            if resource is not None:
                self._set(resource)
            for at in ((key.kind, None), (key.kind, key.mesh)):
                if at in self._lists:
                    self._lists[at].change(key, resource)
        self.revision = plan.revision

    def _set(self, resource: Resource) -> None:
        self._by_kind[resource.key.kind][resource.key] = resource
        if resource.owner is not None:
            self._owned[resource.owner].add(resource.key)

    def _forget(self, key: ResourceKey) -> None:
        old = self._by_kind[key.kind].pop(key, None)
        if old is not None and old.owner is not None:
            siblings = self._owned[old.owner]
            siblings.discard(key)
            if not siblings:
                del self._owned[old.owner]


class _Sorted:
    """Resources in order of mesh and name; a change costs a search, not a sort."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._rows = sorted(resources, key=_place)
        self._places = [_place(resource) for resource in self._rows]
        self._tuple: tuple[Resource, ...] | None = None

    def as_tuple(self) -> tuple[Resource, ...]:
        """All of them; the same object until something changes."""
        if self._tuple is None:
            self._tuple = tuple(self._rows)
        return self._tuple

    def change(self, key: ResourceKey, resource: Resource | None) -> None:
        """Put ``resource`` in the place of ``key``, or remove what is there."""
        place = (key.mesh, key.name)
        i = bisect_left(self._places, place)
        is_there = i < len(self._places) and self._places[i] == place
        self._rows[i : i + is_there] = [] if resource is None else [resource]
        self._places[i : i + is_there] = [] if resource is None else [place]
        self._tuple = None


def _place(resource: Resource) -> tuple[str, str]:
    return resource.key.mesh, resource.key.name


@dataclass(frozen=True, slots=True)
class Plan:
    """What a write comes to: ``changes`` (None deletes), the answer per edit, and the revision after it."""

    changes: Mapping[ResourceKey, Resource | None]
    results: tuple[Resource | None, ...]
    revision: int


class State(Protocol):
    """What a plan is made against: an ``Image``, or ``Staged`` changes over one."""

    revision: int

    def get(self, key: ResourceKey) -> Resource | None:
        """The resource, or None."""

    def owned_by(self, owner: ResourceKey) -> tuple[Resource, ...]:
        """Every resource whose owner is ``owner``."""


def plan(state: State, edits: Sequence[Edit], now: datetime) -> Plan:
    """Decide what ``edits`` do to ``state``, in order, each seeing the ones before it; ``state`` stays as it is.

    Raises:
        ConflictError, NotFoundError: as ``Store.write`` says; a resource whose owner is absent is a NotFoundError too.
    """
    staged = Staged(state)
    results: list[Resource | None] = []
    for edit in edits:
        if isinstance(edit, Delete):
            _delete(staged, edit)
            results.append(None)
        else:
            results.append(_store(staged, edit, now))
    changes = staged.net_changes()
    for resource in changes.values():
        if resource is not None and resource.owner is not None and staged.get(resource.owner) is None:
            raise NotFoundError(f"{resource.key}: its owner {resource.owner} does not exist")
    return Plan(changes, tuple(results), staged.revision if changes else state.revision)


class Staged:
    """A state with changes laid over it that are not committed yet."""

    def __init__(self, base: State) -> None:
        self._base = base
        self._changes: dict[ResourceKey, Resource | None] = {}
        self.revision = base.revision

    def get(self, key: ResourceKey) -> Resource | None:
        """See ``State``."""
        return self._changes[key] if key in self._changes else self._base.get(key)

    def owned_by(self, owner: ResourceKey) -> tuple[Resource, ...]:
        """See ``State``."""
        before = [r for r in self._base.owned_by(owner) if r.key not in self._changes]
        return (*before, *(r for r in self._changes.values() if r is not None and r.owner == owner))

    def set(self, key: ResourceKey, resource: Resource | None) -> None:
        """Lay one change over what is there."""
        self._changes[key] = resource

    def absorb(self, decided: Plan) -> None:
        """Lay a whole plan that was made against this over it."""
        self._changes.update(decided.changes)
        self.revision = decided.revision

    def net_changes(self) -> dict[ResourceKey, Resource | None]:
        """The changes, without those that were made and undone again."""
        return {k: r for k, r in self._changes.items() if r is not None or self._base.get(k) is not None}


def _store(staged: Staged, edit: Create | Update | Put, now: datetime) -> Resource:
    wanted = edit.resource
    current = staged.get(wanted.key)
    if isinstance(edit, Create) and current is not None:
        raise ConflictError(f"{wanted.key} exists already, at version {current.version}")
    if isinstance(edit, Update):
        if current is None:
            raise NotFoundError(f"{wanted.key} does not exist")
        if current.version != wanted.version:
            raise ConflictError(
                f"{wanted.key} was changed by somebody else: it is at version {current.version}, "
                f"the update was made from version {wanted.version}"
            )
    if current is not None and current.same_content(wanted):
        return current
    staged.revision += 1
    created = current.created if current is not None else now
    stored = replace(wanted, version=staged.revision, created=created, modified=now)
    staged.set(wanted.key, stored)
    return stored


def _delete(staged: Staged, edit: Delete) -> None:
    current = staged.get(edit.key)
    if current is None:
        if edit.missing_ok:
            return
        raise NotFoundError(f"{edit.key} does not exist")
    if edit.version and edit.version != current.version:
        raise ConflictError(
            f"{edit.key} was changed by somebody else: it is at version {current.version}, "
            f"the deletion was meant for version {edit.version}"
        )
    doomed = [edit.key]
    while doomed:
        key = doomed.pop()
        if staged.get(key) is not None:
            staged.set(key, None)
            doomed += [resource.key for resource in staged.owned_by(key)]
    staged.revision += 1
