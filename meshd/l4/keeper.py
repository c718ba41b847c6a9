"""Keeps what names stood for last in a file, for a start at which nobody can be asked."""

import json
import logging
from pathlib import Path

import trio

from meshd.ca.private_files import write_private

log = logging.getLogger(__name__)

MAX_NAMES = 1000
"""Those used last."""
WRITE_AGAIN_S = 30.0
"""How often a change of addresses alone is written: names of large providers change at each look."""


class AddressFile:
    """The addresses of names, in a JSON file of ``{name: [address, ...]}``. One that cannot be read is begun anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: dict[str, tuple[str, ...]] = {}
        self._is_read = False
        self._write_at = 0.0
        self._failed = ""
        self._lock = trio.Lock()

    async def before(self, host: str) -> tuple[str, ...]:
        """What a name stood for last, none if nothing is known."""
        async with self._lock:
            if not self._is_read:
                self._names = await trio.to_thread.run_sync(read, self._path) | self._names
                self._is_read = True
        return self._names.get(host, ())

    async def learn(self, host: str, addresses: tuple[str, ...]) -> None:
        """Keep what a name stands for now; written if it is new, or has changed and that was not just written."""
        known = self._names.pop(host, ())
        self._names[host] = addresses
        if set(known) == set(addresses) or (known and trio.current_time() < self._write_at):
            return
        async with self._lock:
            for name in list(self._names)[:-MAX_NAMES]:
                del self._names[name]
            content = json.dumps(self._names, indent=1).encode()
            self._write_at = trio.current_time() + WRITE_AGAIN_S
            problem = ""
            try:
                await trio.to_thread.run_sync(write_private, self._path, content)
            except OSError as error:
                problem = error.strerror or str(error)
        if problem and problem != self._failed:
            log.warning(
                "%s: cannot be written, and names may have no address at the next start: %s", self._path, problem
            )
        self._failed = problem


def read(path: Path) -> dict[str, tuple[str, ...]]:
    """What the file holds; nothing if it is not there or broken."""
    try:
        data = json.loads(path.read_bytes())
        return {str(host): tuple(str(a) for a in addresses) for host, addresses in data.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s: cannot be read, and is begun anew: %s", path, error)
        return {}
