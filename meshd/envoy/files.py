"""Makes and removes the files of one Envoy, for this user alone. Blocks: call it in a worker thread."""

import os
import secrets
import shutil
import stat
from pathlib import Path

from meshd.ca.private_files import write_private
from meshd.envoy.places import Places

SECRET_BYTES = 32


def prepare(at: Places) -> bytes:
    """Make the directories, the log's pipe and the secret that are not there yet; returns the secret.

    Raises:
        OSError: one cannot be made or read, or a directory is another user's.
    """
    _make_directory(at.directory)
    if at.sockets != at.directory:
        _make_directory(at.sockets.parent)
        _make_directory(at.sockets)
    _make_pipe(at.log)
    try:
        secret = at.secret.read_bytes()
    except FileNotFoundError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        secret = secrets.token_bytes(SECRET_BYTES)
        write_private(at.secret, secret)
    return secret


def read_or_nothing(path: Path) -> bytes:
    """The content of a file; nothing if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def remove(at: Places) -> None:
    """Remove everything of an Envoy that has ended and does not come back; what cannot be removed stays."""
    for directory in {at.directory, at.sockets}:
        shutil.rmtree(directory, ignore_errors=True)


def directories(home: Path) -> tuple[Path, ...]:
    """The directories of all Envoys that there are or were."""
    try:
        return tuple(sorted(p for p in home.iterdir() if p.is_dir() and not p.is_symlink()))
    except FileNotFoundError:
        return ()


def _make_directory(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = path.lstat()
    # Under /tmp anyone could have made it before; what is in ours is secret and is obeyed.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(0, "is not a directory of this user alone; remove it", str(path))


def _make_pipe(path: Path) -> None:
    """A running Envoy may have it open, so one that is there stays."""
    try:
        if stat.S_ISFIFO(path.lstat().st_mode):
            return
        path.unlink()
    except FileNotFoundError:
        pass
    os.mkfifo(path, 0o600)
