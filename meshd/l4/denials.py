"""Which refused clients are worth a line in the log: each once a minute, however often it comes back. Pure."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

PERIOD_S = 60.0
"""One line about a client, at a listener, by a rule, in so many seconds."""

REMEMBERED = 1024
"""Of so many (listener, client, rule) the last line is remembered. Beyond, within one period, nothing is said: they are
counted as verdicts all the same."""


@dataclass(slots=True)
class _Said:
    """When the last line was, in seconds, and how many were refused since without one."""

    at: float
    unsaid: int = 0


class Denials:
    """The memory of one proxy."""

    def __init__(self, period_s: float = PERIOD_S, remembered: int = REMEMBERED) -> None:
        self._period_s = period_s
        self._remembered = remembered
        self._said: OrderedDict[tuple[str, tuple[str, ...], str], _Said] = OrderedDict()

    def line(self, listener: str, uris: Sequence[str], rule: str, now: float) -> str | None:
        """What to log of a client with these URI SANs whom ``rule`` refused, if anything; ``now`` in monotonic seconds.

        It says how many times the same was refused since the last line about it.
        """
        key = (listener, tuple(uris), rule)
        said = self._said.get(key)
        if said is not None and now - said.at < self._period_s:
            said.unsaid += 1
            return None
        if said is None and len(self._said) >= self._remembered:
            if now - next(iter(self._said.values())).at < self._period_s:
                return None
            self._said.popitem(last=False)
        self._said[key] = _Said(now)
        self._said.move_to_end(key)
        again = f" ({said.unsaid} more since the last such line)" if said is not None and said.unsaid else ""
        return f"{listener}: denied client={client_of(uris)} rule={rule}{again}"


def client_of(uris: Sequence[str]) -> str:
    """Who a client is, of all that its certificate says: its SPIFFE URIs."""
    return ",".join(uri for uri in uris if uri.startswith("spiffe://")) or "nobody"
