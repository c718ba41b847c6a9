"""The store protocol: optimistic versions, ownership, and a change feed.

A store keeps the committed state in memory, so that reading it needs no ``await`` and is always consistent; writing
is a transaction that is durable before it is visible. A later PostgreSQL store with several replicas refreshes the
same image from notifications.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import trio

from meshd.model.resource import Resource, ResourceKey


@dataclass(frozen=True, slots=True)
class Create:
    """Store a resource that must not exist yet (``ConflictError`` otherwise)."""

    resource: Resource


@dataclass(frozen=True, slots=True)
class Update:
    """Replace a resource that must still be at ``resource.version``.

    ``ConflictError`` if it is at another version, ``NotFoundError`` if it is gone.
    """

    resource: Resource


@dataclass(frozen=True, slots=True)
class Put:
    """Store a resource whatever is there; for writers that own the key and are alone, as KDS and computed kinds are."""

    resource: Resource


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a resource and, with it, everything it owns.

    ``version`` 0 removes any version; ``missing_ok`` makes an absent key no error.
    """

    key: ResourceKey
    version: int = 0
    missing_ok: bool = False


Edit = Create | Update | Put | Delete


class Store(Protocol):
    """See the module. ``kind`` and ``mesh`` filters are exact; lists are sorted by key."""

    def get(self, key: ResourceKey) -> Resource | None:
        """The resource as last committed, or None."""

    def list(self, kind: str, mesh: str | None = None) -> tuple[Resource, ...]:
        """Every resource of a kind, of one mesh if ``mesh`` is given."""

    def owned_by(self, owner: ResourceKey) -> tuple[Resource, ...]:
        """Every resource whose owner is ``owner``."""

    def unreadable(self) -> Mapping[ResourceKey, str]:
        """What is stored and cannot be decoded, with the reason, until its key is written again; no list has it."""

    async def write(self, edits: Sequence[Edit]) -> tuple[Resource | None, ...]:
        """Apply all edits or none; returns what is now stored for each (None for a delete).

        An edit whose content equals what is stored changes nothing: same version, no change is announced. Stamps
        versions (from one counter for the whole store, so a version never comes back) and times. Durable when it
        returns. Safe to cancel: the edits are then either all in or all out.

        Raises:
            ConflictError: an expectation of Create, Update or Delete did not hold; names the key and both versions.
            NotFoundError: Update or Delete of an absent key, or an owner that does not exist.
            UnavailableError: the database is away; nothing was written.
        """

    def watch(self, kinds: Iterable[str] | None = None) -> "ChangeFeed":
        """A feed of changes from now on, for these kinds or for all. Close it when done (it is a context manager)."""


class ChangeFeed:
    """The keys that changed since they were last taken. Owned by its reader."""

    def __init__(self, kinds: frozenset[str] | None, closed: "ClosedHook") -> None:
        self._kinds = kinds
        self._closed = closed
        self._dirty: set[ResourceKey] = set()
        self._wake = trio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed(self)

    def mark(self, keys: Iterable[ResourceKey]) -> None:
        """For stores: announce committed changes."""
        self._dirty.update(k for k in keys if self._kinds is None or k.kind in self._kinds)
        if self._dirty:
            self._wake.set()

    async def take(self) -> frozenset[ResourceKey]:
        """Wait until something changed, then return all of it and start anew."""
        await self._wake.wait()
        return self.take_now()

    def take_now(self) -> frozenset[ResourceKey]:
        """What changed so far, maybe nothing, without waiting."""
        taken, self._dirty = frozenset(self._dirty), set()
        self._wake = trio.Event()
        return taken


class ClosedHook(Protocol):
    """How a feed tells its store that it is gone."""

    def __call__(self, feed: ChangeFeed, /) -> None:
        """Forget the feed."""
