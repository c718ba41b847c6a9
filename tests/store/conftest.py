from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meshd.kinds import KINDS
from meshd.kinds.config import Config
from meshd.model.registry import Registry
from meshd.model.resource_type import Flow, ResourceType, Scope
from meshd.store.memory import MemoryStore
from meshd.store.sqlite import SqliteStore
from meshd.store.store import Store

WIDGET = ResourceType(
    kind="Widget", path="widgets", scope=Scope.GLOBAL, flow=Flow.NONE, spec=Config, status=Config, doc="", flat=False
)
"""A JSON kind with a status, which none of the built-in ones is."""
REGISTRY = Registry([*KINDS, WIDGET])
OpenStore = Callable[[], AbstractAsyncContextManager[Store]]


class Clock:
    """Starts on a fixed day; every look at it is a second later."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> OpenStore:
    """How to open a store of each implementation; the contract holds for both."""

    @asynccontextmanager
    async def memory() -> AsyncIterator[Store]:
        yield MemoryStore(clock)

    @asynccontextmanager
    async def sqlite() -> AsyncIterator[Store]:
        async with SqliteStore.open(tmp_path / "store.db", REGISTRY, clock) as store:
            yield store

    return memory if request.param == "memory" else sqlite
