"""The errors that somebody catches by name. Each says whose doing it was."""

from collections.abc import Iterable
from dataclasses import dataclass


class MeshdError(Exception):
    """Base of all errors that meshd raises on purpose."""


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One thing wrong with a caller's data.

    ``field`` is a path in the document as the user wrote it (``networking.inbound[0].port``), empty for the whole.
    ``message`` names the value and says what to do.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


MAX_REASON = 500
"""Characters of a reason that are kept where somebody else chooses how long it is."""


def shortened(reason: str) -> str:
    """A reason cut to a length fit for logs, answers, insights and memory."""
    return reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 3] + "..."


class InvalidError(MeshdError):
    """The caller's data is wrong; carries every violation that was found, not just the first."""

    def __init__(self, subject: str, violations: Iterable[Violation]) -> None:
        self.subject = subject
        self.violations = tuple(violations)
        super().__init__(f"{subject}: " + "; ".join(str(v) for v in self.violations))


class NotFoundError(MeshdError):
    """The named object does not exist."""


class ConflictError(MeshdError):
    """Somebody else changed the object first, it exists already, or it is owned by somebody else."""


class DeniedError(MeshdError):
    """The caller is known (or not) and may not do this."""


class PeerError(MeshdError):
    """The other side broke the protocol."""


class UnavailableError(MeshdError):
    """Weather: a peer or a database is away; trying again later is right."""
