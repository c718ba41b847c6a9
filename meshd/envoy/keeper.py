"""All Envoys of one role: makes them, hands on what an earlier run left, and clears away what is nobody's any more."""

import logging
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import trio

from meshd.ca.internal import InternalCredentials
from meshd.envoy import files
from meshd.envoy.client import Admin, AtSocket
from meshd.envoy.command import Options, environment
from meshd.envoy.metrics import Metrics
from meshd.envoy.places import home, places, places_of, runtime_directory
from meshd.envoy.processes import Found, envoys_under
from meshd.envoy.service import Bootstrap, Common, EnvoyProcess, TookOver
from meshd.envoy.session import Session
from meshd.model.resource import ResourceKey

log = logging.getLogger(__name__)


class Fleet:
    """The Envoys of the role that keeps its state in ``state_dir``. ``env`` is this process's environment.

    See ``service.Common`` for the rest.
    """

    def __init__(
        self,
        state_dir: Path,
        bootstrap: Bootstrap,
        credentials: InternalCredentials,
        is_kept: Callable[[bool], bool],
        rng: random.Random,
        metrics: Metrics,
        env: Mapping[str, str],
    ) -> None:
        self._common = Common(bootstrap, credentials, is_kept, rng, metrics, environment(env))
        self._state_dir = state_dir
        self._runtime_dir = runtime_directory(env, os.getuid())
        self._left: dict[Path, Found] | None = None

    def process(self, proxy: ResourceKey, options: Options, took_over: TookOver | None = None) -> EnvoyProcess:
        """The Envoy of a proxy, which is still to be run. It takes over what an earlier run left of it."""
        at = places(self._state_dir, proxy, self._runtime_dir)
        self._common.turn(at.directory)
        return EnvoyProcess(self._common, proxy, options, at, self._found().pop(at.bootstrap, None), took_over)

    async def sweep(self, drain_s: float) -> None:
        """Drain and stop the Envoys that an earlier run left and for which no process was made, and remove their files.

        Call it once the proxies that are there at the start have been made.
        """
        directories = await trio.to_thread.run_sync(files.directories, home(self._state_dir))
        async with trio.open_nursery() as nursery:
            for directory in directories:
                nursery.start_soon(self._clear, directory, drain_s)

    async def _clear(self, directory: Path, drain_s: float) -> None:
        if directory in self._common.turns:
            return
        at = places_of(directory, self._runtime_dir)
        # Free, so it is ours at once; if the proxy comes back, it waits.
        async with self._common.turn(directory).held():
            found = self._found().pop(at.bootstrap, None)
            session = Session.adopt(found) if found is not None else None
            with trio.CancelScope(shield=True):
                if session is not None:
                    log.info("envoy of %s: its proxy is gone: draining, pid=%d", directory.name, session.pid)
                    await session.stop(Admin(AtSocket(at.admin_socket)), drain_s, f"envoy of {directory.name}")
                    session.close()
                await trio.to_thread.run_sync(files.remove, at)

    def _found(self) -> dict[Path, Found]:
        if self._left is None:
            self._left = envoys_under(home(self._state_dir), os.getuid())
        return self._left
