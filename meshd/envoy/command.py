"""How Envoy is started, and whether a running one is what would be started now."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from meshd.envoy.places import Places
from meshd.model.errors import MeshdError

LOG_FORMAT = "%l|%n|%v"
FLUSH_LOG_MS = 1000
"""Envoy keeps its log for ten seconds otherwise. What is said before an end is written at once in any case."""

_VERSION = re.compile(r"version: (?P<build>[0-9a-f]+/(?P<text>[^/\s]+)(/[^/\s]+)*)")
_OURS = ("MESHD_", "PYTHON", "NOTIFY_", "WATCHDOG_", "LISTEN_")
_OURS_EXACTLY = frozenset({"STATE_DIRECTORY", "CREDENTIALS_DIRECTORY"})


class NotEnvoy(MeshdError):  # noqa: N818  # says what it is
    """A program that was taken for Envoy does not say that it is one."""


@dataclass(frozen=True, slots=True)
class Options:
    """What may differ between Envoys. ``concurrency`` None: a worker for each processor it may use."""

    binary: Path
    drain_s: float
    log_level: str = "warning"
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """``text`` as in ``1.40.0``; ``build`` the whole ``revision/version/status/type/ssl``."""

    text: str
    build: str


def argv(options: Options, at: Places) -> tuple[str, ...]:
    """The command line. Source: reference/dataplane.md 1.10; hot restart is off, configuration never needs it."""
    workers = ("--cpuset-threads",) if options.concurrency is None else ("--concurrency", str(options.concurrency))
    return (
        str(options.binary),
        "--config-path",
        str(at.bootstrap),
        "--drain-time-s",
        str(max(1, math.ceil(options.drain_s))),  # Envoy divides by it
        "--drain-strategy",
        "immediate",
        "--disable-hot-restart",
        "--log-level",
        options.log_level,
        "--log-path",
        str(at.log),
        "--log-format",
        LOG_FORMAT,
        "--log-format-escaped",
        "--file-flush-interval-msec",
        str(FLUSH_LOG_MS),
        *workers,
    )


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of an Envoy: this process's, without what is meant for meshd alone (its tokens, systemd)."""
    return {k: v for k, v in env.items() if not k.startswith(_OURS) and k not in _OURS_EXACTLY}


def parse_version(output: str, binary: Path) -> Version:
    """What ``envoy --version`` says.

    Raises:
        NotEnvoy: it is something else.
    """
    found = _VERSION.search(output)
    if found is None:
        raise NotEnvoy(f"{binary} does not say which Envoy it is: --version prints {output.strip()[:80]!r}")
    return Version(found["text"], found["build"])


def bootstrap_bytes(document: Mapping[str, Any]) -> bytes:
    """The file of a bootstrap document: the same bytes for the same document."""
    return json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"


def why_replace(
    running: Sequence[str], wanted: Sequence[str], running_bootstrap: bytes, wanted_bootstrap: bytes
) -> str:
    """Why a running Envoy must make way for a new one; empty if it is as good as new.

    Of the command line neither the program counts, which a script may stand for (its version is compared), nor the log
    level, which a running Envoy takes.
    """
    if _comparable(running) != _comparable(wanted):
        return "its settings have changed"
    if _essence(running_bootstrap) != _essence(wanted_bootstrap):
        return "its bootstrap has changed"
    return ""


def log_level(command_line: Sequence[str]) -> str:
    """The log level of a command line."""
    return dict(pairwise(command_line)).get("--log-level", "info")


def _comparable(command_line: Sequence[str]) -> list[str]:
    first = command_line.index("--config-path") if "--config-path" in command_line else 0
    rest = list(command_line[first:])
    if "--log-level" in rest[:-1]:
        rest[rest.index("--log-level") + 1] = ""
    return rest


def _essence(bootstrap: bytes) -> object:
    """What a bootstrap does, without what it only tells: the service's name, and the version of who wrote it.

    With them, every upgrade of meshd would drain every Envoy.
    """
    try:
        document = json.loads(bootstrap)
    except ValueError:
        return bootstrap
    node = document.get("node") if isinstance(document, dict) else None
    if isinstance(node, dict):
        node.pop("cluster", None)
        if isinstance(node.get("metadata"), dict):
            node["metadata"].pop("version", None)
    return document
