"""The fast road: a batch of plain queries about names that we know, or know not to be, answered where they lie.

What is not plain is left to ``answer.respond``; what is answered here it would answer with the same bytes. Every query
comes by here, so the loop calls no function of ours: such a call is a percent of all that an answer costs.
"""

import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from meshd.dns import table as names
from meshd.dns import wire
from meshd.dns.answer import DO_FLAGS, OPT_HEAD, OUR_OPT, PLAIN_OPTS, QTYPES, RCODES
from meshd.dns.cookies import Cookies
from meshd.dns.table import A_HEAD, AAAA_HEAD, NameTable
from meshd.runtime.datagrams import Slots

Counted = tuple[str, str]
"""The type's word and the rcode's: what answers are counted by."""
MORE_AT: Final = 11
"""Where a header says, in its last byte, how many additional records follow: of a plain query one OPT, or none."""
ONE_LABEL_AT: Final = wire.HEADER_BYTES + 1 + wire.MAX_LABEL_BYTES
"""The last place where an apex begins that has one label before it."""
LAST_APEX: Final = wire.HEADER_BYTES + wire.MAX_NAME_BYTES - 3
"""No name is so long that its apex, of two bytes or more and the root's, begins later than here."""
UNDERSCORE: Final = ord("_")
IS_A, IS_AAAA, IS_HINT, IS_OTHER = range(4)
"""What is asked for: an address; what carries addresses too (SVCB and HTTPS); what we have no ready answer to."""


def in_class(qtype: int) -> bytes:
    """Type and class as they end a question."""
    return struct.pack("!HH", qtype, wire.CLASS_IN)


def kind_of(qtype: int) -> int:
    """One of ``IS_A`` and so on."""
    return {wire.A: IS_A, wire.AAAA: IS_AAAA, wire.SVCB: IS_HINT, wire.HTTPS: IS_HINT}.get(qtype, IS_OTHER)


def negative(apex_at: int) -> bytes:
    """The authority section of NODATA and NXDOMAIN: the SOA of the apex that begins so far into the message."""
    pointer = struct.pack("!H", 0xC000 | apex_at)
    hostmaster = b"".join(bytes((len(label),)) + label for label in names.HOSTMASTER) + b"\0"
    data = pointer + hostmaster + struct.pack("!5I", *names.SOA_TIMERS)
    return pointer + struct.pack("!HHIH", wire.SOA, wire.CLASS_IN, names.NEGATIVE_TTL_S, len(data)) + data


def shapes(record: str = "") -> dict[int, Callable[..., Any]]:
    """By the size of a query: how it is taken apart into header without id, name, type and class, such a record."""
    rest = wire.HEADER_BYTES + 4 + struct.calcsize("=" + record)
    return {n + rest: struct.Struct(f"2x10s{n}s4s{record}").unpack_from for n in range(2, wire.MAX_NAME_BYTES + 1)}


FAST_TYPES: Final = tuple((qtype, word) for qtype, word in QTYPES.items() if word not in ("NS", "SOA", "ANY", "AXFR"))
"""Those that a name under the domain either has the ready answer to, or none; the apex has NS and SOA."""
COUNTED: Final[tuple[Counted, ...]] = tuple(
    (word, RCODES[rcode]) for _, word in FAST_TYPES for rcode in (wire.NOERROR, wire.NXDOMAIN)
)
KINDS: Final = {in_class(qtype): (kind_of(qtype), 2 * i, 2 * i + 1) for i, (qtype, _) in enumerate(FAST_TYPES)}
"""Its kind, and the places in ``COUNTED`` of an answer and of NXDOMAIN."""
NEGATIVES: Final = tuple(negative(apex_at) for apex_at in range(LAST_APEX + 1))
# The record is taken from the message's end, since an OPT is of few lengths: its head, the size that the client takes,
# which does not matter for answers as short as these, and the rest. A name that the table has, or whose labels lead up
# to the apex, proves that the record begins where it is supposed to.
BARE: Final = shapes()
WITH_OPT: Final = shapes("3s2x6s")
WITH_COOKIE: Final = shapes("3s2x18s")
WITH_BOTH_COOKIES: Final = shapes("3s2x34s")
COOKIE_MARK: Final = in_class(wire.COOKIE)[1:2] + b"\0\x08"
"""What is before a client's cookie, and so where an OPT without options would begin."""
COOKIE_OPTS: Final = {
    (flags + rest, size): OUR_OPT + flags + b"\0\x1c"
    for flags in DO_FLAGS
    for rest, size in ((b"\0\x0c\0\x0a\0\x08", 18), (b"\0\x1c\0\x0a\0\x18", 34))
}
"""What is in an OPT before a client's cookie, or before that and ours, and how long it is with them, its head and the
client's size not counted -> how that which answers it begins."""


class Quick:
    """Answers from one table, with the cookies of one server."""

    def __init__(self, table: NameTable, cookies: Cookies) -> None:
        self._table = table
        self._cookies = cookies
        self._apex_bytes = len(table.apex)

    def answer(self, slots: Slots, sizes: list[int], counts: Counter[Counted]) -> list[int]:  # noqa: C901, PLR0912, PLR0915
        """Answer what is plain; gives the slots that are left, their messages untouched.

        ``sizes`` are those of the slots, or 0 for one that is to be left. Adds to ``counts``.
        """
        table, memory = self._table, slots.memory
        heads, find, hosts, apex = table.heads, table.sections.get, table.hosts, table.apex
        # Asked for before the names: it becomes true after all are there.
        knows_all = table.is_known
        after_apex = self._apex_bytes + 4
        bare, with_opt, kinds, negatives, plain_opts = BARE, WITH_OPT, KINDS, NEGATIVES, PLAIN_OPTS
        last, underscore = ONE_LABEL_AT, UNDERSCORE
        lengths: list[int] = []
        seen: list[int] = []
        left: list[int] = []
        put, see = lengths.append, seen.append
        for size, more, begin, head_at in zip(sizes, slots.peek(MORE_AT), slots.begins, slots.heads, strict=False):
            try:
                if more:
                    head, spelled, qtype, mark, record = with_opt[size](memory, begin)
                    if mark == OPT_HEAD and record in plain_opts:
                        opt = plain_opts[record]
                        end = size - 11
                    else:
                        shape, end = (WITH_COOKIE, size - 23) if mark == COOKIE_MARK else (WITH_BOTH_COOKIES, size - 39)
                        head, spelled, qtype, mark, record = shape[size](memory, begin)
                        if mark != OPT_HEAD:
                            raise KeyError(mark)  # noqa: TRY301  # see above: no function of ours
                        host = slots.names[slots.hosts[len(lengths)]]
                        opt = self._cookies.records.get(record + host) or self._cookie_record(record, host)
                else:
                    head, spelled, qtype = bare[size](memory, begin)
                    opt = b""
                    end = size
                yes, nothing, no = heads[head]
                kind, counted, counted_no = kinds[qtype]
                name = spelled.lower()
                section = find(name)
                if section is not None:
                    if section and kind == IS_A:
                        memory[head_at] = yes
                    elif section and kind == IS_AAAA:
                        memory[head_at] = yes
                        section = AAAA_HEAD + section[-4:]
                    else:
                        memory[head_at] = nothing
                        section = negatives[end - after_apex]
                    see(counted)
                elif name.endswith(apex):
                    apex_at = end - after_apex
                    # What is known by a leading underscore is the slow road's, and so is the apex itself.
                    if name[0] + 13 != apex_at or not 13 < apex_at <= last or name[1] == underscore:
                        denied(name, apex_at)
                    if not knows_all:
                        raise KeyError(name)  # noqa: TRY301
                    memory[head_at] = no
                    section = negatives[apex_at]
                    see(counted_no)
                else:
                    address = hosts[name].address
                    if kind == IS_OTHER:
                        raise KeyError(qtype)  # noqa: TRY301  # its owner's to answer
                    if kind == IS_HINT:
                        memory[head_at] = nothing
                        section = negatives[wire.HEADER_BYTES]
                    else:
                        memory[head_at] = yes
                        section = (A_HEAD if kind == IS_A else AAAA_HEAD) + address
                    see(counted)
            except KeyError:
                left.append(len(lengths))
                put(0)
                continue
            if opt:
                section += opt
            length = end + len(section)
            memory[begin + end : begin + length] = section
            put(length)
        slots.answered(lengths, left)
        for place in set(seen):
            counts[COUNTED[place]] += seen.count(place)
        return left

    def _cookie_record(self, record: bytes, host: bytes) -> bytes:
        """The OPT that answers one with a cookie in it.

        Raises:
            KeyError: it is something else.
        """
        opt = COOKIE_OPTS[record[:10], len(record)] + self._cookies.option(record[10:], host)
        self._cookies.keep(record + host, opt)
        return opt


def denied(name: bytes, apex_at: int) -> None:
    """Make sure of a name that ends as the apex, which would begin so far into the message: it may be denied.

    Raises:
        KeyError: it is the apex, or has a leading underscore, or its labels do not lead up to the apex.
    """
    at, begin = 0, apex_at - wire.HEADER_BYTES
    while at < begin and 0 < name[at] <= wire.MAX_LABEL_BYTES:
        at += name[at] + 1
    if at != begin or not begin or apex_at > LAST_APEX or name[1] == UNDERSCORE:
        raise KeyError(name)
