"""Tiers of services: started in order, stopped in reverse; weather is retried, a bug ends the process."""

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

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
) -> None:
    """Run ``attempt`` again and again, with full-jitter exponential backoff, until cancelled.

    An attempt that returns is an end like any other: it is run again. Only the ``weather`` classes are retried;
    everything else is a bug and passes through. Logs once per transition between failing and stable.
    """
    backoff_s = FIRST_BACKOFF_S
    last_reason = ""
    while True:
        began = trio.current_time()
        try:
            await attempt()
            reason = "ended"
        except weather as error:
            reason = f"{type(error).__name__}: {error}"
        except BaseExceptionGroup as group:
            matched, rest = group.split(weather)
            if rest is not None:
                raise
            reason = "; ".join(f"{type(e).__name__}: {e}" for e in leaves(matched))
        if trio.current_time() - began >= STABLE_S:
            backoff_s = FIRST_BACKOFF_S
        if reason != last_reason:
            log.warning("%s: %s; trying again", name, reason)
            last_reason = reason
        await trio.sleep(rng.uniform(backoff_s / 2, backoff_s))
        backoff_s = min(backoff_s * 2, max_backoff_s)


def leaves(error: BaseException | None) -> list[BaseException]:
    """The exceptions inside a group, however deep; the exception itself if it is none."""
    if error is None:
        return []
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]
