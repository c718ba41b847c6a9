"""Asking for names that are not ours: from what is kept, or from the servers (``session.py``).

::

    ask -> cached? -> somebody asks already? (Flight) -> Servers.ask -> kept
              `-> hot and nearly over, or a server may be back: again in the background (``run``)
"""

from dataclasses import dataclass, field

import trio

from meshd.dns import forward, wire
from meshd.dns.cache import STALE_TTL_S, Cache, Entry, Key, is_due, key_of
from meshd.dns.metrics import Tally
from meshd.dns.reply import Limits, Reply, limited, packed
from meshd.dns.session import TOTAL_S, Servers
from meshd.dns.settings import DnsSettings
from meshd.dns.wire import Query

STALE_AFTER_S = 1.8
"""How long a client waits for something newer than a stale answer (RFC 8767 section 5)."""
RETRY_STALE_S = 5.0
"""How long a stale answer is then told without asking. RFC 8767 advises 30 s to spare servers that are not ours;
these are, and are left alone by their health."""
WAITING_FACTOR = 8
"""Clients that may wait, for each question that may be outstanding: many ask the same."""
REFRESHERS = 8
NOT_THERE = Reply(flags=wire.QR, rcode=wire.NXDOMAIN, counts=(0, 0, 0), body=b"", ttls=(), ttl_s=0)
CACHED, FORWARDED, STALE = "cached", "forwarded", "stale"
Told = tuple[bytes, str]
"""A whole message to the asker, and how it was found: cached, forwarded or stale."""
MAX_TO_REFRESH = 256
"""Names that are fetched in the background at a time, and that wait for it; one that finds no room is not fetched."""


@dataclass(eq=False, slots=True)
class Flight:
    """One question that is being asked, for all who want to know. Over but not ``reached``: the one who asked left."""

    is_over: trio.Event = field(default_factory=trio.Event)
    reached: bool = False
    reply: Reply | None = None
    stale: Entry | None = None


class Upstreams:
    """Asks servers, and keeps what they say. Lives in one loop.

    While ``run`` runs, nobody waits for a server that is down, and hot names are fetched before their time.
    """

    def __init__(self, settings: DnsSettings, tally: Tally) -> None:
        self._apex = wire.name_to_wire(settings.domain)
        self._vips = settings.vips
        self._servers = Servers(settings.upstreams, tally, resolv_conf=settings.resolv_conf, listen=settings.listen)
        self._max_outstanding = settings.max_outstanding
        self._cache = Cache(settings.cache_entries, settings.cache_bytes, settings.max_stale_s)
        self._limits = Limits(settings.max_ttl_s, settings.max_negative_ttl_s)
        self._prefetches = settings.prefetch
        self._flights: dict[Key, Flight] = {}
        self._waiting = 0
        self._refresh: trio.MemorySendChannel[Query] | None = None
        self._refreshing: set[Key] = set()
        self._tally = tally

    def gauges(self) -> dict[str, int]:
        """Questions that are being asked, kept answers, and their bytes; see ``metrics.STATE_GAUGES``."""
        return {"forwarding": len(self._flights), "cache_entries": len(self._cache), "cache_bytes": self._cache.size}

    def who_is_up(self) -> dict[str, bool]:
        """Which servers answer."""
        return self._servers.who_is_up()

    @property
    def is_full(self) -> bool:
        """Whether one more query would be one too many."""
        return self._waiting >= self._max_outstanding * WAITING_FACTOR

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch in the background, until cancelled."""
        send, receive = trio.open_memory_channel[Query](MAX_TO_REFRESH)
        async with send, receive, trio.open_nursery() as nursery:
            for _ in range(REFRESHERS):
                nursery.start_soon(self._fetch_from, receive)
            self._refresh = send
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._refresh = None

    # -- asking

    def cached(self, query: Query) -> Told | None:
        """The answer to a query, if it is known without asking anybody."""
        if forward.stays_here(query, self._apex, self._vips):
            return packed(NOT_THERE, query), CACHED
        key, now = key_of(query), trio.current_time()
        entry = self._cache.fresh(key, now)
        if entry is not None:
            self._tally.cached("hit")
            if self._prefetches and is_due(entry, now):
                self._in_background(key, query, "prefetch")
            return packed(entry.reply, query, entry.age_s(now)), CACHED
        entry = self._cache.stale(key, now)
        if entry is None:
            return None
        if now >= entry.retry_at:
            if self._servers.any_to_ask(probes=self._refresh is None):
                return None
            self._probe(key, query)
        return self._stale(entry, query)

    async def ask(self, query: Query) -> Told | None:
        """The first good reply, else what is known of before, else a server's own error, else None.

        Takes at most ``TOTAL_S`` seconds.
        """
        if (known := self.cached(query)) is not None:
            return known
        if self.is_full:
            self._tally.asked("none", "overload")
            return None
        self._waiting += 1
        try:
            flight = await self._flight(query)
        finally:
            self._waiting -= 1
        if flight.stale is not None:
            return self._stale(flight.stale, query)
        return (packed(flight.reply, query), FORWARDED) if flight.reply is not None else None

    def _stale(self, entry: Entry, query: Query) -> Told:
        self._tally.cached("stale")
        return packed(entry.reply, query, is_stale=True, stale_ttl_s=STALE_TTL_S), STALE

    async def _flight(self, query: Query) -> Flight:
        """Ask, or wait for the one who asks the same already."""
        key = key_of(query)
        while (flying := self._flights.get(key)) is not None:
            self._tally.cached("shared")
            await flying.is_over.wait()
            if flying.reached:
                return flying
        flight = Flight()
        if len(self._flights) >= self._max_outstanding:
            self._tally.asked("none", "overload")
            flight.stale = self._cache.stale(key, trio.current_time())
            return flight
        self._tally.cached("miss")
        self._flights[key] = flight
        try:
            await self._resolve(flight, key, query, probes=self._refresh is None)
            flight.reached = True
        finally:
            del self._flights[key]
            flight.is_over.set()
        return flight

    async def _resolve(self, flight: Flight, key: Key, query: Query, *, probes: bool) -> None:
        """Fill ``flight``, and the cache. ``probes``: servers that are down are tried as well, if it is time."""
        old = self._cache.stale(key, trio.current_time())
        if not probes:
            self._probe(key, query)
        with trio.move_on_after(STALE_AFTER_S if old is not None and not probes else TOTAL_S):
            flight.reply = await self._servers.ask(query, probes=probes)
        reply, now = flight.reply, trio.current_time()
        if reply is not None:
            self._cache.put(key, limited(reply, self._limits), now)
        if old is not None and (reply is None or not reply.is_answer):
            flight.stale = old
            old.retry_at = now + RETRY_STALE_S

    def _probe(self, key: Key, query: Query) -> None:
        """Let a query find out, in the background, whether a server that is down is back."""
        if self._servers.any_due():
            self._in_background(key, query, "probe")

    def _in_background(self, key: Key, query: Query, why: str) -> None:
        if self._refresh is None or key in self._refreshing:
            return
        try:
            self._refresh.send_nowait(query)
        except trio.WouldBlock:
            return
        self._refreshing.add(key)
        self._tally.cached(why)

    async def _fetch_from(self, queries: trio.MemoryReceiveChannel[Query]) -> None:
        async for query in queries:
            key = key_of(query)
            try:
                # Not as a flight: nobody is to wait for it, least of all for a server that may be down.
                await self._resolve(Flight(), key, query, probes=True)
            finally:
                self._refreshing.discard(key)
