"""The files and sockets of one proxy's Envoy. Computes paths; creates nothing."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meshd.model.resource import ResourceKey

SOCKET_PATH_LIMIT = 107
"""The longest path of a Unix socket in bytes: ``sun_path`` has 108, of which one ends it."""
ROOM_FOR_SOCKETS = len("/kuma-mesh-metric-config.sock")
"""The longest name of a socket in the socket directory: Envoy's own listeners may be there too (reference 1.7)."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything of one Envoy is.

    ``directory`` is in the state directory of the role; ``sockets`` is the same one, or a shorter one if the paths of
    sockets in it would be too long. Both are for this user alone.
    """

    directory: Path
    sockets: Path

    @property
    def bootstrap(self) -> Path:
        """Its configuration; the credential is in it."""
        return self.directory / "bootstrap.json"

    @property
    def secret(self) -> Path:
        """The random bytes behind its credential."""
        return self.directory / "secret"

    @property
    def log(self) -> Path:
        """The named pipe it writes its log to."""
        return self.directory / "log"

    @property
    def admin_socket(self) -> Path:
        """Its admin interface."""
        return self.sockets / "admin.sock"


def home(state_dir: Path) -> Path:
    """The directory of all Envoys of a role."""
    return state_dir / "envoy"


def slug(proxy: ResourceKey) -> str:
    """A short directory name for a proxy, for people and unique: names may have 253 letters, and be in every mesh."""
    whole = "/".join((proxy.kind, proxy.mesh, proxy.name))
    return f"{proxy.kind.lower()}-{proxy.name[:24]}-{hashlib.sha256(whole.encode()).hexdigest()[:10]}"


def places(state_dir: Path, proxy: ResourceKey, runtime_dir: Path) -> Places:
    """The places of a proxy; those of its sockets are in ``runtime_dir`` only if the state directory is too deep."""
    directory = home(state_dir) / slug(proxy)
    return Places(directory, _sockets(directory, runtime_dir))


def places_of(directory: Path, runtime_dir: Path) -> Places:
    """The places of a proxy of which only the directory is known."""
    return Places(directory, _sockets(directory, runtime_dir))


def _sockets(directory: Path, runtime_dir: Path) -> Path:
    if len(bytes(directory)) + ROOM_FOR_SOCKETS <= SOCKET_PATH_LIMIT:
        return directory
    return runtime_dir / hashlib.sha256(bytes(directory)).hexdigest()[:16]


def runtime_directory(env: Mapping[str, str], uid: int) -> Path:
    """A short directory for this user's sockets: where the session has one, else under /tmp.

    Under /tmp another user may have taken the name first; whoever creates it must look whose it is.
    """
    session = env.get("XDG_RUNTIME_DIR", "")
    if session.startswith("/") and len(session.encode()) <= 40:
        return Path(session) / "meshd"
    return Path("/tmp") / f"meshd-{uid}"  # noqa: S108  # owner and mode are checked before use
