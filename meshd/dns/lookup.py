"""Addresses of a name as the upstreams know it: for those in this process that must not be led to a virtual IP."""

from dataclasses import replace

import dnslib

from meshd.dns import forward, wire
from meshd.dns.client import Upstreams
from meshd.dns.metrics import Tally
from meshd.dns.settings import DnsSettings

MAX_IN_FLIGHT = 64
"""Lookups at a time; one a name of an external service is the most there can be use for."""


class RealAddresses:
    """Asks the upstreams for A and, if there are none, AAAA records. Their answers are believed as forwarded ones."""

    def __init__(self, settings: DnsSettings) -> None:
        # Who asks keeps the answers himself, and asks again when he wants newer ones.
        self._upstreams = Upstreams(replace(settings, max_outstanding=MAX_IN_FLIGHT, cache_entries=0), Tally(None))

    async def __call__(self, host: str) -> tuple[str, ...]:
        """The IP addresses of ``host``, none if nobody knows any.

        Raises:
            OSError: this is no name that DNS can carry.
        """
        for qtype in (wire.A, wire.AAAA):
            told = await self._upstreams.ask(query_of(host, qtype))
            if told is not None and (found := addresses_in(told[0], qtype)):
                return found
        return ()


def query_of(host: str, qtype: int) -> wire.Query:
    """A recursive query for ``host``; its id is replaced on the way out.

    Raises:
        OSError: this is no name that DNS can carry.
    """
    try:
        name = wire.name_to_wire(host)
    except ValueError as error:
        raise OSError(str(error)) from error
    return wire.parse_query(wire.query_message(name, qtype))


def addresses_in(reply: bytes, qtype: int) -> tuple[str, ...]:
    """The addresses of the asked type among the answers, whatever alias they are under; none in a broken reply."""
    if forward.flags_of(reply) & 0xF != wire.NOERROR:
        return ()
    try:
        answers = dnslib.DNSRecord.parse(reply).rr
    except (dnslib.DNSError, ValueError, LookupError):
        return ()
    return tuple(str(record.rdata) for record in answers if record.rtype == qtype)
