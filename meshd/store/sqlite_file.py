"""The SQLite file itself: claimed, looked at before anything is written, opened, brought to the newest schema.

Layout: ``resources`` has a row per resource, ``meta`` the revision, ``quarantine`` the rows that could not be decoded
and whose key was written again. The database's application id and user version say whose it is and how new.
"""

import fcntl
import os
import sqlite3
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from meshd.model.errors import MeshdError

APPLICATION_ID = int.from_bytes(b"mesh")
_MAGIC = b"SQLite format 3\x00"
BUSY_MS = 2000
"""How long a write waits for somebody who holds the file, such as a backup program."""


class StoreFileError(MeshdError):
    """The database file cannot be used as it is; names the file and what to do. The file was not touched."""


metadata = sa.MetaData()
_COLUMNS: tuple[tuple[str, type[Any], bool], ...] = (
    ("spec", sa.Text, False),
    ("labels", sa.Text, False),
    ("status", sa.Text, True),
    ("owner_kind", sa.Text, True),
    ("owner_mesh", sa.Text, True),
    ("owner_name", sa.Text, True),
    ("version", sa.Integer, False),
    ("created", sa.Text, False),
    ("modified", sa.Text, False),
    ("wire", sa.LargeBinary, True),
)
resources = sa.Table(
    "resources",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("mesh", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    *(sa.Column(name, type_, nullable=nullable) for name, type_, nullable in _COLUMNS),
    sqlite_with_rowid=False,
)
quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("mesh", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    *(sa.Column(name, type_, nullable=True) for name, type_, _ in _COLUMNS),
)
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)


def _first_schema(connection: sa.Connection) -> None:
    metadata.create_all(connection)
    connection.execute(meta.insert().values(key="revision", value=0))


MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (_first_schema,)
"""The n-th brings a database of user version n to n + 1, within one transaction."""


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """The file, made (mode 0600) if it is not there, and ours alone while this lasts.

    Raises:
        StoreFileError: it is a directory, may not be opened, or somebody has it already.
    """
    taken = f"database {path}: another meshd uses it; stop that one or give this one its own store.sqlite.path"
    with suppress(OSError):
        if _identity(path.stat()) in _MINE:
            # not even opened: closing any descriptor of a file drops all POSIX locks that a process has on it
            raise StoreFileError(taken)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreFileError(f"database {path}: cannot be opened: {error.strerror}") from error
    mine = _identity(os.fstat(descriptor))
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreFileError(taken) from None
        _MINE.add(mine)
        try:
            yield
        finally:
            _MINE.discard(mine)
    finally:
        os.close(descriptor)


_MINE: set[tuple[int, int]] = set()
"""Device and inode of every database that this process has open."""


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def check(path: Path) -> None:
    """Look at the whole file without changing it.

    Raises:
        StoreFileError: it is no SQLite database, not one of meshd, newer than this meshd, or damaged.
    """
    size = path.stat().st_size
    if size == 0:
        return
    with path.open("rb") as file:
        header = file.read(100)
    if not header.startswith(_MAGIC) or len(header) < 100:
        raise StoreFileError(f"database {path}: is not a SQLite database; move it away or set store.sqlite.path")
    beside = [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]
    new = [p for p in beside if not p.exists()]
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            is_new = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            problems = [row[0] for row in connection.execute("PRAGMA quick_check(5)")]
    except (sqlite3.Error, UnicodeError) as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise StoreFileError(f"database {path}: another program holds it locked; end that one") from error
        raise StoreFileError(f"database {path}: is damaged ({error}); {_RESTORE}") from error
    finally:
        for made in new:  # SQLite's index of the log, made by looking
            with suppress(FileNotFoundError):
                made.unlink()
    if problems != ["ok"]:
        raise StoreFileError(f"database {path}: is damaged ({'; '.join(problems)}); {_RESTORE}")
    if is_new and application == version == 0:  # a first start was cut short
        return
    if application != APPLICATION_ID:
        found = struct.pack(">I", application & 0xFFFFFFFF)
        raise StoreFileError(f"database {path}: belongs to another program (application id {found!r})")
    if version > len(MIGRATIONS):
        raise StoreFileError(
            f"database {path}: was written by a newer meshd (schema {version}, this one knows {len(MIGRATIONS)}); "
            "use that version"
        )


_RESTORE = "restore a backup together with its -wal file, or move it away to start empty"


_PRAGMAS = (
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "synchronous = FULL",  # a commit is on the disk before it is told: survives losing power
    "trusted_schema = OFF",
    "cell_size_check = ON",
)


def connect(path: Path) -> sa.Engine:
    """An engine with one connection, for one thread, on the newest schema.

    Raises:
        StoreFileError: somebody who is no meshd holds the file, or it cannot be written.
    """

    def raw() -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_MS / 1000)
        connection.text_factory = _text
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            connection.close()  # it may hold locks
            raise
        return connection

    for file in (path, path.with_name(path.name + "-wal")):  # keys and tokens are in there
        with suppress(FileNotFoundError):
            if stat.S_IMODE(file.stat().st_mode) & 0o077:
                file.chmod(0o600)
    engine = sa.create_engine("sqlite://", creator=raw, poolclass=StaticPool)
    sa.event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            for migrate in MIGRATIONS[version:]:
                migrate(connection)
            if version < len(MIGRATIONS):
                connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.exec_driver_sql(f"PRAGMA user_version = {len(MIGRATIONS)}")
    except (sa.exc.DBAPIError, sqlite3.Error) as error:
        engine.dispose()
        cause = getattr(error, "orig", None) or error
        raise StoreFileError(f"database {path}: cannot be opened for writing: {cause}") from error
    return engine


def _text(data: bytes) -> str:
    # a damaged text must not stop the other rows from being read; rows.py finds it by its surrogates
    return data.decode(errors="surrogateescape")


def _begin(connection: sa.Connection) -> None:
    # the driver would begin late and by itself; IMMEDIATE takes the write lock where an error can still be told
    connection.exec_driver_sql("BEGIN IMMEDIATE")
