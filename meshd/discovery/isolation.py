"""Which resources of a rejected response are the bad ones: named by the other end, or found by halving."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from meshd.discovery.messages import Rejection
from meshd.model.errors import shortened

Blame = Callable[[str, Rejection, Collection[str]], Mapping[str, str]]
"""(type, why it was rejected, names in the response) -> the names that the other end did not apply, with the reasons.

It has applied the others. None of them named: the response was rejected as a whole and nothing of it was applied.
"""


@dataclass(frozen=True, slots=True)
class Refused:
    """A version of a resource that the other end does not take. ``held`` is the one it has instead, None for none."""

    version: str
    reason: str
    held: str | None = None


@dataclass(slots=True)
class Isolation:
    """What of one type is refused, and the parts of a rejected response that are yet to be tried again.

    A response that is rejected as a whole is sent again in halves, and what is rejected of those in halves again, until
    the bad resources are alone: each version is sent at most as often as it can be halved, and all good ones arrive.
    """

    refused: dict[str, Refused] = field(default_factory=dict)
    trials: list[tuple[str, ...]] = field(default_factory=list)

    def accepted(self, names: Collection[str]) -> None:
        """Take in an ACK of a response with these names."""
        if self.refused:
            for name in names:
                self.refused.pop(name, None)

    def rejected(
        self, sent: Mapping[str, tuple[str | None, str | None]], blamed: Mapping[str, str], reason: str
    ) -> Collection[str]:
        """Take in a NACK of a response; returns the names of which nothing was applied.

        ``sent`` has, for every name in it, the version the other end had before and the one that was sent (None:
        absent, removed). ``reason`` is that of all of it.
        """
        names = sorted(sent)
        guilty = [n for n in names if n in blamed] or (names if len(names) == 1 else [])
        for name in guilty:
            before, after = sent[name]
            if after is not None:
                self.refused[name] = Refused(after, shortened(blamed.get(name, reason)), before)
        if guilty:
            self.accepted([n for n in names if n not in guilty])
            return guilty
        middle = len(names) // 2
        self.trials = [part for part in (tuple(names[:middle]), tuple(names[middle:])) if part] + self.trials
        return names

    def is_refused(self, name: str, version: str) -> bool:
        """Whether this version was refused already."""
        refused = self.refused.get(name)
        return refused is not None and refused.version == version
