"""Tiers of services: started in order, stopped in reverse; weather is retried, a bug ends the process."""

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from meshd.model.errors import MeshdError

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 15.0
STABLE_S = 60.0
"""A run that lasted this long counts as healthy: the next failure starts again from the first backoff."""


class Service(Protocol):
    """Something that runs until it is cancelled.

    ``run`` calls ``task_status.started()`` once it is useful (socket bound, first view built), opens its own nursery
    for what it spawns and leaves no task behind.
    """

    name: str

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run until cancelled."""


async def supervise(tiers: Sequence[Sequence[Service]], stop: trio.Event, started: Callable[[], None]) -> None:
    """Run ``tiers`` until ``stop`` is set: tier N starts once N-1 is ready, and ends before it.

    ``started`` is called once, when the last tier is ready. An exception of any service ends them all.
    """
    if not tiers:
        started()
        await stop.wait()
        return
    async with trio.open_nursery() as nursery:
        for service in tiers[0]:
            await nursery.start(service.run)
        await supervise(tiers[1:], stop, started)
        nursery.cancel_scope.cancel()


async def retrying(
    attempt: Callable[[], Awaitable[None]],
    weather: tuple[type[BaseException], ...],
    *,
    name: str,
    rng: random.Random,
    max_backoff_s: float = MAX_BACKOFF_S,
    level: int = logging.WARNING,
) -> None:
    """Run ``attempt`` again and again, with full-jitter exponential backoff, until cancelled.

    An attempt that returns is an end like any other: it is run again. Only the ``weather`` classes are retried;
    everything else is a bug and passes through. Logs a reason at ``level`` when it is another than the last one; a
    caller that says itself what it lost passes ``logging.DEBUG``.
    """
    backoff_s = FIRST_BACKOFF_S
    last_reason = ""
    while True:
        began = trio.current_time()
        try:
            await attempt()
            reason = "ended"
        except weather as error:
            reason = reasons(error)
        except BaseExceptionGroup as group:
            matched, rest = group.split(weather)
            if rest is not None:
                raise
            reason = reasons(matched)
        if trio.current_time() - began >= STABLE_S:
            backoff_s = FIRST_BACKOFF_S
        if reason != last_reason:
            log.log(level, "%s: %s; trying again", name, reason)
            last_reason = reason
        await trio.sleep(rng.uniform(backoff_s / 2, backoff_s))
        backoff_s = min(backoff_s * 2, max_backoff_s)


def reasons(error: BaseException | None) -> str:
    """What failed, for people: each cause once, though several tasks of a group may have met it.

    meshd's own errors are whole sentences; others are named by their class too, for they may say nothing else.
    """
    found = [str(e) if isinstance(e, MeshdError) and str(e) else f"{type(e).__name__}: {e}" for e in leaves(error)]
    return "; ".join(dict.fromkeys(found))


def leaves(error: BaseException | None) -> list[BaseException]:
    """The exceptions inside a group, however deep; the exception itself if it is none."""
    if error is None:
        return []
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]
