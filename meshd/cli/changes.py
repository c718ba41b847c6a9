"""Changes to files of a host that can be undone exactly: what was there is kept, and put back byte by byte.

A record of everything is written first, so that an installation that was cut short can be undone as well. Nothing is
undone that somebody else has changed since.
"""

import base64
import contextlib
import errno
import json
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshd.cli.host_dns import File, Plan

RECORD = "etc/meshd/dns-install.json"
VERSION = 1


class ChangesError(Exception):
    """A change cannot be made, or undone; says what is in the way. Nothing was done."""


@dataclass(frozen=True, slots=True)
class State:
    """What is at a path: nothing, a symbolic link, or a regular file with its mode and owner."""

    content: bytes | None = None
    link: str | None = None
    mode: int = 0o644
    owner: tuple[int, int] | None = None

    @property
    def is_absent(self) -> bool:
        """Whether nothing is there."""
        return self.content is None and self.link is None

    def same_as(self, other: "State") -> bool:
        """Whether a program that reads the path finds the same."""
        return (self.content, self.link) == (other.content, other.link)


def read(path: Path) -> State:
    """What is at a path.

    Raises:
        ChangesError: something else than a file or a link, or it cannot be read.
    """
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            return State(link=str(path.readlink()))
        if not stat.S_ISREG(found.st_mode):
            raise ChangesError(f"{path} is neither a file nor a link")
        return State(path.read_bytes(), None, stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid))
    except (FileNotFoundError, NotADirectoryError):
        return State()
    except OSError as error:
        raise ChangesError(f"cannot read {path}: {error.strerror}") from error


def write(path: Path, state: State) -> None:
    """Make a path be as ``state`` says, at once; its directory must be there.

    Raises:
        ChangesError: it cannot be written.
    """
    try:
        if state.is_absent:
            path.unlink(missing_ok=True)
            return
        if state.link is not None:
            temporary = path.with_name(f".{path.name}.meshd")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(state.link)
            temporary.replace(path)
            return
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(state.content or b"")
                os.fchmod(file.fileno(), state.mode)
                if state.owner is not None and os.geteuid() == 0:
                    os.fchown(file.fileno(), *state.owner)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno != errno.EBUSY:
                raise
            # A file that is mounted, as containers have it, cannot be replaced, only written to.
            path.write_bytes(state.content or b"")
    except OSError as error:
        raise ChangesError(f"cannot write {path}: {error.strerror}") from error


def wanted(file: File) -> State:
    """What a plan wants at a path."""
    return State(link=file.link) if file.link else State(file.text.encode(errors="surrogateescape"))


@dataclass(frozen=True, slots=True)
class Change:
    """One path, absolute in the host, with what was there and what was put there."""

    path: str
    before: State
    after: State

    def at(self, root: Path) -> Path:
        """The path under a root."""
        return root / self.path.lstrip("/")


@dataclass(frozen=True, slots=True)
class Installed:
    """A record: which method, what it changed, which directories it made (deepest last), how to go on after undoing."""

    method: str
    domain: str
    server: str
    changes: tuple[Change, ...]
    directories: tuple[str, ...]
    undo: tuple[tuple[str, ...], ...]


def prepare(plan: Plan, root: Path, domain: str, server: str) -> Installed:
    """What an installation would change, from what is there now.

    Raises:
        ChangesError: it cannot be read.
    """
    changes = tuple(Change(f.path, read(root / f.path.lstrip("/")), wanted(f)) for f in plan.files)
    missing: dict[str, None] = {}
    for path in (*(f.path for f in plan.files), f"/{RECORD}"):
        for parent in reversed(Path(path).parents):
            if not (root / str(parent).lstrip("/")).exists():
                missing[str(parent)] = None
    return Installed(plan.method, domain, server, changes, tuple(missing), plan.undo)


def install(installed: Installed, root: Path) -> None:
    """Write the record, then every file.

    Raises:
        ChangesError: something cannot be written; what was written is there, and can be undone.
    """
    for directory in installed.directories:
        try:
            (root / directory.lstrip("/")).mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            raise ChangesError(f"cannot make {directory}: {error.strerror}") from error
    write(root / RECORD, State(json.dumps(to_json(installed), indent=1).encode() + b"\n", mode=0o600))
    for change in installed.changes:
        write(change.at(root), change.after)


def changed_since(installed: Installed, root: Path) -> list[str]:
    """The paths that are neither as they were put there nor as they were before: somebody else's work."""
    found = []
    for change in installed.changes:
        now = read(change.at(root))
        if not now.same_as(change.after) and not now.same_as(change.before):
            found.append(change.path)
    return found


def check_undo(installed: Installed, root: Path) -> None:
    """Refuse to undo what somebody else has changed since.

    Raises:
        ChangesError: somebody has; names the files.
    """
    if changed := changed_since(installed, root):
        raise ChangesError(
            f"changed by somebody else since it was installed: {', '.join(changed)}; nothing was done. Take that"
            f" change out (or put the file back as /{RECORD} has it) and try again"
        )


def uninstall(installed: Installed, root: Path) -> None:
    """Put everything back and take the record away.

    Raises:
        ChangesError: somebody has changed a file since, and nothing was done; or one cannot be written.
    """
    check_undo(installed, root)
    for change in reversed(installed.changes):
        write(change.at(root), change.before)
    write(root / RECORD, State())
    for directory in reversed(installed.directories):
        with contextlib.suppress(OSError):  # somebody else keeps something there by now
            (root / directory.lstrip("/")).rmdir()


def load(root: Path) -> Installed | None:
    """The record of an installation, None if there is none.

    Raises:
        ChangesError: it cannot be read.
    """
    content = read(root / RECORD).content
    if content is None:
        return None
    try:
        return from_json(json.loads(content))
    except (ValueError, KeyError, TypeError) as error:
        raise ChangesError(f"{root / RECORD} is no record of an installation: {error}") from error


def to_json(installed: Installed) -> dict[str, Any]:
    """A record as data."""
    return {
        "version": VERSION,
        "method": installed.method,
        "domain": installed.domain,
        "server": installed.server,
        "changes": [
            {"path": c.path, "before": state_to_json(c.before), "after": state_to_json(c.after)}
            for c in installed.changes
        ],
        "directories": list(installed.directories),
        "undo": [list(command) for command in installed.undo],
    }


def from_json(data: Any) -> Installed:
    """A record from data.

    Raises:
        ValueError, KeyError, TypeError: it is none, or of another version.
    """
    if data["version"] != VERSION:
        raise ValueError(f"version {data['version']}, not {VERSION}")
    return Installed(
        data["method"],
        data["domain"],
        data["server"],
        tuple(Change(c["path"], state_from_json(c["before"]), state_from_json(c["after"])) for c in data["changes"]),
        tuple(data["directories"]),
        tuple(tuple(command) for command in data["undo"]),
    )


def state_to_json(state: State) -> dict[str, Any] | None:
    """A state as data."""
    if state.is_absent:
        return None
    if state.link is not None:
        return {"link": state.link}
    content = base64.b64encode(state.content or b"").decode()
    return {"content": content, "mode": state.mode, "owner": list(state.owner) if state.owner else None}


def state_from_json(data: Any) -> State:
    """A state from data."""
    if data is None:
        return State()
    if "link" in data:
        return State(link=data["link"])
    owner = data["owner"]
    return State(base64.b64decode(data["content"]), None, data["mode"], (owner[0], owner[1]) if owner else None)
