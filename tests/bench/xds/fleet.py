"""All proxies, in several processes, as one."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tests.bench.xds.plane import Plane


@dataclass(frozen=True)
class Reached:
    """How far the proxies are: when each had acknowledged the last of what was expected, and what came meanwhile."""

    done: tuple[float, ...]
    messages: int
    resources: dict[str, int]
    received_bytes: int
    client_cpu_s: float


class Fleet:
    """``count`` proxies, dp-0 and up, spread over ``processes``."""

    def __init__(self, plane: Plane, count: int, processes: int) -> None:
        argv = [sys.executable, "-m", "tests.bench.xds.proxies", plane.address, "--ca", str(plane.ca)]
        argv += ["--name", plane.name, "--dp-version", plane.dp_version]
        argv += ["--token", str(plane.token)] if plane.token else []
        self.count = count
        shares = [count // processes + (i < count % processes) for i in range(processes)]
        self._shares = [share for share in shares if share]
        self._workers = [
            subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in self._shares
        ]
        self._cpu_s = 0.0

    def stop(self) -> None:
        for worker in self._workers:
            assert worker.stdin is not None
            with suppress(BrokenPipeError):
                worker.stdin.close()
        for worker in self._workers:
            try:
                worker.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()

    def connect(self) -> None:
        """Let all connect, with what they have kept."""
        first = 0
        commands = []
        for share in self._shares:
            commands.append({"do": "connect", "first": first, "count": share})
            first += share
        self._say(commands)

    def expect(self, counts: dict[str, int], marker: str = "") -> None:
        """Count from here: so many resources of each type, one of them with ``marker`` in it."""
        answers = self._say([{"do": "expect", "counts": counts, "marker": marker}] * len(self._workers))
        self._cpu_s = sum(answer["cpu_s"] for answer in answers)

    def drop(self, *, forget: bool = False) -> None:
        """End all connections; ``forget``: all that was received, too."""
        self._say([{"do": "drop"}] * len(self._workers))
        if forget:
            self._say([{"do": "forget"}] * len(self._workers))

    def wait(self, within_s: float) -> Reached:
        """Until all have what is expected."""
        return self._reached([{"do": "wait", "within_s": within_s}] * len(self._workers))

    def told(self) -> Reached:
        """Everything so far, also what came after what was expected."""
        return self._reached([{"do": "told"}] * len(self._workers))

    def _reached(self, commands: list[dict[str, Any]]) -> Reached:
        answers = self._say(commands)
        failures = [failure for answer in answers for failure in answer["failures"]]
        missing = sum(answer["missing"] for answer in answers)
        assert not failures, failures
        cpu_s = sum(answer["cpu_s"] for answer in answers)
        used = cpu_s - self._cpu_s
        resources: Counter[str] = Counter()
        for answer in answers:
            resources.update(answer["resources"])
        assert not missing, f"{missing} of {self.count} proxies do not have all: {dict(resources)}"
        done = sorted(at for answer in answers for at in answer["done"])
        return Reached(
            tuple(done),
            sum(answer["messages"] for answer in answers),
            dict(resources),
            sum(answer["bytes"] for answer in answers),
            used,
        )

    def _say(self, commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for worker, command in zip(self._workers, commands, strict=True):
            assert worker.stdin is not None
            with suppress(BrokenPipeError):  # told below, by its end
                worker.stdin.write(json.dumps(command) + "\n")
                worker.stdin.flush()
        answers = []
        for worker in self._workers:
            assert worker.stdout is not None
            line = worker.stdout.readline()
            assert line, f"a process of proxies has ended: {worker.wait(5)}"
            answers.append(json.loads(line))
        return answers


@contextmanager
def fleet(plane: Plane, count: int, processes: int) -> Iterator[Fleet]:
    """Proxies that are not connected yet."""
    made = Fleet(plane, count, processes)
    try:
        yield made
    finally:
        made.stop()


def quiet(plane: Plane, within_s: float = 60.0, share: float = 0.1) -> None:
    """Wait until it uses less than ``share`` of a core over a second."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        before = plane.cpu_s
        time.sleep(1)
        if plane.cpu_s - before < share:
            return
