"""A store that lives as long as its process: for tests, trying, and zones that may start anew."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import trio

from meshd.model.resource import Resource, ResourceKey
from meshd.store.feeds import Feeds
from meshd.store.image import Image, plan
from meshd.store.store import ChangeFeed, Edit


class MemoryStore:
    """``Store`` without a disk. ``now`` gives the UTC time for stamps."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._image = Image()
        self._feeds = Feeds()

    def get(self, key: ResourceKey) -> Resource | None:
        """See ``Store``."""
        return self._image.get(key)

    def list(self, kind: str, mesh: str | None = None) -> tuple[Resource, ...]:
        """See ``Store``."""
        return self._image.list(kind, mesh)

    def owned_by(self, owner: ResourceKey) -> tuple[Resource, ...]:
        """See ``Store``."""
        return self._image.owned_by(owner)

    def unreadable(self) -> Mapping[ResourceKey, str]:
        """See ``Store``: there is nothing to decode."""
        return {}

    async def write(self, edits: Sequence[Edit]) -> tuple[Resource | None, ...]:
        """See ``Store``."""
        await trio.lowlevel.checkpoint()  # before, so that a cancelled write has changed nothing
        decided = plan(self._image, edits, self._now())
        self._image.apply(decided)
        self._feeds.mark(decided.changes)
        return decided.results

    def watch(self, kinds: Iterable[str] | None = None) -> ChangeFeed:
        """See ``Store``."""
        return self._feeds.watch(kinds)
