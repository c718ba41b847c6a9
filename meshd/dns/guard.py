"""Who is answered over UDP, and how much: clients may be restricted, and no address is flooded in another's name."""

import enum
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from meshd.dns.table import MAPPED

Network = IPv4Network | IPv6Network

LOOPBACK: Final[tuple[Network, ...]] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
V6_PREFIX_BYTES: Final = 7
"""A /56: what one customer has. Of IPv4 it is a /24, three bytes."""
MAX_PREFIXES: Final = 16384
"""Counted in one second; what comes from more shares one count."""
MAX_HOSTS: Final = 16384
"""Whose right to ask is remembered; when there are more, we begin anew."""
SLIP: Final = 2
"""Of what is over the limit every so manyth query is told to come by TCP, which no false sender can; the rest is
dropped (the "slip" of other servers, and their default)."""


class Verdict(enum.Enum):
    """What a query from somewhere gets."""

    ANSWER = "answer"
    BY_TCP = "by_tcp"
    REFUSE = "refuse"
    DROP = "drop"


class Guard:
    """Judges queries by where they come from. ``rate`` is how many answers a second a prefix gets; 0 for no limit.

    This host itself is always answered and never limited: loopback cannot be forged from outside. The limit is by
    whole seconds, so a burst over the end of one may be twice as long.
    """

    def __init__(self, allow: Sequence[Network], rate: int) -> None:
        self._allow = tuple(allow)
        self._rate = rate
        self._may: dict[bytes, bool | None] = {}
        self._second = 0
        self._counts: dict[bytes, int] = {}

    def may(self, host: bytes) -> bool | None:
        """Whether a packed address may ask; None if it is this host's loopback."""
        try:
            return self._may[host]
        except KeyError:
            pass
        if len(self._may) >= MAX_HOSTS:
            self._may = {}
        self._may[host] = allowed = judged(host, self._allow)
        return allowed

    def judge(self, host: bytes, second: int) -> Verdict:
        """What a query by UDP from a packed address gets, in this second of any clock. Counts it."""
        allowed = self.may(host)
        if allowed is None:
            return Verdict.ANSWER
        if self._rate:
            if second != self._second:
                self._second, self._counts = second, {}
            counts = self._counts
            prefix = host[:3] if len(host) == 4 else host[12:15] if host[:12] == MAPPED else host[:V6_PREFIX_BYTES]
            if prefix not in counts and len(counts) >= MAX_PREFIXES:
                prefix = b""
            count = counts[prefix] = counts.get(prefix, 0) + 1
            if count > self._rate:
                # One that may not ask is not asked to come again.
                return Verdict.BY_TCP if allowed and (count - self._rate) % SLIP == 0 else Verdict.DROP
        return Verdict.ANSWER if allowed else Verdict.REFUSE


def unpacked(host: bytes) -> IPv4Address | IPv6Address:
    """A packed address; one of IPv4 that is mapped into IPv6 is of IPv4."""
    address = ip_address(host)
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def judged(host: bytes, allow: Sequence[Network]) -> bool | None:
    """See ``Guard.may``."""
    address = unpacked(host)
    if any(address in network for network in LOOPBACK):
        return None
    return any(address in network for network in allow)
