"""Lines for a file or standard error that must never hold up whoever has them: gathered, and written by a thread.

What finds no room while the disk, or the reader of a pipe, is slow is lost and counted. The file may be renamed or
removed at any time, as log rotation does: the next lines go to a new one under its name. Several processes may write
to one file, since each write appends whole lines.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

import trio

from meshd.model.errors import MeshdError

log = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
GATHER_S: Final = 0.1
"""How long lines wait for others, so that a write carries many."""
LAST_S: Final = 1.0
"""How long the last lines may take at the end."""
FILE_WRITE_BYTES: Final = 1 << 16
PIPE_WRITE_BYTES: Final = 4096
"""What Linux writes to a pipe in one piece (PIPE_BUF): lines of several processes are not mixed."""
STDERR: Final = 2
T = TypeVar("T")


class LinesError(MeshdError):
    """A file cannot be written; the message names the setting, the file and the reason."""


class Lines(Generic[T]):
    """Writes what is ``put`` as lines, in order. Lives in one loop.

    ``path`` None is standard error. ``render`` makes a line without its end, in another thread. ``on_event`` is told,
    in the loop, how many were ``written``, ``dropped`` (no room) or ``failed`` (could not be written).
    """

    def __init__(
        self,
        path: Path | None,
        render: Callable[[T], str],
        on_event: Callable[[str, int], None],
        *,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._path = path
        self._render = render
        self._on_event = on_event
        self._max_waiting = max_waiting
        self._waiting: list[T] = []
        self._news = trio.Event()
        self._file = -1
        self._seen: tuple[int, int] | None = None
        self._is_cut = False
        self._is_failing = False
        self._limiter = trio.CapacityLimiter(1)

    def put(self, record: T) -> None:
        """Write it soon, or lose and count it; returns at once."""
        if len(self._waiting) >= self._max_waiting:
            self._on_event("dropped", 1)
            return
        if not self._waiting:
            self._news.set()
        self._waiting.append(record)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled, and then what is left, if that goes quickly."""
        task_status.started()
        try:
            while True:
                await self._news.wait()
                await trio.sleep(GATHER_S)
                await self._write_waiting()
        finally:
            with trio.move_on_after(LAST_S, shield=True):
                await self._write_waiting()
                self._close()

    async def _write_waiting(self) -> None:
        self._news = trio.Event()
        records, self._waiting = self._waiting, []
        if not records:
            return
        try:
            # Abandoned at the end: a pipe that nobody reads must not keep the process.
            await trio.to_thread.run_sync(self._write, records, abandon_on_cancel=True, limiter=self._limiter)
        except OSError as error:
            self._on_event("failed", len(records))
            if not self._is_failing:
                log.warning("%s: cannot be written: %s; lines are lost until it can", self._path or "stderr", error)
            self._is_failing = True
        else:
            self._on_event("written", len(records))
            if self._is_failing:
                log.info("%s: can be written again", self._path or "stderr")
            self._is_failing = False

    def _write(self, records: Sequence[T]) -> None:
        """In a thread, one call at a time."""
        file = self._opened()
        lines = [self._render(record).encode("ascii", "backslashreplace") + b"\n" for record in records]
        for piece in pieces(lines, PIPE_WRITE_BYTES if self._path is None else FILE_WRITE_BYTES):
            rest = b"\n" + piece if self._is_cut else piece
            while rest:
                self._is_cut = True
                rest = rest[os.write(file, rest) :]
            self._is_cut = False

    def _opened(self) -> int:
        if self._path is None:
            return STDERR
        if self._file >= 0 and identity(self._path) != self._seen:
            self._close()
        if self._file < 0:
            self._file = opened(self._path)
            found = os.fstat(self._file)
            self._seen, self._is_cut = (found.st_dev, found.st_ino), False
        return self._file

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def opened(path: Path) -> int:
    """A file that is appended to; made, for its owner and group, if it is not there.

    Raises:
        OSError: it cannot be.
    """
    # Without O_NONBLOCK, a pipe without a reader would hold whoever opens it.
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o640)


def check(path: Path, setting: str) -> None:
    """Find out at the start whether a file can be written.

    Raises:
        LinesError: names ``setting``, the file and the reason.
    """
    try:
        os.close(opened(path))
    except OSError as error:
        raise LinesError(f"{setting}: {path} cannot be written: {error.strerror}; name another file") from error


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of what is at a path; None for nothing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def pieces(lines: Sequence[bytes], size: int) -> Iterator[bytes]:
    """The lines joined to pieces of at most ``size`` bytes; a longer line is a piece of its own."""
    piece: list[bytes] = []
    length = 0
    for line in lines:
        if piece and length + len(line) > size:
            yield b"".join(piece)
            piece, length = [], 0
        piece.append(line)
        length += len(line)
    if piece:
        yield b"".join(piece)
