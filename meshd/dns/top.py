"""The names that are asked for most, in bounded memory whatever clients ask.

Misra and Gries' summary, pruned in batches: when there are twice as many counters as are kept, that of the middle is
taken off all, and those that come to nothing go. What is told of a name is never too much, and too little by at most
``error``, a share of one in ``size`` of all that was counted.

Source: Misra, Gries, "Finding repeated elements" (1982); Anderson et al., "A high-performance algorithm for identifying
frequent items in data streams" (IMC 2017).
"""

import heapq
from collections import Counter
from collections.abc import Iterable
from typing import Final

Key = tuple[bytes, str]
"""A name in wire form and lower case, and the rcode it was answered with."""
Ranking = list[tuple[str, str, int]]
"""Name as text, rcode, and how often it was asked for; the most first."""
PERIOD_S: Final = 10
PERIODS: Final = 6
"""What is told is of the last minute: of the five whole periods before and of the one that has begun."""
COUNTERS_A_NAME: Final = 8
MIN_COUNTERS: Final = 256


class Summary:
    """Counts of about the ``size`` most frequent of any number of keys."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.counts: dict[Key, int] = {}
        self.error = 0
        """By how much a count may be too low."""

    def add(self, key: Key) -> None:
        """Count one."""
        counts = self.counts
        counts[key] = counts.get(key, 0) + 1
        if len(counts) >= 2 * self._size:
            self._prune()

    def _prune(self) -> None:
        middle = sorted(self.counts.values())[len(self.counts) - self._size]
        self.counts = {key: count - middle for key, count in self.counts.items() if count > middle}
        self.error += middle


class TopNames:
    """The ``size`` names that were asked for most in the last minute. Written by one loop; may be read by another."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._counters = max(MIN_COUNTERS, COUNTERS_A_NAME * size)
        self._periods = [Summary(self._counters)]
        self._number = 0

    def tick(self, now: float) -> None:
        """Let time go on, in seconds of a clock that goes forward."""
        number = int(now / PERIOD_S)
        if number != self._number:
            passed = min(number - self._number, PERIODS)
            kept = [Summary(self._counters) for _ in range(passed)] + self._periods
            self._periods = kept[:PERIODS]
            self._number = number

    def add(self, key: Key) -> None:
        """Count one query."""
        self._periods[0].add(key)

    def ranking(self, now: float) -> list[tuple[Key, int]]:
        """The most first; of equals the first by name."""
        since = int(now / PERIOD_S) - self._number
        total: dict[Key, int] = {}
        for period in self._periods[: max(0, PERIODS - since)]:
            # Neither Counter.update nor a sort of all: under a flood of names both take three times as long together.
            for key, count in period.counts.copy().items():
                total[key] = total.get(key, 0) + count
        return heapq.nsmallest(self._size, total.items(), key=lambda item: (-item[1], item[0]))


def merged(rankings: Iterable[Ranking], size: int) -> Ranking:
    """What several processes tell, as one."""
    total: Counter[tuple[str, str]] = Counter()
    for ranking in rankings:
        for name, rcode, count in ranking:
            total[name, rcode] += count
    first = sorted(total.items(), key=lambda item: (-item[1], item[0]))[:size]
    return [(name, rcode, count) for (name, rcode), count in first]
