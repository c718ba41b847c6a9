"""How long a query waits, told apart from how long the machine keeps everybody waiting.

On a machine that others use, a latency is as often theirs as ours. Two remedies, used together:

- Waiting is measured on two clocks: the wall's, and the CPU clock of the process under test. The second says how much
  work of that process was done between question and answer; it stands still while somebody else has the core.
- A sample during which the client itself was late is thrown away.

The CPU clock is good to a kernel tick only: while the process runs on another core, its clock as others read it stands
still for up to 4 ms and then jumps. So figures of "work" near 4 ms say no more than "busy then"; take those of the
wall, with the benchmark at a real-time priority (``chrt -f 5``), where both disagree.
"""

import time

LATE_S = 0.003
"""A client that wanted to run every millisecond and was held up for longer has seen nothing."""


def cpu_clock(pid: int) -> int:
    """The id of a process's CPU clock for ``time.clock_gettime`` (clock_getcpuclockid(3))."""
    return (~pid << 3) | 2


class Samples:
    """Latencies of one client in milliseconds, on both clocks."""

    def __init__(self, pid: int) -> None:
        self._clock = cpu_clock(pid)
        self.wall_ms: list[float] = []
        self.cpu_ms: list[float] = []
        self.discarded = 0
        self._held_up_at = self._ticked = time.perf_counter()

    def begin(self) -> tuple[float, float]:
        """The moment a question is asked."""
        return time.perf_counter(), time.clock_gettime(self._clock)

    def end(self, began: tuple[float, float]) -> None:
        """Its answer has come."""
        if began[0] <= self._held_up_at:
            self.discarded += 1
            return
        self.wall_ms.append((time.perf_counter() - began[0]) * 1e3)
        self.cpu_ms.append((time.clock_gettime(self._clock) - began[1]) * 1e3)

    def tick(self) -> None:
        """To be called every millisecond, before ``end``."""
        now = time.perf_counter()
        if now - self._ticked > LATE_S:
            self._held_up_at = now
        self._ticked = now

    def summary(self) -> dict[str, float]:
        """What a row of the table needs."""
        figures: dict[str, float] = {"kept": len(self.wall_ms), "discarded": self.discarded}
        for name, values in (("wall", self.wall_ms), ("cpu", self.cpu_ms)):
            ordered = sorted(values) or [float("nan")]
            figures |= {f"{name}_p{q}": ordered[len(ordered) * q // 100] for q in (50, 99)}
        return figures
