"""What upstreams said, kept for as long as they allow, and longer while nobody can say anything newer.

Time is given, in seconds of any clock that only goes forward. Bounded by entries and by bytes; what was not asked for
the longest goes first.

Source: RFC 2308 (negative answers), RFC 8767 (stale answers), RFC 9520 (failures).
"""

from collections import OrderedDict
from dataclasses import dataclass

from meshd.dns import wire
from meshd.dns.reply import Reply
from meshd.dns.wire import Query

Key = tuple[bytes, int, int, int]
"""Name, type, class, and what of the query changes the answer."""
ENTRY_BYTES = 500
"""What an entry takes beside its records, about: key, objects, table."""
MAX_SHARE = 16
"""One entry may take a sixteenth of the whole at most."""
HOT_HITS = 3
"""Asked for so often since it was fetched, a name is fetched again before its time."""
REFRESH_SHARE = 0.1
"""The last part of its time, in which a hot name is fetched again."""
MIN_REFRESHED_S = 5
"""A name with a shorter TTL is meant to be asked for each time."""
STALE_TTL_S = 30
"""For how long a stale answer may be believed (RFC 8767 section 4)."""


@dataclass(slots=True)
class Entry:
    """A reply and when it came. ``retry_at``: before that, a stale one is told without asking anybody."""

    reply: Reply
    since: float
    hits: int = 0
    retry_at: float = 0.0

    @property
    def expires(self) -> float:
        """When it is stale."""
        return self.since + self.reply.ttl_s

    @property
    def size(self) -> int:
        """Bytes, about."""
        return ENTRY_BYTES + len(self.reply.body)

    def age_s(self, now: float) -> int:
        """Whole seconds since it came."""
        return int(now - self.since)


def key_of(query: Query) -> Key:
    """Under what an answer to this query is kept: clients that differ in spelling, id or EDNS share it."""
    wishes = query.flags & (wire.RD | wire.CD | wire.AD)
    if query.edns is not None and query.edns.dnssec_ok:
        wishes |= wire.DO
    return query.name, query.qtype, query.qclass, wishes


class Cache:
    """See the module. ``max_stale_s`` is for how long after its time a reply may still be told; 0: never."""

    def __init__(self, max_entries: int, max_bytes: int, max_stale_s: float) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._max_stale_s = max_stale_s
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self.size = 0
        """Bytes in use, about."""

    def __len__(self) -> int:
        return len(self._entries)

    def fresh(self, key: Key, now: float) -> Entry | None:
        """What is known and in its time; counts as asked for."""
        entry = self._entries.get(key)
        if entry is None or now >= entry.expires:
            return None
        entry.hits += 1
        self._entries.move_to_end(key)
        return entry

    def stale(self, key: Key, now: float) -> Entry | None:
        """What was known and may still be told if there is nothing newer; an error is not worth that."""
        entry = self._entries.get(key)
        if entry is None or not entry.reply.is_answer or now >= entry.expires + self._max_stale_s:
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: Key, reply: Reply, now: float) -> None:
        """Keep a reply, if it may be kept. An error does not replace what may still be told."""
        if not reply.is_answer and self.stale(key, now) is not None:
            return
        self._drop(key)
        entry = Entry(reply, now)
        if not reply.ttl_s or not self._max_entries or entry.size * MAX_SHARE > self._max_bytes:
            return
        self._entries[key] = entry
        self.size += entry.size
        while len(self._entries) > self._max_entries or self.size > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.size = 0

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry.size


def is_due(entry: Entry, now: float) -> bool:
    """Whether a fresh entry is to be fetched again before its time: it is asked for, and its time is nearly over."""
    ttl_s = entry.reply.ttl_s
    return (
        entry.hits >= HOT_HITS
        and entry.reply.is_answer
        and ttl_s >= MIN_REFRESHED_S
        and now >= entry.expires - ttl_s * REFRESH_SHARE
    )
