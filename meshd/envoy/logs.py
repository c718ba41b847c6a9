"""Envoy's log: its lines, their levels, and a bound on how many of them go into ours."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

MAX_LINE = 4096
"""Bytes of a line that are kept; Envoy may log whole resources."""
BURST = 200
"""Lines at once: a start at level info has some 70."""
LINES_PER_S = 10.0

_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.ERROR,
}
_NO_NEWS = ("caught ENVOY_SIG", "There is no configured limit to the number of allowed active downstream connections")
"""What Envoy warns of at every stop, and at every start."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line: ``level`` of the logging module, ``logger`` Envoy's, empty for what did not come from its logger."""

    level: int
    logger: str
    text: str

    def __str__(self) -> str:
        return f"{self.logger}: {self.text}" if self.logger else self.text


def parse_line(raw: bytes) -> Line:
    """A line in the format of ``command.LOG_FORMAT``. Anything else came from outside its logger: a warning."""
    text = raw[:MAX_LINE].decode(errors="replace").rstrip()
    level, _, rest = text.partition("|")
    logger, separator, message = rest.partition("|")
    if not separator or level not in _LEVELS:
        return Line(logging.WARNING, "", text)
    return Line(logging.INFO if message.startswith(_NO_NEWS) else _LEVELS[level], logger, message)


def explains(line: Line) -> bool:
    """Whether a line may tell why Envoy ended: an error, of a backtrace only what happened."""
    return line.level >= logging.ERROR and (line.logger != "backtrace" or line.text.startswith("Caught"))


class Lines:
    """Cuts a byte stream into lines; the rest of a line that is too long is left out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that ``data`` completes."""
        *whole, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:MAX_LINE]
        for raw in whole:
            if raw.strip():
                yield parse_line(raw)


class Allowance:
    """A bucket of lines: ``BURST`` at once, ``LINES_PER_S`` in the long run. ``now`` are seconds of any clock."""

    def __init__(self, now: float) -> None:
        self._left = float(BURST)
        self._at = now
        self._dropped = 0

    def take(self, now: float) -> bool:
        """Whether another line may go through now."""
        self._left = min(float(BURST), self._left + (now - self._at) * LINES_PER_S)
        self._at = now
        if self._left < 1:
            self._dropped += 1
            return False
        self._left -= 1
        return True

    def dropped(self) -> int:
        """How many lines did not go through since the last call that said so; ask after one that did."""
        dropped, self._dropped = self._dropped, 0
        return dropped
