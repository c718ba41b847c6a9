"""The log of the process: on standard error, one record a line, as text or JSON.

Whoever logs uses ``logging.getLogger(__name__)`` with ``%s`` arguments; nothing else in meshd configures logging.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

QUIET = ("hypercorn", "httpx", "httpcore", "hpack", "h2", "asyncio")
"""Libraries whose INFO is our DEBUG."""


class TextFormatter(logging.Formatter):
    """``2026-01-02T03:04:05.678Z INFO meshd.kds.server: zone connected zone=a``; line breaks are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback after it if there is one."""
        head = f"{timestamp(record)} {record.levelname} {record.name}: {one_line(record.getMessage())}"
        return f"{head}\n{self.formatException(record.exc_info)}" if record.exc_info else head


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and ``error`` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry = {
            "time": timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False).encode(errors="backslashreplace").decode()


def is_json() -> bool:
    """Whether the process logs JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def timestamp(record: logging.LogRecord) -> str:
    """When, as RFC 3339 UTC with milliseconds."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def one_line(message: str) -> str:
    """``message`` with control characters escaped: what a peer sent must not write log lines of its own."""
    if message.isprintable():
        return message
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in message)


def set_up(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send the root logger's records of ``level`` (debug, info, ...) and above to ``stream`` (standard error).

    ``form`` is text or json. Replaces what an earlier call set up.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(level.upper() if level == "debug" else logging.WARNING)
