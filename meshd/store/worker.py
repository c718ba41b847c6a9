"""One thread that runs blocking calls in order, for a library whose connection must stay in one thread."""

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

import trio

T = TypeVar("T")


class Worker:
    """A daemon thread of its own, so that a slow disk never takes threads from the shared pool."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    async def run(self, job: Callable[[], T]) -> T:
        """What ``job`` returns or raises, from the thread. Cannot be cancelled: the outcome is always known."""
        token = trio.lowlevel.current_trio_token()
        finished = trio.Event()
        outcome: list[tuple[T | None, BaseException | None]] = []

        def call() -> None:
            try:
                outcome.append((job(), None))
            except BaseException as error:  # noqa: BLE001 - carried over to the caller, whatever it is
                outcome.append((None, error))
            with suppress(trio.RunFinishedError):  # then nobody is left to be told
                token.run_sync_soon(finished.set)

        self._jobs.put(call)
        with trio.CancelScope(shield=True):
            await finished.wait()
        result, error = outcome[0]
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # an error is None only beside a result

    def stop(self) -> None:
        """End the thread after the jobs it has; returns at once."""
        self._jobs.put(None)

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
