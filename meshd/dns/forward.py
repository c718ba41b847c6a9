"""Asking others, the pure part: what is sent, which reply may be believed, what the client gets, whom to ask next.

Source: RFC 5452 (forged answers), draft-vixie-dnsext-dns0x20 (letter case as a secret), RFC 6891 section 7 (servers
without EDNS).
"""

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from meshd.dns import answer, wire
from meshd.dns.reply import Reply, opt_record
from meshd.dns.table import HEX, IN_ADDR, IP6, MAPPED, NameTable, is_within, nibbles
from meshd.dns.wire import Query

NEXT_SERVER_RCODES = frozenset({wire.FORMERR, wire.SERVFAIL, wire.NOTIMP, wire.REFUSED})
"""What one server cannot answer another perhaps can; NXDOMAIN is an answer."""
FAILURES_TO_DOWN = 3
"""Timeouts in a row, so that one lost packet costs nothing."""
FIRST_DOWN_S = 0.5
MAX_DOWN_S = 5.0
"""How long an upstream that does not answer is left alone, at most: also how long its recovery may go unnoticed."""
PATIENCE_S = 0.4
"""How long a server that was never measured has before the next one is asked as well."""
MIN_PATIENCE_S, MAX_PATIENCE_S = 0.1, 1.0


@dataclass(frozen=True, slots=True)
class Health:
    """What one upstream did lately, and how it speaks.

    Failures in a row, and until when (loop time, seconds) it is left alone; how long it takes to answer, and how much
    that varies (seconds; None before it was measured). ``keeps_case``: it repeats a question's spelling. ``has_edns``:
    it takes an OPT record.
    """

    failures: int = 0
    down_until: float = 0.0
    mean_s: float | None = None
    deviation_s: float = 0.0
    keeps_case: bool = True
    has_edns: bool = True

    @property
    def is_up(self) -> bool:
        """Whether it is asked as a matter of course."""
        return self.failures < FAILURES_TO_DOWN

    @property
    def patience_s(self) -> float:
        """How long to wait for it before another is asked as well: mean and four deviations, as TCP (RFC 6298)."""
        if self.mean_s is None:
            return PATIENCE_S
        return min(max(self.mean_s + 4 * self.deviation_s, MIN_PATIENCE_S), MAX_PATIENCE_S)

    def failed(self, now: float) -> "Health":
        """After no answer, or a refused packet."""
        failures = self.failures + 1
        # The exponent is bounded, since a dead upstream fails for days.
        pause_s = min(FIRST_DOWN_S * 2 ** min(failures - FAILURES_TO_DOWN, 10), MAX_DOWN_S)
        return replace(self, failures=failures, down_until=now + pause_s if failures >= FAILURES_TO_DOWN else 0.0)

    def probing(self, now: float) -> "Health":
        """While one query finds out whether it is back: the others do not wait for it."""
        return self if self.is_up else self.failed(now)

    def answered(self, took_s: float) -> "Health":
        """After an answer that took so long; it is up. Weights of RFC 6298."""
        mean_s = took_s if self.mean_s is None else self.mean_s + (took_s - self.mean_s) / 8
        first = self.mean_s is None
        deviation_s = took_s / 2 if first else self.deviation_s + (abs(took_s - mean_s) - self.deviation_s) / 4
        return replace(self, failures=0, down_until=0.0, mean_s=mean_s, deviation_s=deviation_s)


def up(healths: Sequence[Health]) -> tuple[int, ...]:
    """Whom to ask, as indices in the configured order.

    Empty if all are down: then a client is better served by an error at once.
    """
    return tuple(i for i, health in enumerate(healths) if health.is_up)


def due(healths: Sequence[Health], now: float) -> tuple[int, ...]:
    """Those that are down and whose pause is over: one query is to find out whether they are back."""
    return tuple(i for i, health in enumerate(healths) if not health.is_up and health.down_until <= now)


@dataclass(frozen=True, slots=True)
class Sent:
    """A query as it went out: what a reply must fit. ``has_case``: its letter case is a secret."""

    ident: int
    message: bytes
    question: bytes
    has_case: bool


class Verdict(enum.Enum):
    """What a packet from an upstream's address and port is."""

    BELIEVED = "believed"
    FOLDED = "folded"
    """All is right but the question's letter case, which only we know: forged, or of a server that folds it."""
    MISMATCH = "mismatch"


def upstream_query(query: Query, ident: int, case: int = 0, *, edns: bool = True) -> Sent:
    """The query as we send it: the client's question and wishes (RD, AD, CD, DO) under an id and a spelling of ours.

    ``case`` are random bits, one a byte of the name; without them it is in lower case. With EDNS whatever the client
    can, so that fewer answers have to be fetched by TCP; the client's options (cookies, keepalive) concern the client
    and us, and stay here (RFC 6891 section 6.1.1).
    """
    flags = query.flags & (wire.RD | wire.AD | wire.CD)
    opt = opt_record(dnssec_ok=query.edns is not None and query.edns.dnssec_ok) if edns else b""
    question = spelled(query.name, case) + query.question[-4:]
    return Sent(
        ident,
        wire.HEADER.pack(ident, flags, 1, 0, 0, 1 if opt else 0) + question + opt,
        question,
        question[:-4] != query.name,
    )


def spelled(name: bytes, case: int) -> bytes:
    """A name in wire form and lower case with some letters in upper case: those whose bit of ``case`` is set."""
    if not case:
        return name
    out = bytearray(name)
    for i, byte in enumerate(name):
        # A length is at most 63 and so is never taken for a letter.
        if case >> i & 1 and 0x61 <= byte <= 0x7A:
            out[i] = byte - 0x20
    return bytes(out)


def judge(packet: bytes, sent: Sent) -> Verdict:
    """Whether a packet from the upstream's address can be the answer to what we sent: id, kind, question.

    A header alone is believed only if it says that the server cannot answer.
    """
    if len(packet) < wire.HEADER_BYTES:
        return Verdict.MISMATCH
    ident, flags, questions, *records = wire.HEADER.unpack_from(packet)
    if ident != sent.ident or not flags & wire.QR or flags & wire.OPCODE:
        return Verdict.MISMATCH
    if questions == 0:
        is_error = not any(records) and flags & 0xF in NEXT_SERVER_RCODES and len(packet) == wire.HEADER_BYTES
        return Verdict.BELIEVED if is_error else Verdict.MISMATCH
    question = packet[wire.HEADER_BYTES : wire.HEADER_BYTES + len(sent.question)]
    if questions != 1 or question[-4:] != sent.question[-4:]:
        return Verdict.MISMATCH
    if question == sent.question:
        return Verdict.BELIEVED
    return Verdict.FOLDED if question.lower() == sent.question.lower() else Verdict.MISMATCH


def lacks_edns(reply: Reply, *, edns: bool) -> bool:
    """Whether a server did not answer because it was sent an OPT record, which it does not know."""
    return edns and not reply.has_opt and reply.rcode in (wire.FORMERR, wire.NOTIMP)


def flags_of(packet: bytes) -> int:
    """The flags of a message that is known to have a header."""
    return int.from_bytes(packet[2:4])


def to_client(packet: bytes, query: Query, table: NameTable, limit: int) -> answer.Answer:
    """A reply of ``client.Upstreams`` as the client must see it; cut down if longer than ``limit`` bytes."""
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


def stays_here(query: Query, apex: bytes, vips: IPv4Network | None) -> bool:
    """Whether nobody else may be asked: the name is the domain's or beneath it, or is the reverse name of a VIP.

    The table answers these; this is the last gate before the wire.
    """
    if is_within(query.name, apex):
        return True
    return vips is not None and (address := reverse_address(query.labels)) is not None and address in vips


def reverse_address(labels: tuple[bytes, ...]) -> IPv4Address | None:
    """The IPv4 address that a whole reverse name stands for, also as the IPv6 form of one (``::ffff:hhhh:hhhh``)."""
    folded = tuple(label.lower() for label in labels)
    if folded[-2:] == IN_ADDR and len(folded) == 6:
        parts = folded[3::-1]
        if all(part.isdigit() and len(part) <= 3 and int(part) < 256 for part in parts):
            return IPv4Address(bytes(int(part) for part in parts))
    if folded[-2:] == IP6 and len(folded) == 34 and all(len(label) == 1 for label in folded[:32]):
        digits = folded[31::-1]
        if digits[:24] == tuple(nibbles(MAPPED)) and all(digit in HEX for digit in digits):
            return IPv4Address(int(b"".join(digits[24:]), 16))
    return None
