"""What is wrong with a configuration, and where."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from meshd.model.errors import MeshdError


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong. ``line`` counts from 1, 0 if there is none; ``key`` is the path as the user wrote it.

    ``source`` is the file as named on the command line, or ``environment`` (then ``key`` is the variable).
    """

    source: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}" if self.line else self.source
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class ConfigErrors(MeshdError):  # noqa: N818  # it carries all of them
    """Everything that is wrong with the given files, sorted by file and line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(p) for p in self.problems))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A clause to append to "unknown key": the closest known word, or all of them if there are few."""
    choices = sorted(known)
    by_lower = {c.lower(): c for c in choices}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{by_lower[close[0]]}'?"
    if 0 < len(choices) <= 12:
        return f"; known here: {', '.join(choices)}"
    return ""
