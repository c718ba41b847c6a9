"""What to do with a packet: the answer, or that it must be forwarded, or dropped. Never an exception.

Two roads lead to the same bytes. ``fast`` knows only plain A and AAAA queries for known names and joins ready-made
pieces; ``respond`` knows everything and builds with dnslib. Tests hold them equal.
"""

import struct
from dataclasses import dataclass

import dnslib

from meshd.dns import table as names
from meshd.dns import wire
from meshd.dns.table import NameTable
from meshd.dns.wire import Query

OPT_HEAD = b"\0\0\x29"
OPT_BYTES = 11
"""Length of an OPT record without options."""
META_TYPES = frozenset({wire.OPT, 249, 250, 251, 252, 253, 254})
"""OPT, TKEY, TSIG, IXFR, AXFR, MAILB, MAILA: nothing that is looked up in a table."""
TAKEN_OVER = frozenset({wire.A, wire.AAAA, wire.SVCB, wire.HTTPS, wire.ANY})
"""The types of a host outside the domain that are ours to answer. HTTPS and SVCB carry address hints, which would
lead around the mesh; the rest (MX, TXT, ...) is still its owner's."""
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 16: "BADVERS"}
QTYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 35: "NAPTR",
    43: "DS", 48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 252: "AXFR", 255: "ANY", 257: "CAA",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer. ``qtype`` and ``rcode`` are for counting: their set is bounded whatever clients send."""

    wire: bytes
    qtype: str
    rcode: str


@dataclass(frozen=True, slots=True)
class Forward:
    """The name is somebody else's: ask an upstream."""

    query: Query


@dataclass(frozen=True, slots=True)
class Drop:
    """Not worth a packet; ``reason`` is one of a fixed few words."""

    reason: str


def qtype_word(qtype: int) -> str:
    """The type's name, or ``other``: a label with a bounded number of values."""
    return QTYPES.get(qtype, "other")


def fast(message: bytes, table: NameTable) -> bytes | None:
    """The answer to a plain A or AAAA query for a known name; None for everything else."""
    head = table.heads.get(message[2:12])
    if head is None:
        return None
    if not message[11]:  # no additional record: all that follows the header is the question
        answer = table.ready.get(message[12:].lower())
        return None if answer is None else message[:2] + head + message[12:] + answer
    opt = message[-OPT_BYTES:]
    # Extended rcode, version, and no options; of the flags only DO, which is echoed (RFC 3225).
    if opt[:3] != OPT_HEAD or opt[5:7] != b"\0\0" or opt[7] & 0x7F or opt[8:] != b"\0\0\0":
        return None
    answer = table.ready.get(message[12:-OPT_BYTES].lower())
    if answer is None:
        return None
    return message[:2] + head + message[12:-OPT_BYTES] + answer + OPT_HEAD + b"\x04\xd0\0\0" + opt[7:]


def respond(message: bytes, table: NameTable) -> Answer | Forward | Drop:
    """What to do with any bytes at all, by the slow road."""
    if len(message) < wire.HEADER_BYTES:
        return Drop("short")
    ident, flags = struct.unpack_from("!HH", message)
    if flags & wire.QR:
        return Drop("response")  # answering answers would let two servers be set on each other
    if flags & wire.OPCODE:
        return bare(ident, flags, wire.NOTIMP)
    try:
        query = wire.parse_query(message)
    except wire.MalformedError:
        return bare(ident, flags, wire.FORMERR)
    return answer_query(query, table)


def answer_query(query: Query, table: NameTable) -> Answer | Forward:
    """What to do with a well-formed query."""
    if query.edns and query.edns.version:
        return reply(query, table, wire.BADVERS)
    if query.qclass != wire.CLASS_IN or query.qtype in META_TYPES:
        return reply(query, table, wire.REFUSED)
    if table.is_ours(query.name):
        return from_domain(query, table)
    if query.name in table.addresses and (query.qtype in TAKEN_OVER or not table.recursive):
        return from_host(query, table)
    if not table.recursive:
        return reply(query, table, wire.REFUSED)
    if query.qtype == wire.ANY:
        # RFC 8482: an answer to ANY that is no use for amplification.
        minimal = dnslib.RR(dnslib.DNSLabel(query.labels), wire.HINFO, ttl=names.TTL_S, rdata=Hinfo())
        return reply(query, table, wire.NOERROR, answers=[minimal])
    return Forward(query)


def bare(ident: int, flags: int, rcode: int) -> Answer:
    """A header alone: never longer than what it answers."""
    echoed = flags & (wire.OPCODE | wire.RD | wire.CD)
    return Answer(wire.HEADER.pack(ident, wire.QR | echoed | rcode, 0, 0, 0, 0), "none", RCODES[rcode])


def failure(query: Query, table: NameTable) -> Answer:
    """SERVFAIL: nobody could answer."""
    return reply(query, table, wire.SERVFAIL)


def truncated(query: Query, reply_flags: int) -> bytes:
    """An answer without its records and with TC set: the client is to ask again by TCP."""
    kept = reply_flags & (wire.AA | wire.RA | wire.AD | wire.CD | 0xF)
    header = dnslib.DNSHeader(id=query.ident, bitmap=wire.QR | wire.TC | (query.flags & wire.RD) | kept)
    return pack(query, header, [], [])


def from_domain(query: Query, table: NameTable) -> Answer:
    """The answer for the domain's own name or one beneath it."""
    address = table.addresses.get(query.name)
    at_apex = query.name == table.apex
    apex_labels = query.labels[len(query.labels) - sum(1 for _ in ancestors_and_self(table.apex)) :]
    if address is None and not at_apex and query.name not in table.parents:
        if not table.is_known:
            # "It does not exist" would be believed for a while, and is likely wrong. Clients ask again after this.
            return failure(query, table)
        return reply(query, table, wire.NXDOMAIN, authorities=[soa(apex_labels, apex_labels, names.NEGATIVE_TTL_S)])
    answers = address_records(query, address)
    if at_apex and query.qtype in (wire.SOA, wire.ANY):
        answers = [*answers, soa(apex_labels, apex_labels, names.TTL_S)]
    elif at_apex and query.qtype == wire.NS:
        # RFC 6303: a zone that is served locally and delegated by nobody names itself.
        target = dnslib.NS(dnslib.DNSLabel(apex_labels))
        answers = [dnslib.RR(dnslib.DNSLabel(query.labels), wire.NS, ttl=names.TTL_S, rdata=target)]
    no_data = [] if answers else [soa(apex_labels, apex_labels, names.NEGATIVE_TTL_S)]
    return reply(query, table, wire.NOERROR, answers=answers, authorities=no_data)


def from_host(query: Query, table: NameTable) -> Answer:
    """The answer for a name outside the domain that an external service has taken over: a zone of one name."""
    answers = address_records(query, table.addresses[query.name])
    no_data = [] if answers else [soa(query.labels, query.labels, names.NEGATIVE_TTL_S)]
    return reply(query, table, wire.NOERROR, answers=answers, authorities=no_data)


def ancestors_and_self(name: bytes) -> tuple[bytes, ...]:
    """A name in wire form and all above it, without the root."""
    return (name, *names.ancestors(name))


def address_records(query: Query, address: bytes | None) -> list[dnslib.RR]:
    """The record of the asked type; for ANY one record, as small as can be (RFC 8482)."""
    if address is None:
        return []
    owner = dnslib.DNSLabel(query.labels)
    if query.qtype in (wire.A, wire.ANY):
        return [dnslib.RR(owner, wire.A, ttl=names.TTL_S, rdata=dnslib.A(tuple(address)))]
    if query.qtype == wire.AAAA:
        return [dnslib.RR(owner, wire.AAAA, ttl=names.TTL_S, rdata=dnslib.AAAA(tuple(names.MAPPED + address)))]
    return []


def soa(owner: tuple[bytes, ...], primary: tuple[bytes, ...], ttl_s: int) -> dnslib.RR:
    """The start of authority, as RFC 6303 has it for zones that are served locally.

    The names are spelled as in the question, so that they compress into it.
    """
    data = dnslib.SOA(dnslib.DNSLabel(primary), dnslib.DNSLabel((b"nobody", b"invalid")), names.SOA_TIMERS)
    return dnslib.RR(dnslib.DNSLabel(owner), wire.SOA, ttl=ttl_s, rdata=data)


class Hinfo(dnslib.RD):  # type: ignore[misc]  # dnslib has no types
    """The HINFO record of RFC 8482 section 4.2: CPU ``RFC8482``, no OS."""

    def __init__(self) -> None:
        super().__init__(b"\x07RFC8482\x00")


def reply(
    query: Query,
    table: NameTable,
    rcode: int,
    *,
    answers: list[dnslib.RR] | None = None,
    authorities: list[dnslib.RR] | None = None,
) -> Answer:
    """Build an answer; authoritative if it says anything about a name. Ours always fit into 512 bytes."""
    flags = wire.QR | (query.flags & (wire.RD | wire.CD)) | (rcode & 0xF)
    if table.recursive:
        flags |= wire.RA
    if answers or authorities:
        flags |= wire.AA
    header = dnslib.DNSHeader(id=query.ident, bitmap=flags)
    packed = pack(query, header, answers or [], authorities or [], extended=rcode >> 4)
    return Answer(packed, qtype_word(query.qtype), RCODES[rcode])


def pack(
    query: Query,
    header: dnslib.DNSHeader,
    answers: list[dnslib.RR],
    authorities: list[dnslib.RR],
    extended: int = 0,
) -> bytes:
    """The message as bytes: the question as it came, and an OPT if one came (RFC 6891 section 7)."""
    record = dnslib.DNSRecord(header, rr=answers, auth=authorities)
    record.add_question(dnslib.DNSQuestion(dnslib.DNSLabel(query.labels), query.qtype, query.qclass))
    if query.edns:
        do = wire.DO if query.edns.dnssec_ok else 0
        record.add_ar(dnslib.RR(dnslib.DNSLabel(()), wire.OPT, wire.EDNS_UDP_BYTES, (extended << 24) | do, []))
    return bytes(record.pack())
