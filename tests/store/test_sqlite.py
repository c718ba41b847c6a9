"""What is particular to the SQLite store: its file, its failures, and what a killed process leaves behind."""

import dataclasses
import logging
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from meshd.kinds.config import Config
from meshd.model.errors import UnavailableError
from meshd.model.resource import Resource, ResourceKey
from meshd.store.sqlite import SqliteStore
from meshd.store.sqlite_file import StoreFileError
from meshd.store.store import Create, Delete, Put
from tests.store.conftest import REGISTRY, WIDGET
from tests.store.writer_process import TEXT


def config(name: str, text: str = "", **more: object) -> Resource:
    return Resource(ResourceKey("Config", "", name), Config(config=text), **more)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "zone.db"


@pytest.fixture
def opened(path, clock):
    return lambda: SqliteStore.open(path, REGISTRY, clock)


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(directory.iterdir())}


def edit_file(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


async def test_everything_is_there_after_reopening(opened):
    widget = Resource(
        ResourceKey(WIDGET.kind, "", "w"),
        Config(config="é\x00\n"),
        labels={"a": "ü"},
        status=Config(config="s"),
        owner=config("owner").key,
        wire=b"\x00\xff",
    )
    async with opened() as store:
        written = await store.write([Create(config("owner")), Create(widget), Create(config("gone"))])
        await store.write([Delete(config("gone").key)])
    async with opened() as store:
        assert store.quarantined == ()
        assert (store.get(written[0].key), store.get(written[1].key)) == written[:2]
        assert store.get(config("gone").key) is None
        (next_one,) = await store.write([Put(config("next"))])
        assert next_one.version == 5  # the deletion counted, although nothing shows it


async def test_file_is_readable_by_its_owner_only(opened, path):
    path.touch(mode=0o644)
    path.chmod(0o644)
    async with opened() as store:
        await store.write([Put(config("a"))])
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    assert modes == {"zone.db": 0o600, "zone.db-wal": 0o600}


async def test_second_opener_in_the_same_process_is_refused_and_harms_nothing(opened, path):
    async with opened() as store:
        with pytest.raises(StoreFileError, match=r"zone\.db: another meshd uses it"):
            async with opened():
                pass
        await store.write([Put(config("a"))])
        with (
            closing(sqlite3.connect(path, timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("SELECT * FROM resources")  # our lock is still there


async def test_second_process_is_refused(opened, path):
    async with opened():
        done = await trio.run_process(
            [sys.executable, "-m", "tests.store.writer_process", str(path)], check=False, capture_stderr=True
        )
    assert done.returncode == 1
    assert b"another meshd uses it; stop that one or give this one its own store.sqlite.path" in done.stderr


async def test_file_held_by_another_program_is_refused(opened, path):
    async with opened():
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreFileError, match="locked"):
            async with opened():
                pass
    async with opened():
        pass


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not a database, but long enough to be one" * 10, "is not a SQLite database"),
        (b"x", "is not a SQLite database"),
        (b"SQLite format 3\x00" + b"\x00" * 20, "is not a SQLite database"),
        (b"SQLite format 3\x00" + b"\xff" * 5000, "is damaged"),
    ],
)
async def test_file_that_is_no_database_is_refused_and_not_touched(opened, path, data, reason):
    path.write_bytes(data)
    with pytest.raises(StoreFileError, match=reason):
        async with opened():
            pass
    assert contents(path.parent) == {"zone.db": data}


async def test_damaged_file_is_refused_and_not_touched(opened, path):
    async with opened() as store:
        for i in range(100):
            await store.write([Put(config(f"c{i}", "x" * 500))])
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 5] = random.Random(1).randbytes(4096 * 2)
    path.write_bytes(data)
    before = contents(path.parent)
    with pytest.raises(StoreFileError, match=r"is damaged .*; restore a backup"):
        async with opened():
            pass
    assert contents(path.parent) == before


async def test_any_flipped_bytes_are_refused_untouched_or_quarantined(opened, path, caplog):
    async with opened() as store:
        await store.write([Put(config(f"c{i}", "x" * 300)) for i in range(60)])
    good = path.read_bytes()
    rng = random.Random(2)
    outcomes = set()
    for _ in range(60):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 30)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        for leftover in path.parent.iterdir():
            leftover.unlink()
        path.write_bytes(data)
        try:
            async with opened() as store:
                outcomes.add("quarantined" if store.quarantined else "opened")
                assert len(store.list("Config")) + len(store.quarantined) <= 60
        except StoreFileError:
            outcomes.add("refused")
            assert contents(path.parent) == {"zone.db": bytes(data)}
    assert "refused" in outcomes
    caplog.text.encode()  # whatever stood in the damaged rows, the log can be written


async def test_database_of_another_program_is_refused(opened, path):
    edit_file(path, "CREATE TABLE bookmarks (url)")
    before = contents(path.parent)
    with pytest.raises(StoreFileError, match="belongs to another program"):
        async with opened():
            pass
    assert contents(path.parent) == before


async def test_database_of_a_newer_version_is_refused(opened, path):
    async with opened():
        pass
    edit_file(path, "PRAGMA user_version = 99")
    before = contents(path.parent)
    with pytest.raises(StoreFileError, match=r"newer meshd \(schema 99, this one knows 1\)"):
        async with opened():
            pass
    assert contents(path.parent) == before


async def test_first_start_that_was_cut_short_starts_again(opened, path):
    edit_file(path, "PRAGMA journal_mode = WAL")  # the header is written, the schema is not
    assert path.stat().st_size > 0
    async with opened() as store:
        await store.write([Put(config("a"))])


async def test_directory_that_does_not_exist_is_named(clock, tmp_path):
    with pytest.raises(StoreFileError, match=r"none/x\.db: cannot be opened: No such file"):
        async with SqliteStore.open(tmp_path / "none" / "x.db", REGISTRY, clock):
            pass


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("UPDATE resources SET spec = 'no json' WHERE name = 'a'", "Expecting value"),
        ("UPDATE resources SET spec = '{\"config\": 5}' WHERE name = 'a'", "config: must be text"),
        ("UPDATE resources SET kind = 'Gadget' WHERE name = 'a'", "kind Gadget is not known"),
        ("UPDATE resources SET created = 'yesterday' WHERE name = 'a'", "is not a time"),
        ("UPDATE resources SET labels = '[]' WHERE name = 'a'", "its labels are not texts"),
    ],
)
async def test_undecodable_row_is_reported_and_kept(opened, path, caplog, spoil, reason):
    async with opened() as store:
        await store.write([Put(config("a", "x")), Put(config("b"))])
    edit_file(path, spoil)
    with caplog.at_level(logging.ERROR):
        async with opened() as store:
            (row,) = store.quarantined
            assert row.key.name == "a"
            assert reason in row.reason
            assert store.unreadable() == {row.key: row.reason}
            assert [r.key.name for r in store.list("Config")] == ["b"]
            await store.write([Put(config("c"))])
    assert "/a" in caplog.text or " a " in caplog.text
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM resources WHERE name = 'a'").fetchone() == (1,)


async def test_undecodable_row_moves_to_quarantine_when_its_key_is_written(opened, path):
    async with opened() as store:
        await store.write([Put(config("a", "x"))])
    edit_file(path, "UPDATE resources SET spec = 'precious' WHERE name = 'a'")
    async with opened() as store:
        assert list(store.unreadable()) == [config("a").key]
        await store.write([Create(config("a", "new"))])
        assert store.unreadable() == {}
        await store.write([Put(config("a", "newer"))])
        await store.write([Put(config("b"))])
    async with opened() as store:
        assert store.quarantined == ()
        assert store.get(config("a").key).spec.config == "newer"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name, spec FROM quarantine").fetchall() == [("a", "precious")]


async def test_row_of_a_version_that_knew_more_fields_is_read(opened, path):
    async with opened() as store:
        await store.write([Put(config("a", "x"))])
    edit_file(path, """UPDATE resources SET spec = '{"config": "x", "later": 1}'""")
    async with opened() as store:
        assert store.get(config("a").key).spec == Config(config="x")


async def test_full_disk_is_unavailable_and_changes_nothing(opened, path, caplog):
    async with opened() as store:
        (before,) = await store.write([Put(config("a", "x"))])
        await store._worker.run(
            lambda: store._database._connection.connection.driver_connection.execute("PRAGMA max_page_count = 12")
        )
        with store.watch() as feed:
            with pytest.raises(UnavailableError, match=r"zone\.db: nothing was written: database or disk is full"):
                await store.write([Put(config("a", "y")), Put(config("big", "z" * 200_000))])
            assert feed.take_now() == frozenset()
            assert store.get(before.key) == before
            (small,) = await store.write([Put(config("a", "y"))])  # there is room for this one
            assert feed.take_now() == {before.key}
    async with opened() as store:
        assert store.get(before.key) == small
        assert store.get(config("big").key) is None


async def test_failure_of_a_shared_commit_reaches_every_writer(opened, monkeypatch):
    async with opened() as store:

        def refuse(*_: object) -> None:
            raise sqlite3.OperationalError("database is locked")

        errors = []

        async def write(name: str) -> None:
            try:
                await store.write([Put(config(name))])
            except UnavailableError as error:
                errors.append(str(error))

        monkeypatch.setattr(store._database, "commit", refuse)
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(write, name)
        assert len(errors) == 3
        assert store.list("Config") == ()
        monkeypatch.undo()
        await write("d")
        assert len(store.list("Config")) == 1


async def test_a_value_that_is_no_text_costs_only_its_own_write(opened):
    async with opened() as store:
        bad = dataclasses.replace(config("a"), labels={"team": "\ud800"})
        store._committing.acquire_nowait()
        errors = []

        async def write(resource: Resource) -> None:
            try:
                await store.write([Put(resource)])
            except ValueError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, bad)
            nursery.start_soon(write, config("b"))
            await trio.testing.wait_all_tasks_blocked()
            store._committing.release()
        assert [str(e) for e in errors] == ["Config a: its labels has a lone surrogate, which is no text"]
        assert [r.key.name for r in store.list("Config")] == ["b"]


async def test_a_bug_in_a_shared_commit_reaches_every_writer(opened, monkeypatch):
    async with opened() as store:

        def fail(*_: object) -> None:
            raise KeyError("forgotten")

        monkeypatch.setattr(store._database, "commit", fail)
        with pytest.raises(KeyError):
            await store.write([Put(config("a"))])
        monkeypatch.undo()
        await store.write([Put(config("b"))])
        assert [r.key.name for r in store.list("Config")] == ["b"]


async def test_concurrent_writes_share_commits(opened, monkeypatch):
    async with opened() as store:
        commits = []
        commit = store._database.commit
        monkeypatch.setattr(store._database, "commit", lambda *args: (commits.append(len(args[0])), commit(*args)))
        async with trio.open_nursery() as nursery:
            for i in range(100):
                nursery.start_soon(store.write, [Put(config(f"c{i}"))])
        assert sum(commits) == 100
        assert len(commits) <= 3


async def test_writing_without_effect_does_not_touch_the_disk(opened, monkeypatch):
    async with opened() as store:
        await store.write([Put(config("a", "x"))])
        monkeypatch.setattr(store._database, "commit", lambda *_: pytest.fail("committed"))
        await store.write([Put(config("a", "x"))])
        await store.write([])


@pytest.mark.parametrize("which", ["leader", "follower"])
async def test_cancelled_in_the_middle_of_a_commit_is_all_in(opened, monkeypatch, which):
    """Whoever is cancelled: what was begun is in the file, visible and announced, and nobody hangs."""
    async with opened() as store:
        begun, go_on = trio.Event(), trio.Event()
        run = store._worker.run

        async def slow(job):  # a disk that takes its time
            begun.set()
            with trio.CancelScope(shield=True):
                await go_on.wait()
                return await run(job)

        monkeypatch.setattr(store._worker, "run", slow)
        scopes = {"leader": trio.CancelScope(), "follower": trio.CancelScope()}

        async def write(who: str) -> None:
            with scopes[who]:
                await store.write([Put(config(who))])

        with store.watch() as feed:
            async with trio.open_nursery() as nursery:
                # both are queued before the first gets to commit, so they share its commit
                nursery.start_soon(write, "leader")
                nursery.start_soon(write, "follower")
                await begun.wait()
                scopes[which].cancel()
                await trio.testing.wait_all_tasks_blocked()
                go_on.set()
            assert {key.name for key in feed.take_now()} >= {"leader"}
        monkeypatch.undo()
        await store.write([Put(config("after"))])
        seen = {r.key.name for r in store.list("Config")}
    async with opened() as store:
        assert {r.key.name for r in store.list("Config")} == seen
        assert {"leader", "after"} <= seen


async def test_writing_to_a_closed_store_is_unavailable(opened):
    async with opened() as store:
        pass
    with pytest.raises(UnavailableError, match="is closed"):
        await store.write([Put(config("a"))])


async def test_errors_of_the_body_come_out_as_they_are(opened):
    with pytest.raises(ZeroDivisionError):
        async with opened():
            raise ZeroDivisionError


async def test_cancelling_the_body_closes_the_file(opened):
    with trio.CancelScope() as scope:
        async with opened() as store:
            await store.write([Put(config("a"))])
            scope.cancel()
            await trio.sleep_forever()
    async with opened() as store:
        assert len(store.list("Config")) == 1


@pytest.mark.slow
def test_survives_kill_9_at_any_point(path, clock):
    """What was told to be committed is there, no batch is half there, and the file opens every time."""
    rng = random.Random(3)
    committed = 0
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.store.writer_process", str(path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(rng.randrange(1, 60)):
            committed = max(committed, int(child.stdout.readline()))
        if rng.random() < 0.5:  # in the middle of whatever it does after a moment
            trio.run(trio.sleep, rng.random() * 0.01)
        os.kill(child.pid, signal.SIGKILL)
        for line in child.stdout.read().splitlines()[:-1]:
            committed = max(committed, int(line))
        child.wait()
        child.stdout.close()
        left, right, bulk = trio.run(read_numbers, path, clock)
        assert left == right
        assert left >= committed - 2  # three writers: a later number may be committed before an earlier one
        assert bulk >= committed


async def read_numbers(path: Path, clock: object) -> tuple[int, int, int]:
    async with SqliteStore.open(path, REGISTRY, clock) as store:  # type: ignore[arg-type]
        assert store.quarantined == ()
        texts = {r.key.name: r.spec.config for r in store.list("Config")}
    assert all(text.endswith(" " + TEXT) for text in texts.values())
    numbers = {name: int(text.partition(" ")[0]) for name, text in texts.items()}
    return numbers["left"], numbers["right"], max(n for name, n in numbers.items() if name.startswith("bulk"))
