"""One running Envoy: how it is started and adopted, how its end is noticed, and how it is drained and stopped.

It is not tied to this process: it has a session of its own and gets no signal when its parent dies. A pidfd tells of
its end, whether it is a child or was adopted.
"""

import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import trio

from meshd.envoy.client import Admin
from meshd.envoy.command import NotEnvoy, Version, parse_version
from meshd.envoy.exits import Exit
from meshd.envoy.processes import Found, read_process
from meshd.model.errors import UnavailableError

log = logging.getLogger(__name__)

TERM_S = 5.0
"""How long Envoy may take to end once told: it closes what is open and needs milliseconds."""
VERSION_S = 10.0
FIRST_ASK_S, LAST_ASK_S = 0.05, 0.5
"""How soon, and later how often, a draining Envoy is asked whether anything is still open."""


class Session:
    """A process, known by a pidfd, so that a signal never reaches another one. Close it when done."""

    def __init__(self, pid: int, pidfd: int, *, is_child: bool) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._is_child = is_child
        self._exit: Exit | None = None

    @classmethod
    async def start(cls, argv: Sequence[str], env: Mapping[str, str], stderr: Path) -> Self:
        """Start a program; its standard error goes to the named pipe ``stderr``, which somebody must have open.

        Raises:
            OSError: it cannot be started.
        """
        pid = await trio.to_thread.run_sync(_spawn, argv, env, stderr)  # not abandoned: a started one is never lost
        return cls(pid, os.pidfd_open(pid), is_child=True)

    @classmethod
    def adopt(cls, found: Found) -> Self | None:
        """Take over a process that somebody else started; None if it is gone, and another may have its id."""
        try:
            pidfd = os.pidfd_open(found.pid)
        except OSError:
            return None
        session = cls(found.pid, pidfd, is_child=False)
        if read_process(found.pid) != found:
            session.close()
            return None
        return session

    @property
    def has_ended(self) -> bool:
        """Whether ``wait`` has told of its end."""
        return self._exit is not None

    async def wait(self) -> Exit:
        """How it ended, once it has."""
        if self._exit is None:
            await trio.lowlevel.wait_readable(self._pidfd)
            self._exit = Exit(self._reap())
        return self._exit

    def _reap(self) -> int | None:
        if not self._is_child:
            return None
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended takes none."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    async def stop(self, admin: Admin, drain_s: float, name: str) -> None:
        """End it: it lets HTTP clients go, takes no more connections, and has ``drain_s`` for those it has.

        Sooner if nothing is open any more. Bounded, so it may be shielded. Returns when it has ended.
        """
        with trio.move_on_after(drain_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_at_end, nursery.cancel_scope)
                try:
                    await _drain(admin)
                except UnavailableError as error:
                    log.warning("%s: cannot be drained: %s", name, error)
                nursery.cancel_scope.cancel()
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.signal(number)
            with trio.move_on_after(TERM_S):
                await self.wait()
                return
            log.warning("%s: pid %d has not ended %.0f s after %s", name, self.pid, TERM_S, number.name)

    async def _cancel_at_end(self, scope: trio.CancelScope) -> None:
        await self.wait()
        scope.cancel()

    def close(self) -> None:
        """Let go of it; if it runs, it goes on."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


class Turn:
    """Whose turn it is to run the Envoy of a proxy: those of one that comes and goes and comes follow each other.

    ``left`` is an Envoy that goes on, with its command line, for whoever waits: it is theirs as soon as they have the
    turn.
    """

    def __init__(self) -> None:
        self.left: tuple[Found, Session] | None = None
        self._lock = trio.Lock()
        self._wanted = trio.Event()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Have the turn. Who waits is not cancelled: what is left for them must have an owner."""
        self._wanted.set()
        with trio.CancelScope(shield=True):
            await self._lock.acquire()
        try:
            if not self._lock.statistics().tasks_waiting:
                self._wanted = trio.Event()
            yield
        finally:
            self._lock.release()

    async def is_wanted(self, within_s: float) -> bool:
        """Whether somebody waits for the turn, which is ours, or does within some seconds."""
        with trio.move_on_after(within_s):
            await self._wanted.wait()
        return self._wanted.is_set()


async def _drain(admin: Admin) -> None:
    """Return once nothing is open.

    Listeners are closed at once and not after Envoy's own drain time (``?graceful``): a connection that is refused can
    be tried elsewhere, one that is taken during the drain is cut at its end. The built-in engine does the same.
    """
    await admin.fail_health_check()
    await admin.close_listeners()
    pause_s = FIRST_ASK_S
    while await admin.open_connections():
        await trio.sleep(pause_s)
        pause_s = min(pause_s * 2, LAST_ASK_S)


async def ask_version(binary: Path, env: Mapping[str, str]) -> Version:
    """What a program says it is.

    Raises:
        NotEnvoy: it does not say so, or not in ten seconds.
        OSError: it cannot be run.
    """
    with trio.move_on_after(VERSION_S):
        done = await trio.run_process(
            [binary, "--version"], capture_stdout=True, capture_stderr=True, check=False, env=env
        )
        return parse_version(done.stdout.decode(errors="replace"), binary)
    raise NotEnvoy(f"{binary} does not say which Envoy it is: no answer to --version")


def _spawn(argv: Sequence[str], env: Mapping[str, str], stderr: Path) -> int:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    # Not blocking: with nobody to read it, a full pipe must not stop Envoy.
    errors = os.open(stderr, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.posix_spawn(
            argv[0],
            tuple(argv),
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate((null, null, errors))],
            setsid=True,  # not the terminal's: Ctrl-C is for meshd, which drains it
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores them
        )
    finally:
        os.close(null)
        os.close(errors)
