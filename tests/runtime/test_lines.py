import os
from collections import Counter
from pathlib import Path

import pytest
import trio

from meshd.runtime import lines
from meshd.runtime.lines import Lines, LinesError, check, pieces


def started(nursery: trio.Nursery, path: Path | None, **more: int) -> tuple[Lines[str], Counter[str]]:
    events: Counter[str] = Counter()

    def count(event: str, number: int) -> None:
        events[event] += number

    made = Lines(path, str, count, **more)
    nursery.start_soon(made.run)
    return made, events


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "GATHER_S", 0)


async def until(events: Counter[str], event: str, count: int) -> None:
    with trio.fail_after(5):
        while events[event] < count:
            await trio.sleep(0.002)


async def test_lines_are_written_in_order_and_the_last_at_the_end(tmp_path: Path, nursery: trio.Nursery) -> None:
    path = tmp_path / "q.log"
    async with trio.open_nursery() as own:
        made, events = started(own, path)
        for word in ("one", "two"):
            made.put(word)
        await until(events, "written", 2)
        made.put("thr\u00e9e")
        own.cancel_scope.cancel()
    assert path.read_text() == "one\ntwo\nthr\\xe9e\n"
    assert path.stat().st_mode & 0o777 == 0o640 & ~umask()
    assert events == {"written": 3}


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


async def test_a_file_that_is_renamed_or_removed_is_made_again(tmp_path: Path, nursery: trio.Nursery) -> None:
    path = tmp_path / "q.log"
    made, events = started(nursery, path)
    made.put("one")
    await until(events, "written", 1)
    path.rename(tmp_path / "q.log.1")
    made.put("two")
    await until(events, "written", 2)
    assert ((tmp_path / "q.log.1").read_text(), path.read_text()) == ("one\n", "two\n")
    path.unlink()
    made.put("three")
    await until(events, "written", 3)
    os.truncate(path, 0)
    made.put("four")
    await until(events, "written", 4)
    assert path.read_text() == "four\n"


async def test_what_cannot_be_written_is_counted_and_what_can_be_later_is(
    tmp_path: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "gone" / "q.log"
    made, events = started(nursery, path)
    for failed in (1, 2):
        made.put("lost")
        await until(events, "failed", failed)
    path.parent.mkdir()
    made.put("kept")
    await until(events, "written", 1)
    assert path.read_text() == "kept\n"
    assert [r.levelname for r in caplog.records if "cannot be written" in r.getMessage()] == ["WARNING"]


async def test_a_reader_who_does_not_read_holds_up_nobody(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard error is a pipe whose other end is never read: the writer's thread is stuck, and left so at the end."""
    reader, writer = os.pipe()
    monkeypatch.setattr(lines, "STDERR", writer)
    async with trio.open_nursery() as own:
        made, events = started(own, None, max_waiting=100)
        made.put("x" * 100_000)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(150):
            made.put("line")
        assert events == {"dropped": 50}
        monkeypatch.setattr(lines, "LAST_S", 0.01)
        own.cancel_scope.cancel()
    os.close(reader)  # and so the thread ends, by EPIPE
    os.close(writer)


def test_a_file_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    check(tmp_path / "q.log", "key")
    os.mkfifo(tmp_path / "pipe")
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "a" / "b", "No such file"), (tmp_path / "pipe", "")):
        with pytest.raises(LinesError, match=f"key: {path} cannot be written: {reason}"):
            check(path, "key")


def test_pieces_end_at_lines() -> None:
    some = [b"aa\n", b"bbb\n", b"c\n", b"a longer one\n", b"d\n"]
    assert list(pieces(some, 7)) == [b"aa\nbbb\n", b"c\n", b"a longer one\n", b"d\n"]
    assert list(pieces([], 7)) == []
