"""Asking others, the pure part: what is sent, which reply may be believed, what the client gets, whom to ask next."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from meshd.dns import answer, wire
from meshd.dns.table import NameTable
from meshd.dns.wire import Query

NEXT_SERVER_RCODES = frozenset({wire.FORMERR, wire.SERVFAIL, wire.NOTIMP, wire.REFUSED})
"""What one server cannot answer another perhaps can; NXDOMAIN is an answer."""
FAILURES_TO_DOWN = 3
"""Timeouts in a row, so that one lost packet costs nothing."""
FIRST_DOWN_S = 0.5
MAX_DOWN_S = 5.0
"""How long an upstream that does not answer is left alone, at most: also how long its recovery may go unnoticed."""


@dataclass(frozen=True, slots=True)
class Health:
    """What one upstream did lately: failures in a row, and until when (loop time, seconds) it is left alone."""

    failures: int = 0
    down_until: float = 0.0

    @property
    def is_up(self) -> bool:
        """Whether it is asked as a matter of course."""
        return self.failures < FAILURES_TO_DOWN

    def failed(self, now: float) -> "Health":
        """After no answer, or a refused packet."""
        failures = self.failures + 1
        # The exponent is bounded, since a dead upstream fails for days.
        pause_s = min(FIRST_DOWN_S * 2 ** min(failures - FAILURES_TO_DOWN, 10), MAX_DOWN_S)
        return Health(failures, now + pause_s if failures >= FAILURES_TO_DOWN else 0.0)

    def probing(self, now: float) -> "Health":
        """While one query finds out whether it is back: the others do not wait for it."""
        return self if self.is_up else self.failed(now)


def order(healths: Sequence[Health], now: float) -> tuple[int, ...]:
    """Whom to ask, as indices: those that are up as configured, then those whose pause is over.

    Empty if all are down and were tried a moment ago: then a client is better served by an error at once.
    """
    up = [i for i, health in enumerate(healths) if health.is_up]
    due = [i for i, health in enumerate(healths) if not health.is_up and health.down_until <= now]
    return (*up, *due)


def upstream_query(query: Query, ident: int) -> bytes:
    """The query as we send it: the client's question and wishes (RD, AD, CD, DO) under an id of ours.

    The client's EDNS options (cookies, keepalive) concern the client and us, and stay here (RFC 6891 section 6.1.1).
    """
    flags = query.flags & (wire.RD | wire.AD | wire.CD)
    opt = b""
    if query.edns:
        do = wire.DO if query.edns.dnssec_ok else 0
        opt = b"\0" + struct.pack("!HHIH", wire.OPT, wire.EDNS_UDP_BYTES, do, 0)
    return wire.HEADER.pack(ident, flags, 1, 0, 0, 1 if opt else 0) + query.question + opt


def is_reply(packet: bytes, ident: int, query: Query) -> bool:
    """Whether a packet from the upstream's address can be the answer to what we sent: id, kind, question.

    The question's case may differ (some servers fold it). A header alone is believed only if it says that the server
    cannot answer.
    """
    if len(packet) < wire.HEADER_BYTES:
        return False
    reply_ident, flags, questions, *records = wire.HEADER.unpack_from(packet)
    if reply_ident != ident or not flags & wire.QR or flags & wire.OPCODE:
        return False
    if questions == 0:
        return not any(records) and flags & 0xF in NEXT_SERVER_RCODES
    end = wire.HEADER_BYTES + len(query.question)
    question = packet[wire.HEADER_BYTES : end]
    return questions == 1 and question[-4:] == query.question[-4:] and question[:-4].lower() == query.name


def flags_of(packet: bytes) -> int:
    """The flags of a message that is known to have a header."""
    return int.from_bytes(packet[2:4])


def to_client(packet: bytes, query: Query, table: NameTable, limit: int) -> answer.Answer:
    """A believed reply as the client must see it: its own id and spelling; cut down if longer than ``limit`` bytes."""
    flags = flags_of(packet)
    rcode = answer.RCODES.get(flags & 0xF, "other")
    qtype = answer.qtype_word(query.qtype)
    if len(packet) < wire.HEADER_BYTES + len(query.question):
        return answer.reply(query, table, flags & 0xF)
    if len(packet) > limit:
        return answer.Answer(answer.truncated(query, flags), qtype, rcode)
    head = struct.pack("!HH", query.ident, flags | wire.RA)
    body = packet[4 : wire.HEADER_BYTES] + query.question + packet[wire.HEADER_BYTES + len(query.question) :]
    return answer.Answer(head + body, qtype, rcode)
