"""A cell with one writer and many readers, where the newest value wins and nothing queues."""

from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Latest(Generic[T]):
    """Holds the newest value and its sequence number (1 for the first).

    A reader that is slow misses the values in between, never the last one.
    """

    __slots__ = ("_changed", "_value", "_version")

    def __init__(self, value: T) -> None:
        self._value = value
        self._version = 1
        self._changed = trio.Event()

    @property
    def value(self) -> T:
        """The newest value; take it once per unit of work and keep it."""
        return self._value

    @property
    def version(self) -> int:
        """How many values there have been."""
        return self._version

    def publish(self, value: T) -> None:
        """Replace the value and wake every waiting reader."""
        self._value = value
        self._version += 1
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def newer_than(self, seen: int) -> tuple[int, T]:
        """Wait until the version is above ``seen`` (0: return at once), then return version and value."""
        while self._version <= seen:
            await self._changed.wait()
        return self._version, self._value
