"""The Envoy of one proxy: started or taken over, watched, started again with backoff, and drained or left running.

An Envoy carries traffic that must not depend on this process. So it outlives a kill or a crash of it, and the next run
takes it over if it is still what is wanted. What becomes of it at an orderly end is the operator's choice.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from meshd.ca.internal import InternalCredentials, credential
from meshd.ca.private_files import write_private
from meshd.envoy import files
from meshd.envoy.admin import DRAINING, LIVE, ServerInfo
from meshd.envoy.client import Admin, AtSocket
from meshd.envoy.command import (
    NotEnvoy,
    Options,
    Version,
    argv,
    bootstrap_bytes,
    log_level,
    why_replace,
)
from meshd.envoy.exits import judge
from meshd.envoy.metrics import Metrics
from meshd.envoy.places import Places
from meshd.envoy.processes import Found, read_process
from meshd.envoy.relay import LogPipe, open_pipe
from meshd.envoy.session import Session, Turn, ask_version
from meshd.model.errors import MeshdError, UnavailableError
from meshd.model.resource import ResourceKey
from meshd.runtime.latest import Latest
from meshd.runtime.supervisor import retrying

log = logging.getLogger(__name__)

SETTLE_S = 1.0
"""How long a proxy that was removed still takes connections: by then its peers know that it is gone (design, 8).
One that is back by then goes on as if nothing had been."""
FIRST_ASK_S, LAST_ASK_S = 0.02, 1.0
"""How soon, and later how often, an Envoy that is not live yet is asked whether it is."""

ADOPT_S = 3.0
"""How long a running Envoy may be without an admin interface before it is given up."""


class EnvoyEnded(MeshdError):  # noqa: N818  # says what happened
    """An Envoy has ended, or could not be started; the message says how."""


WEATHER = (EnvoyEnded, NotEnvoy, OSError)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the bootstrap of one Envoy depends on.

    ``credential`` is what it shows to its dp-server (``InternalCredentials``); ``admin_socket`` must be its admin
    address, mode 0600; in ``socket_dir`` it may open other sockets, names up to 28 bytes.
    """

    proxy: ResourceKey
    admin_socket: Path
    socket_dir: Path
    credential: str
    version: Version


TookOver = Callable[[frozenset[str]], None]
"""Told the names of the listeners of an Envoy that an earlier run left and that goes on."""

Bootstrap = Callable[[Surroundings], Awaitable[Mapping[str, Any]]]
"""The bootstrap as a proto-JSON document; may wait for what it depends on. Equal surroundings and an equal
configuration must give an equal one, in the next run too: another one means that a running Envoy is replaced."""


@dataclass(slots=True)
class Common:
    """What the Envoys of one role share.

    ``is_kept`` is asked at the end, whether an Envoy is to go on without this process; its argument says whether it was
    taken over from an earlier run. ``env`` is what they get as their environment.
    """

    bootstrap: Bootstrap
    credentials: InternalCredentials
    is_kept: Callable[[bool], bool]
    rng: random.Random
    metrics: Metrics
    env: Mapping[str, str]
    turns: dict[Path, Turn] = field(default_factory=dict)
    versions: dict[tuple[Path, int], Version] = field(default_factory=dict)

    def turn(self, directory: Path) -> Turn:
        """Held by who uses a directory."""
        return self.turns.setdefault(directory, Turn())

    async def version(self, binary: Path) -> Version:
        """What a program says it is; asked again when its file is another.

        Raises:
            NotEnvoy: it does not say so.
            OSError: it cannot be run.
        """
        key = (binary, (await trio.Path(binary).stat()).st_mtime_ns)
        if key not in self.versions:
            self.versions[key] = await ask_version(binary, self.env)
        return self.versions[key]


class EnvoyProcess:
    """Runs the Envoy of one proxy; a ``runtime.supervisor.Service``. Used once; ``found`` is what an earlier run left.

    ``ready`` is true while it is live: it has its configuration and listens. ``trouble`` says why it does not run, and
    is empty if it does.
    """

    def __init__(
        self,
        common: Common,
        proxy: ResourceKey,
        options: Options,
        at: Places,
        found: Found | None,
        took_over: TookOver | None = None,
    ) -> None:
        self.name = f"envoy of {proxy}"
        self.ready: Latest[bool] = Latest(value=False)
        self.trouble: Latest[str] = Latest("")
        self._common = common
        self._proxy = proxy
        self._options = options
        self._at = at
        self._found = found
        self._took_over = took_over
        self._turn = common.turn(at.directory)
        self._admin = Admin(AtSocket(at.admin_socket))
        self._is_retired = False
        self._has_handed_on = False
        self._ready_since: float | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; then drain and stop it, or leave it running.

        Started at once, before it is ready: it waits for its dp-server, which may start later than this. Waits for the
        end of an earlier process of the same proxy.
        """
        common = self._common
        async with self._turn.held():
            common.metrics.start(self._proxy)
            try:
                try:
                    await self._prepare()
                except OSError:
                    log.debug("%s: not prepared; it is tried again", self.name, exc_info=True)
                task_status.started()
                await retrying(self._attempt, WEATHER, name=self.name, rng=common.rng)
            finally:
                with trio.CancelScope(shield=True):
                    await self._end()

    def retire(self) -> None:
        """Say that the proxy does not come back: what follows is its end, whatever becomes of others."""
        self._is_retired = True

    def forget_series(self) -> None:
        """Drop what was counted: for a proxy that has stopped and does not come back."""
        self._common.metrics.forget(self._proxy)

    async def _prepare(self) -> str:
        """Make its files and admit its credential; returns that."""
        shown = credential(await trio.to_thread.run_sync(files.prepare, self._at))
        self._common.credentials.admit(self._proxy, shown)
        return shown

    async def _attempt(self) -> None:
        """One Envoy, from its start or adoption to its end.

        Raises:
            EnvoyEnded: it has ended unasked, or cannot be started.
            NotEnvoy: the program is no Envoy.
            OSError: its files cannot be written.
        """
        shown = await self._prepare()
        version = await self._common.version(self._options.binary)
        at = self._at
        about = Surroundings(self._proxy, at.admin_socket, at.sockets, shown, version)
        bootstrap = bootstrap_bytes(await self._common.bootstrap(about))
        with open_pipe(at.log) as fd:
            pipe = LogPipe(fd, self.name, lambda lines: self._common.metrics.dropped(self._proxy, lines))
            async with trio.open_nursery() as reading:
                scope = trio.CancelScope(shield=True)  # what it says while it is drained is carried too
                reading.start_soon(_follow, pipe, scope)
                try:
                    await self._one(bootstrap, version, pipe)
                finally:
                    scope.cancel()

    async def _one(self, bootstrap: bytes, version: Version, pipe: LogPipe) -> None:
        found, session = self._take_over()
        is_adopted = session is not None
        try:
            if found is not None and session is not None:
                reason = await self._why_replace(found, bootstrap, version)
                if reason:
                    log.info("%s: pid %d makes way for a new one: %s", self.name, session.pid, reason)
                    with trio.CancelScope(shield=True):
                        await session.stop(self._admin, self._options.drain_s, self.name)
                    session.close()
                    session, is_adopted = None, False
                else:
                    await self._tune(found)
                    await self._tell_listeners()
                    log.info("%s: goes on, pid=%d", self.name, session.pid)
            if session is None:
                session = await self._start(bootstrap)
            await self._watch(session, pipe)
        finally:
            if session is not None:
                with trio.CancelScope(shield=True):
                    await self._leave(session, is_adopted=is_adopted)

    async def _why_replace(self, found: Found, bootstrap: bytes, version: Version) -> str:
        """Why an Envoy that an earlier run left cannot go on; empty if it can."""
        running = await trio.to_thread.run_sync(files.read_or_nothing, self._at.bootstrap)
        reason = why_replace(found.argv, argv(self._options, self._at), running, bootstrap)
        if reason:
            return reason
        try:
            info = await self._first_answer()
        except UnavailableError as error:
            return str(error)
        if info.state == DRAINING:
            return "it was being drained"
        return "" if info.build == version.build else f"it is {info.build}, {version.build} is wanted"

    async def _first_answer(self) -> ServerInfo:
        """What an Envoy that may just have been started says of itself; waits a while for its admin interface."""
        give_up_at = trio.current_time() + ADOPT_S
        while True:
            try:
                return await self._admin.server_info()
            except UnavailableError:
                if trio.current_time() > give_up_at:
                    raise
            await trio.sleep(LAST_ASK_S / 10)

    async def _tune(self, found: Found) -> None:
        """Give a running Envoy what can be changed without a new start."""
        try:
            if log_level(found.argv) != self._options.log_level:
                await self._admin.set_log_level(self._options.log_level)
            await self._admin.reopen_log()
        except UnavailableError as error:
            log.warning("%s: its log stays as it is: %s", self.name, error)

    async def _tell_listeners(self) -> None:
        """Tell what a running Envoy listens on: its stream, which says so too, may come seconds later."""
        if self._took_over is None:
            return
        try:
            self._took_over(await self._admin.listeners())
        except UnavailableError as error:
            log.warning("%s: what it listens on is known when its stream is back: %s", self.name, error)

    async def _start(self, bootstrap: bytes) -> Session:
        await trio.to_thread.run_sync(write_private, self._at.bootstrap, bootstrap)
        command = argv(self._options, self._at)
        try:
            session = await Session.start(command, self._common.env, self._at.log)
        except OSError as error:
            reason = self._not_running(f"cannot start {command[0]}: {error.strerror}")
            raise EnvoyEnded(reason) from error
        log.info("%s: started, pid=%d", self.name, session.pid)
        return session

    async def _watch(self, session: Session, pipe: LogPipe) -> None:
        """Wait for its end.

        Raises:
            EnvoyEnded: always, in the end.
        """
        self._ready_since = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._become_ready)
            end = await session.wait()
            nursery.cancel_scope.cancel()
        pipe.carry()
        self._common.metrics.restarted(self._proxy)
        ready_s = trio.current_time() - self._ready_since if self._ready_since is not None else None
        raise EnvoyEnded(self._not_running(judge(end, ready_s, tuple(pipe.last_words))))

    async def _become_ready(self) -> None:
        pause_s = FIRST_ASK_S
        while True:
            try:
                if (await self._admin.server_info()).state == LIVE:
                    break
            except UnavailableError as error:  # it has not got so far
                log.debug("%s: %s", self.name, error)
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, LAST_ASK_S)
        log.info("%s: ready", self.name)
        self._ready_since = trio.current_time()
        self._publish_ready(is_ready=True)
        if self.trouble.value:
            self.trouble.publish("")

    def _publish_ready(self, *, is_ready: bool) -> None:
        self._common.metrics.up(self._proxy, is_up=is_ready)
        if is_ready != self.ready.value:
            self.ready.publish(is_ready)

    def _not_running(self, reason: str) -> str:
        self._publish_ready(is_ready=False)
        if reason != self.trouble.value:
            self.trouble.publish(reason)
        return reason

    def _take_over(self) -> tuple[Found | None, Session | None]:
        """The Envoy of this proxy that runs already, from who had it before us or from an earlier run of meshd."""
        left, self._turn.left = self._turn.left, None
        if left is not None:
            return left
        found, self._found = self._found, None
        return found, Session.adopt(found) if found is not None else None

    async def _leave(self, session: Session, *, is_adopted: bool) -> None:
        """End it or let it go on, as is wanted; one that has ended is just let go."""
        if session.has_ended:
            session.close()
        elif not self._is_retired and self._common.is_kept(is_adopted):
            log.info("%s: left running, pid=%d", self.name, session.pid)
            session.close()
        elif not (self._is_retired and await self._hand_on(session)):
            log.info("%s: draining, pid=%d", self.name, session.pid)
            self._publish_ready(is_ready=False)
            try:
                await session.stop(self._admin, self._options.drain_s, self.name)
            finally:
                session.close()
            log.info("%s: stopped", self.name)

    async def _hand_on(self, session: Session) -> bool:
        """Give a proxy that was removed time to come back, and its Envoy then to its successor; whether that was so.

        Its HTTP clients are told to go meanwhile.
        """
        found = read_process(session.pid)
        try:
            await self._admin.fail_health_check()
            if found is None or not await self._turn.is_wanted(min(SETTLE_S, self._options.drain_s)):
                return False
            await self._admin.pass_health_check()
        except UnavailableError as error:
            log.warning("%s: cannot wait for its proxy to come back: %s", self.name, error)
            return False
        log.info("%s: its proxy is back, pid=%d", self.name, session.pid)
        self._turn.left, self._has_handed_on = (found, session), True
        return True

    async def _end(self) -> None:
        """Leave one that was never taken over; of a retired proxy leave nothing, unless it is back."""
        if not self._has_handed_on:
            _, session = self._take_over()
            if session is not None:
                await self._leave(session, is_adopted=True)
        if self._is_retired and not self._has_handed_on:
            self._common.credentials.forget(self._proxy)
            await trio.to_thread.run_sync(files.remove, self._at)


async def _follow(pipe: LogPipe, scope: trio.CancelScope) -> None:
    with scope:
        await pipe.follow()
