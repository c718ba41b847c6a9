"""The store in a SQLite file: survives ``kill -9`` and power loss at any point; one process at a time.

Group commit: the first write that finds the database idle plans all that wait, one after the other, and commits them
together, one ``fsync`` for all; those that come meanwhile are the next group. Reads never wait; they see the image as
of the last commit.
"""

import logging
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import trio
from sqlalchemy.dialects.sqlite import insert

from meshd.model.errors import UnavailableError
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.store.feeds import Feeds
from meshd.store.image import Image, Plan, Staged, plan
from meshd.store.rows import Quarantined, from_row, to_row
from meshd.store.sqlite_file import StoreFileError, check, claimed, connect, meta, quarantine, resources
from meshd.store.store import ChangeFeed, Edit
from meshd.store.worker import Worker

log = logging.getLogger(__name__)

GROUP = 256
"""Writes that share a commit at most, so that none waits for an endless queue."""

Row = Mapping[str, Any]


@dataclass(slots=True, eq=False)
class _Request:
    """A write that waits until ``results`` or ``error`` is set."""

    edits: Sequence[Edit]
    is_taken: bool = False
    results: tuple[Resource | None, ...] | None = None
    error: Exception | None = None


class SqliteStore:
    """``Store`` in a SQLite file. Make it with ``SqliteStore.open``."""

    def __init__(
        self, path: Path, registry: Registry, now: Callable[[], datetime], database: "_Database", worker: Worker
    ) -> None:
        self.path = path
        self.quarantined: tuple[Quarantined, ...] = ()
        """Rows that could not be decoded when the file was opened; they stay in it."""
        self._rewritten: set[ResourceKey] = set()
        self._registry = registry
        self._now = now
        self._database = database
        self._worker = worker
        self._image = Image()
        self._feeds = Feeds()
        self._waiting: deque[_Request] = deque()
        self._committing = trio.Lock()
        self._closed = False

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, registry: Registry, now: Callable[[], datetime]) -> "AsyncIterator[SqliteStore]":
        """The store of ``path``, made if it is not there; owns a thread.

        A row that cannot be decoded is logged, listed in ``quarantined`` and left alone; if its key is written again,
        the old row moves to the table ``quarantine``.

        Raises:
            StoreFileError: another process has the file, it is damaged, foreign or newer; it was not touched.
        """
        worker = Worker(f"sqlite {path.name}")
        store = cls(path, registry, now, _Database(path), worker)
        try:
            await store._load()
            yield store
        finally:
            store._closed = True
            with trio.CancelScope(shield=True):  # a commit that has begun is brought to its end; it is short
                async with store._committing:
                    await worker.run(store._database.close)
            worker.stop()

    async def _load(self) -> None:
        loaded = await self._worker.run(lambda: self._database.open(self._registry))
        for row in loaded.quarantined:
            # What stands in a damaged row may be no text at all: say it in characters that every log can hold.
            said = f"resource={row.key} reason={row.reason}".encode(errors="backslashreplace").decode()
            log.error("stored resource cannot be decoded %s", said)
        self.quarantined = loaded.quarantined
        self._image = Image(loaded.resources, loaded.revision)

    def get(self, key: ResourceKey) -> Resource | None:
        """See ``Store``."""
        return self._image.get(key)

    def list(self, kind: str, mesh: str | None = None) -> tuple[Resource, ...]:
        """See ``Store``."""
        return self._image.list(kind, mesh)

    def owned_by(self, owner: ResourceKey) -> tuple[Resource, ...]:
        """See ``Store``."""
        return self._image.owned_by(owner)

    def watch(self, kinds: Iterable[str] | None = None) -> ChangeFeed:
        """See ``Store``."""
        return self._feeds.watch(kinds)

    def unreadable(self) -> Mapping[ResourceKey, str]:
        """See ``Store``."""
        return {row.key: row.reason for row in self.quarantined if row.key not in self._rewritten}

    async def write(self, edits: Sequence[Edit]) -> tuple[Resource | None, ...]:
        """See ``Store``. Also UnavailableError once the store is closed."""
        await trio.lowlevel.checkpoint()
        request = _Request(edits)
        self._waiting.append(request)
        try:
            async with self._committing:
                if not request.is_taken:  # else somebody before us has taken it along
                    if self._closed:
                        raise UnavailableError(f"database {self.path}: is closed")
                    with trio.CancelScope(shield=True):
                        await self._commit([self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))])
        finally:
            if not request.is_taken:  # cancelled, or closed, before it was begun: it never happened
                self._waiting.remove(request)
        if request.error is not None:
            raise request.error
        if request.results is None:  # a bug in the store: the request was taken and never answered
            raise RuntimeError(f"database {self.path}: a write has no outcome")
        return request.results

    async def _commit(self, group: Sequence[_Request]) -> None:
        """Plan every request on top of those before it, commit all together, then let them be seen and told."""
        staged = Staged(self._image)
        now = self._now()
        planned: list[tuple[_Request, Plan]] = []
        rows: dict[ResourceKey, Row | None] = {}
        for request in group:
            request.is_taken = True
            try:
                decided = plan(staged, request.edits, now)
                made = {k: None if r is None else to_row(r, self._registry) for k, r in decided.changes.items()}
            except Exception as error:  # noqa: BLE001 - request edge: what is wrong with one write costs only that one
                request.error = error
                continue
            staged.absorb(decided)
            rows |= made
            planned.append((request, decided))
        changes = staged.net_changes()
        if changes:
            try:
                await self._worker.run(lambda: self._database.commit(rows, staged.revision))
            except (sa.exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
                cause = getattr(error, "orig", None) or error
                log.warning("database refuses to write path=%s reason=%s", self.path, cause)
                for request, _ in planned:
                    request.error = UnavailableError(f"database {self.path}: nothing was written: {cause}")
                return
            except Exception as error:  # noqa: BLE001 - a value that no database takes; nothing was written
                for request, _ in planned:
                    request.error = error
                return
            self._image.apply(Plan(changes, (), staged.revision))
            self._rewritten |= changes.keys()
            self._feeds.mark(changes)
        for request, decided in planned:
            request.results = decided.results


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What was in the file."""

    resources: tuple[Resource, ...]
    quarantined: tuple[Quarantined, ...]
    revision: int


class _Database:
    """The blocking side; every method runs in the worker's thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = ExitStack()
        self._connection: sa.Connection | None = None
        self._undecodable: set[ResourceKey] = set()

    def open(self, registry: Registry) -> _Loaded:
        """Claim, check and open the file, and read all of it."""
        self._held.enter_context(claimed(self._path))
        check(self._path)
        engine = connect(self._path)
        self._held.callback(engine.dispose)
        self._connection = self._held.enter_context(engine.connect())
        try:
            with self._connection.begin():
                rows = self._connection.execute(sa.select(resources)).mappings().all()
                revision = self._connection.execute(_REVISION).scalar_one()
        except sa.exc.SQLAlchemyError as error:
            raise StoreFileError(f"database {self._path}: cannot be read: {error}") from error
        decoded = [from_row(dict(row), registry) for row in rows]
        broken = tuple(r for r in decoded if isinstance(r, Quarantined))
        self._undecodable = {row.key for row in broken}
        return _Loaded(tuple(r for r in decoded if isinstance(r, Resource)), broken, revision)

    def commit(self, rows: Mapping[ResourceKey, Row | None], revision: int) -> None:
        """Write rows (None deletes) and the revision, all or nothing, on the disk when it returns."""
        if self._connection is None:
            raise sqlite3.OperationalError("the database is not open")
        gone = [{"k": key.kind, "m": key.mesh, "n": key.name} for key, row in rows.items() if row is None]
        kept = [row for row in rows.values() if row is not None]
        with self._connection.begin():
            for key in self._undecodable & rows.keys():
                self._connection.execute(_move_to_quarantine(key))
            if gone:
                self._connection.execute(_DELETE, gone)
            if kept:
                self._connection.execute(_UPSERT, kept)
            self._connection.execute(meta.update().where(meta.c.key == "revision").values(value=revision))
        self._undecodable -= rows.keys()

    def close(self) -> None:
        """Let go of the file."""
        self._connection = None
        self._held.close()


_REVISION = sa.select(meta.c.value).where(meta.c.key == "revision")
_DELETE = resources.delete().where(
    resources.c.kind == sa.bindparam("k"),
    resources.c.mesh == sa.bindparam("m"),
    resources.c.name == sa.bindparam("n"),
)
_INSERT = insert(resources)
_UPSERT = _INSERT.on_conflict_do_update(
    index_elements=["kind", "mesh", "name"],
    set_={c.name: _INSERT.excluded[c.name] for c in resources.c if not c.primary_key},
)


def _move_to_quarantine(key: ResourceKey) -> sa.Insert:
    names = [c.name for c in resources.c]
    row = sa.select(*(resources.c[name] for name in names)).where(
        resources.c.kind == key.kind, resources.c.mesh == key.mesh, resources.c.name == key.name
    )
    return sa.insert(quarantine).from_select(names, row)
