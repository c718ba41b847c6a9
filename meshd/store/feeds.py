"""The open change feeds of a store."""

from collections.abc import Iterable

from meshd.model.resource import ResourceKey
from meshd.store.store import ChangeFeed


class Feeds:
    """Hands out feeds and tells all of them what was committed."""

    def __init__(self) -> None:
        self._open: dict[int, ChangeFeed] = {}

    def watch(self, kinds: Iterable[str] | None) -> ChangeFeed:
        """A new feed, from now on."""
        feed = ChangeFeed(frozenset(kinds) if kinds is not None else None, self._forget)
        self._open[id(feed)] = feed
        return feed

    def mark(self, keys: Iterable[ResourceKey]) -> None:
        """Announce committed changes to every open feed."""
        keys = tuple(keys)
        for feed in self._open.values():
            feed.mark(keys)

    def _forget(self, feed: ChangeFeed) -> None:
        self._open.pop(id(feed), None)
