"""``meshd`` with a watch on its loop: ``python -m tests.bench.xds.watched TURNS.json --config zone.yaml``.

At SIGUSR2 it writes how long the turns of the loop were since the last time, in CPU time of the loop's thread, and
which tasks had the longest steps. The watch itself costs some microseconds a turn.
"""

import gc
import json
import signal
import sys
import time
from pathlib import Path

import trio

import meshd.app.app
from meshd.cli import main


class Watch(trio.abc.Instrument):
    """Times turns and steps."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn_began = self._step_began = self._collecting = 0.0
        self.turns_ms: list[float] = []
        self.steps_ms: dict[str, list[float]] = {}
        gc.callbacks.append(self._collected)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            took_ms = (time.thread_time() - self._collecting) * 1e3
            self.steps_ms.setdefault(f"(garbage of generation {info['generation']})", []).append(took_ms)

    def after_io_wait(self, _: float) -> None:
        self._turn_began = time.thread_time()

    def before_io_wait(self, _: float) -> None:
        self.turns_ms.append((time.thread_time() - self._turn_began) * 1e3)

    def before_task_step(self, _: trio.lowlevel.Task) -> None:
        self._step_began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        took_ms = (time.thread_time() - self._step_began) * 1e3
        name = getattr(task.coro, "__qualname__", task.name)
        self.steps_ms.setdefault(name, []).append(took_ms)

    def write(self, *_: object) -> None:
        turns, steps = sorted(self.turns_ms), self.steps_ms
        self.turns_ms, self.steps_ms = [], {}
        found = {
            "turns": len(turns),
            "p50_ms": turns[len(turns) // 2],
            "p99_ms": turns[len(turns) * 99 // 100],
            "longest_ms": turns[-10:][::-1],
            "steps": {
                name: {"count": len(taken), "longest_ms": max(taken), "all_ms": sum(taken)}
                for name, taken in sorted(steps.items(), key=lambda item: -sum(item[1]))[:15]
            },
        }
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(found))
        new.rename(self._path)


if __name__ == "__main__":
    watch = Watch(Path(sys.argv[1]))
    signal.signal(signal.SIGUSR2, watch.write)
    run = meshd.app.app._run_until_signalled

    async def watched(*arguments):
        trio.lowlevel.add_instrument(watch)
        await run(*arguments)

    meshd.app.app._run_until_signalled = watched
    sys.argv[1:] = sys.argv[2:]
    sys.exit(main())
