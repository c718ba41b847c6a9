"""What an upstream says, taken apart as far as a cache must know it: where its TTLs are, and how long it may be kept.

dnslib is not used: it would spell the records anew, at thirty times the cost, and refuses labels that are no UTF-8.

Source: RFC 1035 section 4, RFC 2181 section 8 (TTLs), RFC 2308 (negative answers), RFC 8914 (extended errors).
"""

import struct
from dataclasses import dataclass, replace

from meshd.dns import wire
from meshd.dns.wire import MalformedError, Query

POINTER = 0xC0
RECORD = struct.Struct("!HHIH")
"""Type, class, TTL and length of data: what follows a record's name."""
MAX_TTL_S = 86400
"""Nothing is kept for longer than a day, whatever it says."""
MAX_NEGATIVE_TTL_S = 900
"""Below the hours that RFC 2308 section 5 allows: a name that is made is to be seen soon."""
FAILURE_TTL_S = 1
"""How long an upstream's own error is repeated: the least that RFC 9520 section 3.2 demands."""
EXTENDED_ERROR = 15
STALE_ANSWER, STALE_NXDOMAIN = 3, 19
"""Extended errors: what is told along with an answer that is past its time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """For how many seconds an answer, and one that says "not there", may be kept, whatever it says itself."""

    ttl_s: int = MAX_TTL_S
    negative_ttl_s: int = MAX_NEGATIVE_TTL_S


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply without its id, question and OPT, all of which belong to one exchange.

    ``flags`` are the header's, ``rcode`` is the whole one of twelve bits, ``counts`` are the numbers of answers,
    authorities and additionals in ``body``. ``ttls`` are (offset in the body, seconds), ``ttl_s`` is how long all of it
    may be kept, 0 for not at all.
    """

    flags: int
    rcode: int
    counts: tuple[int, int, int]
    body: bytes
    ttls: tuple[tuple[int, int], ...]
    ttl_s: int
    has_opt: bool = False

    is_negative: bool = False
    """It says that there is no such name or record; for an error this has no meaning."""

    @property
    def is_answer(self) -> bool:
        """Whether it says something about the name: NXDOMAIN does, an error of the server does not."""
        return self.rcode in (wire.NOERROR, wire.NXDOMAIN)

    @property
    def is_truncated(self) -> bool:
        """Whether there is more to be had by TCP."""
        return bool(self.flags & wire.TC)


def parse_reply(packet: bytes, query: Query) -> Reply:
    """Take a believed reply to ``query`` apart; it has the question (in any case), or is a header alone.

    Raises:
        MalformedError: a record is cut short, or bytes follow the last one.
    """
    flags, _, *counts = struct.unpack_from("!5H", packet, 2)
    start = wire.HEADER_BYTES + len(query.question)
    if len(packet) < start:
        return Reply(flags, flags & 0xF, (0, 0, 0), b"", (), FAILURE_TTL_S)
    offset = start
    end: int | None = None
    kept = [0, 0, 0]
    ttls: list[tuple[int, int]] = []
    limits: list[int] = []
    rcode, is_negative = flags & 0xF, True
    soa_s: int | None = None
    for section, count in enumerate(counts):
        for _ in range(count):
            data = skip_name(packet, offset) + RECORD.size
            if data > len(packet):
                raise MalformedError("record is cut short")
            rtype, _, ttl, length = RECORD.unpack_from(packet, data - RECORD.size)
            if data + length > len(packet):
                raise MalformedError("record is cut short")
            if rtype == wire.OPT and section == 2:
                rcode |= ttl >> 24 << 4
                # What follows an OPT is left out with it, so that nothing that is kept moves.
                end = offset if end is None else end
            elif end is None:
                seconds = 0 if ttl >> 31 else min(ttl, MAX_TTL_S)
                ttls.append((data - 6 - start, seconds))
                kept[section] += 1
                if section < 2:
                    limits.append(seconds)
                if section == 0 and rtype == query.qtype:
                    is_negative = False
                if section == 1 and rtype == wire.SOA and length >= 4:
                    soa_s = int.from_bytes(packet[data + length - 4 : data + length])
            offset = data + length
    if offset != len(packet):
        raise MalformedError("bytes follow the last record")
    is_negative = is_negative or rcode != wire.NOERROR
    ttl_s = kept_for(rcode, limits, is_negative=is_negative, soa_s=soa_s)
    body = packet[start : offset if end is None else end]
    counts_kept = (kept[0], kept[1], kept[2])
    ttl_s = 0 if flags & wire.TC else ttl_s
    return Reply(flags, rcode, counts_kept, body, tuple(ttls), ttl_s, has_opt=end is not None, is_negative=is_negative)


def kept_for(rcode: int, limits: list[int], *, is_negative: bool, soa_s: int | None) -> int:
    """For how many seconds a reply may be kept: the least TTL of its answers and authorities.

    "Not there" is kept only with the SOA that says for how long (RFC 2308 section 5), and a referral not at all.
    """
    if rcode not in (wire.NOERROR, wire.NXDOMAIN):
        return FAILURE_TTL_S
    if not is_negative:
        return min(limits)
    return min(*limits, soa_s) if soa_s is not None else 0


def limited(reply: Reply, limits: Limits) -> Reply:
    """A reply that is kept no longer than it may; what it tells clients of its TTLs is its owner's."""
    most_s = FAILURE_TTL_S if not reply.is_answer else limits.negative_ttl_s if reply.is_negative else limits.ttl_s
    return reply if reply.ttl_s <= most_s else replace(reply, ttl_s=most_s)


def skip_name(packet: bytes, offset: int) -> int:
    """The offset behind the name at ``offset``, which is not followed.

    Raises:
        MalformedError: it is cut short, or has a label of an unknown kind.
    """
    while offset < len(packet):
        length = packet[offset]
        if length >= POINTER:
            return offset + 2
        if length > wire.MAX_LABEL_BYTES:
            raise MalformedError("a label is of an unknown kind")
        offset += 1 + length
        if length == 0:
            return offset
    raise MalformedError("name is cut short")


def packed(reply: Reply, query: Query, age_s: int = 0, *, is_stale: bool = False, stale_ttl_s: int = 0) -> bytes:
    """A reply as a message to the asker of ``query``: its id, spelling and EDNS; the TTLs are less by ``age_s``.

    A stale one has ``stale_ttl_s`` for every TTL, and says that it is stale (RFC 8767 section 4, RFC 8914).
    """
    body = bytearray(reply.body)
    for offset, ttl_s in reply.ttls if age_s or is_stale else ():
        struct.pack_into("!I", body, offset, stale_ttl_s if is_stale else max(ttl_s - age_s, 0))
    # The answer is a cache's: not authoritative, whoever the upstream is.
    flags = (reply.flags & ~(wire.AA | wire.RD | wire.CD | 0xF)) | wire.RA | (query.flags & (wire.RD | wire.CD))
    if not wants_ad(query):
        flags &= ~wire.AD
    rcode = reply.rcode if reply.rcode < 16 else wire.SERVFAIL
    answers, authorities, additionals = reply.counts
    opt = b""
    if query.edns:
        code = STALE_NXDOMAIN if reply.rcode == wire.NXDOMAIN else STALE_ANSWER
        opt = opt_record(dnssec_ok=query.edns.dnssec_ok, extended_error=code if is_stale else None)
    head = wire.HEADER.pack(query.ident, flags | rcode, 1, answers, authorities, additionals + bool(opt))
    return head + query.question + bytes(body) + opt


def wants_ad(query: Query) -> bool:
    """Whether the asker knows what "authentic data" means (RFC 6840 section 5.8)."""
    return bool(query.flags & wire.AD) or (query.edns is not None and query.edns.dnssec_ok)


def opt_record(*, dnssec_ok: bool, extended_error: int | None = None) -> bytes:
    """An OPT record of ours, maybe with an extended error (RFC 8914)."""
    option = struct.pack("!HHH", EXTENDED_ERROR, 2, extended_error) if extended_error is not None else b""
    ttl = wire.DO if dnssec_ok else 0
    return b"\0" + RECORD.pack(wire.OPT, wire.EDNS_UDP_BYTES, ttl, len(option)) + option
