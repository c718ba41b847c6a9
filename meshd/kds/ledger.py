"""Whether two control planes have the same: what each end of a stream counts, and what follows from it. Pure.

Both ends add up the same thing, one hash of every name and version that was sent, so that equal digests are equal sets
whatever the order. The sending end puts its sum into every response (``system_version_info``, which Kuma leaves empty
and does not read), so that a receiving meshd knows at once that something was lost. What arrived is remembered as it
was stored, so that it also shows when something else changed a copy.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from meshd.discovery import sums
from meshd.model.resource import Resource

MARK = "meshd-sum"


@dataclass(frozen=True, slots=True)
class Sum:
    """How many resources a set has, and the sum of their hashes."""

    count: int = 0
    total: int = 0

    def changed(self, name: str, before: str | None, after: str | None) -> "Sum":
        """The sum once a resource has another version; None: it is not there."""
        count, total = self.count, self.total
        if before is not None:
            count, total = count - 1, total - sums.of_one(name, before)
        if after is not None:
            count, total = count + 1, total + sums.of_one(name, after)
        return Sum(count, total)

    @property
    def digest(self) -> str:
        """The sum of the hashes, 32 hex digits."""
        return sums.shown(self.total)

    @property
    def mark(self) -> str:
        """As a response says it."""
        return f"{MARK}:{self.count}:{self.digest}"


EMPTY = Sum()


def sum_of(versions: Mapping[str, str]) -> Sum:
    """The sum of a whole set."""
    return Sum(len(versions), sum(sums.of_one(name, version) for name, version in versions.items()))


def contradicts(mark: str, own: Sum) -> bool:
    """Whether a response says another sum than ours. What another program puts there says nothing."""
    return mark.startswith(MARK + ":") and mark != own.mark


@dataclass(frozen=True, slots=True)
class Kept:
    """A received resource as it was stored; it shares the bytes and labels of the store."""

    labels: Mapping[str, str]
    wire: bytes | None

    def is_still(self, stored: Resource | None) -> bool:
        """Whether the store has it unchanged. Its status is the receiving end's own."""
        if stored is None:
            return False
        return stored.wire == self.wire and (stored.labels is self.labels or dict(stored.labels) == dict(self.labels))


class State(enum.Enum):
    """What is to be said of one kind on one way, worst first; values are shown to users."""

    UNKNOWN = "unknown"
    """There is no stream, and what the other end has now cannot be known."""
    DIVERGED = "diverged"
    """What is stored is not what was sent."""
    REFUSED = "refused"
    WITHHELD = "withheld"
    """Nothing is sent of the kind: some of it cannot be read from the store."""
    BEHIND = "behind"
    WAITING = "waiting"
    """Nothing was received of the kind on this stream: the other end may have nothing to say."""
    IN_SYNC = "in sync"


@dataclass(frozen=True, slots=True)
class KindSync:
    """One kind on one way. Sending: what the other end acknowledged. Receiving: what arrived.

    ``sequence`` counts responses on the newest stream; ``at`` is when the last one was answered, None before.
    ``behind`` resources differ ``since``. ``reason`` is for refused, diverged, withheld and unknown.
    """

    kind: str
    state: State
    sequence: int
    sum: Sum
    at: datetime | None = None
    behind: int = 0
    since: datetime | None = None
    reason: str = ""

    @property
    def words(self) -> str:
        """The state as people read it."""
        if self.state is State.BEHIND:
            return f"behind by {self.behind}" + (f" since {self.since:%Y-%m-%dT%H:%M:%SZ}" if self.since else "")
        return f"{self.state.value}: {self.reason}" if self.reason else self.state.value


def behind(wanted: Mapping[str, str], held: Mapping[str, str]) -> int:
    """How many names the other end has in another version, lacks, or has too many."""
    differing = sum(1 for name, version in wanted.items() if held.get(name) != version)
    return differing + sum(1 for name in held if name not in wanted)


def listed(names: Iterable[object], limit: int = 5) -> str:
    """Some names, for people."""
    ordered = sorted(map(str, names))
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + more
