"""The issued identities and the trusted roots on disk, so that a restart causes no churn (design P6).

Blocking: call it in a worker thread. One file per identity holds certificate and key, so that they are replaced
together: written to a temporary file (mode 0600), synced, renamed, and the directory synced. Names are hashes, since
meshes and owners come from peers. What cannot be read, is damaged, or was readable by others is as good as absent.
"""

import base64
import hashlib
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from meshd.ca.identity import Identity
from meshd.ca.private_files import read_private, write_private
from meshd.ca.rotation import Retired, Trust

log = logging.getLogger(__name__)

FORMAT = 1


class Vault:
    """Files under one directory, which must belong to one process; None keeps nothing."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def load(self, mesh: str, owner: str) -> Identity | None:
        """The identity last saved for an owner, None if there is none; whether it is still right is not checked."""
        fields = self._read(self._path("identities", mesh, owner))
        try:
            if fields is None or fields["mesh"] != mesh or fields["owner"] != owner:
                return None
            return Identity(
                mesh,
                tuple(text(uri) for uri in items(fields["uris"])),
                text(fields["chain"]).encode("ascii"),
                text(fields["key"]).encode("ascii"),
                moment(fields["notBefore"]),
                moment(fields["notAfter"]),
            )
        except (KeyError, TypeError, ValueError):
            return None

    def save(self, owner: str, identity: Identity) -> None:
        """Save an identity in place of the owner's last one.

        Raises:
            OSError: it could not be written; the last one is still there.
        """
        fields = {
            "mesh": identity.mesh,
            "owner": owner,
            "uris": list(identity.uris),
            "chain": identity.chain_pem.decode("ascii"),
            "key": identity.key_pem.decode("ascii"),
            "notBefore": identity.not_before.isoformat(),
            "notAfter": identity.not_after.isoformat(),
        }
        self._write(self._path("identities", identity.mesh, owner), fields)

    def forget(self, mesh: str, owner: str) -> None:
        """Delete the identity of an owner, if there is one."""
        path = self._path("identities", mesh, owner)
        if path is not None:
            path.unlink(missing_ok=True)

    def load_trust(self, mesh: str) -> Trust | None:
        """The roots last saved for a mesh."""
        fields = self._read(self._path("trust", mesh))
        try:
            if fields is None or fields["mesh"] != mesh:
                return None
            retired = tuple(
                Retired(base64.b64decode(text(r["pem"])), moment(r["until"])) for r in items(fields["retired"])
            )
            return Trust(base64.b64decode(text(fields["pem"])), moment(fields["since"]), retired)
        except (KeyError, TypeError, ValueError):
            return None

    def save_trust(self, mesh: str, trust: Trust | None) -> None:
        """Save the roots of a mesh; None deletes them.

        Raises:
            OSError: it could not be written.
        """
        path = self._path("trust", mesh)
        if trust is None:
            if path is not None:
                path.unlink(missing_ok=True)
            return
        retired = [{"pem": encoded(r.pem), "until": r.until.isoformat()} for r in trust.retired]
        fields = {"mesh": mesh, "pem": encoded(trust.pem), "since": trust.since.isoformat(), "retired": retired}
        self._write(path, fields)

    def prune(self, now: datetime) -> int:
        """Delete identities that have expired, damaged files and unfinished ones; returns how many."""
        if self._directory is None:
            return 0
        gone = 0
        for path in sorted((self._directory / "identities").glob("*")):
            fields = self._read(path) if path.suffix == ".json" else None
            try:
                keep = fields is not None and moment(fields["notAfter"]) > now
            except (KeyError, TypeError, ValueError):
                keep = False
            if not keep:
                path.unlink(missing_ok=True)
                gone += 1
        return gone

    def _path(self, folder: str, *names: str) -> Path | None:
        if self._directory is None:
            return None
        digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:40]
        return self._directory / folder / f"{digest}.json"

    def _read(self, path: Path | None) -> Mapping[str, object] | None:
        if path is None:
            return None
        try:
            fields = json.loads(read_private(path))
        except FileNotFoundError:
            return None
        except PermissionError as error:
            log.warning("%s; it is not used", error)
            return None
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s cannot be read (%s); it is not used", path, type(error).__name__)
            return None
        return fields if isinstance(fields, dict) and fields.get("format") == FORMAT else None

    def _write(self, path: Path | None, fields: Mapping[str, object]) -> None:
        if path is None:
            return
        write_private(path, json.dumps({"format": FORMAT, **fields}).encode("ascii"))


def encoded(data: bytes) -> str:
    """Bytes for JSON."""
    return base64.b64encode(data).decode("ascii")


def text(value: object) -> str:
    """``value``, which must be a string."""
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def items(value: object) -> list[dict[str, object]]:
    """``value``, which must be a list."""
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def moment(value: object) -> datetime:
    """The UTC time that ``value`` says."""
    return datetime.fromisoformat(text(value)).astimezone(UTC)
