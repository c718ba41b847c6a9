"""How the services of this package run what blocks: key generation and files."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Offload(Protocol):
    """Runs a blocking function somewhere and returns what it returns; ``trio.to_thread.run_sync`` is one."""

    def __call__(self, sync_fn: Callable[[], T], /) -> Awaitable[T]:
        """Run ``sync_fn``."""


async def in_place(sync_fn: Callable[[], T], /) -> T:
    """Run it here and now: for tests in virtual time, whose clock would run away while a thread works."""
    return sync_fn()
