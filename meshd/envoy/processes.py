"""The Envoys that run now, as /proc shows them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Found:
    """A running process; ``argv`` is its command line."""

    pid: int
    argv: tuple[str, ...]

    @property
    def bootstrap(self) -> Path | None:
        """The configuration file that its command line names; None if it names none."""
        for word, following in pairwise(self.argv):
            if word == "--config-path":
                return Path(following)
        return None


def envoys_under(directory: Path, uid: int, proc: Path = PROC) -> dict[Path, Found]:
    """The processes of user ``uid`` whose bootstrap is below ``directory``, by that bootstrap.

    This is how an Envoy is known again, instead of by a file with its process id: such a file can be stale, or missing
    if its writer was killed at the wrong moment.
    """
    found: dict[Path, Found] = {}
    for process in _processes(uid, proc):
        bootstrap = process.bootstrap
        if bootstrap is not None and bootstrap.is_relative_to(directory):
            found[bootstrap] = process
    return found


def read_process(pid: int, proc: Path = PROC) -> Found | None:
    """A process; None if there is none, or it has ended and waits for its parent."""
    try:
        raw = (proc / str(pid) / "cmdline").read_bytes()
    except OSError:
        return None
    return Found(pid, tuple(os.fsdecode(word) for word in raw.removesuffix(b"\0").split(b"\0"))) if raw else None


def _processes(uid: int, proc: Path) -> Iterator[Found]:
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                is_ours = entry.stat().st_uid == uid
            except OSError:  # it ended meanwhile
                continue
            process = read_process(int(entry.name), proc) if is_ours else None
            if process is not None:
                yield process
