"""Being told of changes in many cells that come and go."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import trio

from meshd.runtime.latest import Latest

K = TypeVar("K")


class Following(Generic[K]):
    """Calls ``changed`` with the key of a cell when it is first followed and whenever its value changes.

    ``run`` must be running for that; it owns a task for each cell.
    """

    def __init__(self, changed: Callable[[K], None]) -> None:
        self._changed = changed
        self._cells: dict[K, tuple[Latest[Any], trio.CancelScope]] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for key, (cell, scope) in self._cells.items():
                nursery.start_soon(self._follow, key, cell, scope)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def follow(self, key: K, cell: Latest[Any]) -> None:
        """Follow this cell under this key; another one that was is followed no more."""
        if key in self._cells:
            if self._cells[key][0] is cell:
                return
            self.forget(key)
        scope = trio.CancelScope()
        self._cells[key] = (cell, scope)
        if self._nursery is not None:
            self._nursery.start_soon(self._follow, key, cell, scope)

    def forget(self, key: K) -> None:
        """Follow nothing under this key."""
        found = self._cells.pop(key, None)
        if found is not None:
            found[1].cancel()

    async def _follow(self, key: K, cell: Latest[Any], scope: trio.CancelScope) -> None:
        with scope:
            seen = 0
            while True:
                seen, _ = await cell.newer_than(seen)
                if scope.cancel_called:  # it was forgotten after the value came, and before this had its turn
                    return
                self._changed(key)
