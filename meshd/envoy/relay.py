"""Carries an Envoy's log into ours, by the proxy's name, bounded.

The log comes through a named pipe: an Envoy that outlives this process loses the lines that nobody reads, and is heard
again by the next one. With a plain pipe it would never write again, and to a file without bound.
"""

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import trio

from meshd.envoy.logs import Allowance, Lines, explains

log = logging.getLogger(__name__)

CHUNK = 1 << 16
LAST_WORDS = 2
"""Errors that are remembered to explain an end."""


class LogPipe:
    """The reading end. ``name`` is said with every line; ``dropped`` is told of lines that were too many."""

    def __init__(self, fd: int, name: str, dropped: Callable[[int], None]) -> None:
        self._fd = fd
        self._name = name
        self._dropped = dropped
        self._lines = Lines()
        self._allowance = Allowance(trio.current_time())
        self.last_words: deque[str] = deque(maxlen=LAST_WORDS)
        """The newest errors, without what repeats itself."""

    async def follow(self) -> None:
        """Carry lines until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            self.carry()

    def carry(self) -> None:
        """Carry what is there now. A pipe's worth at most, so it is short."""
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        for line in self._lines.feed(data):
            if explains(line) and line.text not in self.last_words:
                self.last_words.append(line.text)
            if self._allowance.take(trio.current_time()):
                self._say_dropped()
                log.log(line.level, "%s: %s", self._name, line)

    def _say_dropped(self) -> None:
        dropped = self._allowance.dropped()
        if dropped:
            self._dropped(dropped)
            log.warning("%s: %d more lines of its log are left out", self._name, dropped)


@contextlib.contextmanager
def open_pipe(path: Path) -> Iterator[int]:
    """Open the reading end of a log, not blocking. It counts as a writer too, so that it never comes to an end.

    Raises:
        OSError: it cannot be opened.
    """
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
