"""How the end of an Envoy is judged."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: ``status`` is its exit code, or the negative signal; None if nobody could know.

    Only the parent learns it, so it is unknown of an Envoy that an earlier meshd started.
    """

    status: int | None


def judge(end: Exit, ready_s: float | None, last_words: Sequence[str]) -> str:
    """Why an Envoy that nobody stopped is gone, for people, with the last it had to say. It is to be started again.

    ``ready_s`` is how long it was ready, None if it never was: then the reason is the same at every attempt.
    """
    lived = "before it was ready" if ready_s is None else f"after it was ready for {_for_people(ready_s)}"
    match end.status:
        case None:
            how = f"ended {lived}"
        case 0:
            how = f"ended by itself {lived}"
        case status if status < 0:
            name = _signal_name(-status)
            hint = " (by a person, or for want of memory)" if status == -signal.SIGKILL else ""
            how = f"was ended by {name}{hint} {lived}"
        case status:
            how = f"failed with exit code {status} {lived}"
    return f"{how}: {'; '.join(last_words)}" if last_words else how


def _for_people(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
