"""What to do with a packet: the answer, or that it must be forwarded, or dropped. Never an exception.

Two roads lead to the same bytes. ``quick`` knows plain queries about names under the domain, whether they exist or not,
and joins ready-made pieces; ``respond``, here, knows everything and builds with dnslib. Tests hold them equal.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import dnslib

from meshd.dns import table as names
from meshd.dns import wire
from meshd.dns.table import Entry, NameTable
from meshd.dns.wire import Query

OPT_HEAD = b"\0\0\x29"
CookieOption = Callable[[bytes], bytes]
"""What a client sent as its cookie -> the EDNS option that answers it (``cookies.Cookies.option``)."""
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
ARPA: Final = b"\x04arpa\0"
DO_FLAGS: Final = (b"\0\0\0\0", b"\0\0\x80\0")
"""Extended rcode, version and flags of an OPT: of the flags only DO, which is echoed (RFC 3225)."""
OUR_OPT: Final = OPT_HEAD + wire.EDNS_UDP_BYTES.to_bytes(2)
PLAIN_OPTS: Final = {flags + b"\0\0": OUR_OPT + flags + b"\0\0" for flags in DO_FLAGS}
"""How an OPT without options ends -> the whole one that answers it."""


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


def respond(
    message: bytes, table: NameTable, cookie_option: CookieOption | None = None, *, by_udp: bool = True
) -> Answer | Forward | Drop:
    """What to do with any bytes at all, by the slow road. Without ``cookie_option``, cookies are not answered."""
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
    outcome = answer_query(query, table)
    if isinstance(outcome, Forward):
        return outcome
    option = cookie_option(query.edns.cookie) if cookie_option and query.edns and query.edns.cookie else b""
    packed = outcome.wire
    if by_udp and len(packed) + len(option) > query.udp_limit:
        packed = truncated(query, int.from_bytes(packed[2:4]))
    return Answer(with_option(packed, option), outcome.qtype, outcome.rcode)


def answer_query(query: Query, table: NameTable) -> Answer | Forward:
    """What to do with a well-formed query."""
    if query.edns and query.edns.version:
        return reply(query, table, wire.BADVERS)
    if query.qclass != wire.CLASS_IN or query.qtype in META_TYPES:
        return reply(query, table, wire.REFUSED)
    if table.is_ours(query.name):
        return from_domain(query, table)
    if (apex := reverse_apex(query, table)) is not None:
        return from_reverse(query, table, apex)
    host = table.hosts.get(query.name)
    if host is not None and (query.qtype in TAKEN_OVER or not table.recursive):
        return from_host(query, table, host)
    if not table.recursive:
        return reply(query, table, wire.REFUSED)
    if query.qtype == wire.ANY:
        # RFC 8482: an answer to ANY that is no use for amplification.
        minimal = dnslib.RR(dnslib.DNSLabel(query.labels), wire.HINFO, ttl=names.TTL_S, rdata=Hinfo())
        return reply(query, table, wire.NOERROR, answers=[minimal])
    return Forward(query)


def with_option(message: bytes, option: bytes) -> bytes:
    """A message that ends with an OPT of ours, with this option in it too; as it is without an OPT, or an option."""
    opt_at = message.rfind(OUR_OPT)
    if not option or opt_at < 0:
        return message
    length_at = opt_at + len(OUR_OPT) + 4
    length = int.from_bytes(message[length_at : length_at + 2]) + len(option)
    return message[:length_at] + length.to_bytes(2) + message[length_at + 2 :] + option


def bare(ident: int, flags: int, rcode: int) -> Answer:
    """A header alone: never longer than what it answers."""
    echoed = flags & (wire.OPCODE | wire.RD | wire.CD)
    return Answer(wire.HEADER.pack(ident, wire.QR | echoed | rcode, 0, 0, 0, 0), "none", RCODES[rcode])


def short(message: bytes, *, refuse: bool) -> bytes | None:
    """No more than the question back: refused, or with TC set, so that the client asks by TCP. None if it is none."""
    if len(message) < wire.HEADER_BYTES or message[2] & 0xF8:
        return None
    try:
        query = wire.parse_query(message)
    except wire.MalformedError:
        return None
    flags = wire.QR | (query.flags & (wire.RD | wire.CD)) | (wire.REFUSED if refuse else wire.TC)
    head = wire.HEADER.pack(query.ident, flags, 1, 0, 0, 1 if query.edns else 0)
    opt = PLAIN_OPTS[DO_FLAGS[query.edns.dnssec_ok] + b"\0\0"] if query.edns else b""
    return head + query.question + opt


def cookie_of(message: bytes) -> bytes:
    """The cookie that a query came with; empty if there is none, or it is no query."""
    if len(message) < wire.HEADER_BYTES:
        return b""
    try:
        query = wire.parse_query(message)
    except wire.MalformedError:
        return b""
    return query.edns.cookie if query.edns else b""


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
    apex = query.labels[len(query.labels) - table.apex_labels :]
    entry = table.names.get(query.name)
    if entry is not None:
        answers = [] if entry is names.NOTHING else address_records(query, entry)
        return zone_answer(query, table, apex, answers)
    if query.name == table.apex:
        return zone_answer(query, table, apex, [])
    if (found := service_records(query, table)) is not None:
        return zone_answer(query, table, apex, found)
    if not table.is_known:
        # "It does not exist" would be believed for a while, and is likely wrong. Clients ask again after this.
        return failure(query, table)
    return no_name(query, table, apex)


def service_records(query: Query, table: NameTable) -> list[dnslib.RR] | None:
    """What is at a name that is known by underscores before a service's name; None if there is no such name.

    ``_tcp.NAME`` has an SRV record for every port, ``_PROTOCOL._tcp.NAME`` for those that speak this application
    protocol, ``_meshd.NAME`` a TXT record that says how many healthy instances are where.
    """
    labels = tuple(label.lower() for label in query.labels)
    below = 2 if labels[1:2] == (b"_tcp",) else 1
    base_at = sum(len(label) + 1 for label in labels[:below])
    entry = table.names.get(query.name[base_at:], names.NOTHING)
    if entry is names.NOTHING:
        return None
    owner = dnslib.DNSLabel(query.labels)
    if labels[0] == b"_meshd" and below == 1:
        texts = [f"{zone}={count}".encode()[:255] for zone, count in entry.zones] or [b"instances=0"]
        text = dnslib.RR(owner, wire.TXT, ttl=names.TTL_S, rdata=dnslib.TXT(texts))
        return [text] if query.qtype in (wire.TXT, wire.ANY) else []
    if b"_tcp" not in labels[:below]:
        return None
    ports = [
        port
        for port, protocol in entry.ports
        if below == 1 or (protocol != "tcp" and f"_{protocol}".encode() == labels[0])
    ]
    if not ports:
        return None
    # Uncompressed, as RFC 2782 wants a target; in the spelling of the question.
    target = b"".join(bytes((len(label),)) + label for label in query.labels[below:]) + b"\0"
    records = [
        dnslib.RR(owner, wire.SRV, ttl=names.TTL_S, rdata=dnslib.RD(struct.pack("!3H", 0, 0, port) + target))
        for port in (ports[:1] if query.qtype == wire.ANY else ports)
    ]
    return records if query.qtype in (wire.SRV, wire.ANY) else []


def reverse_apex(query: Query, table: NameTable) -> tuple[bytes, ...] | None:
    """The labels, as the question spells them, of the zone of our addresses' names that it is about."""
    if not query.name.endswith(ARPA) or not table.reverse:
        return None
    labels = tuple(label.lower() for label in query.labels)
    for at in range(len(labels)):
        if labels[at:] in table.reverse:
            return query.labels[at:]
    return None


def from_reverse(query: Query, table: NameTable, apex: tuple[bytes, ...]) -> Answer:
    """The answer for an address that is a VIP or could be. What is above addresses of the range exists."""
    address = names.reverse_name(tuple(label.lower() for label in query.labels))
    if address is None:
        return no_name(query, table, apex)
    if len(address) < 4:
        return zone_answer(query, table, apex, [])
    title = table.titles.get(address)
    if title is None:
        # A range may be one address: then its apex is that, and exists.
        if len(apex) == len(query.labels):
            return zone_answer(query, table, apex, [])
        return failure(query, table) if not table.is_known else no_name(query, table, apex)
    data = dnslib.PTR(dnslib.DNSLabel(wire.labels_at(title, 0)[0]))
    record = dnslib.RR(dnslib.DNSLabel(query.labels), wire.PTR, ttl=names.TTL_S, rdata=data)
    return zone_answer(query, table, apex, [record] if query.qtype in (wire.PTR, wire.ANY) else [])


def zone_answer(query: Query, table: NameTable, apex: tuple[bytes, ...], found: list[dnslib.RR]) -> Answer:
    """The answer for a name that exists in a zone of ours: what was found, the apex' own records, or none."""
    answers = found
    if len(apex) == len(query.labels):
        if query.qtype == wire.SOA or (query.qtype == wire.ANY and not found):
            answers = [soa(apex, apex, names.TTL_S)]
        elif query.qtype == wire.NS:
            # RFC 6303: a zone that is served locally and delegated by nobody names itself.
            target = dnslib.NS(dnslib.DNSLabel(apex))
            answers = [dnslib.RR(dnslib.DNSLabel(query.labels), wire.NS, ttl=names.TTL_S, rdata=target)]
    no_data = [] if answers else [soa(apex, apex, names.NEGATIVE_TTL_S)]
    return reply(query, table, wire.NOERROR, answers=answers, authorities=no_data)


def no_name(query: Query, table: NameTable, apex: tuple[bytes, ...]) -> Answer:
    """NXDOMAIN, with the SOA by which clients keep it (RFC 2308)."""
    return reply(query, table, wire.NXDOMAIN, authorities=[soa(apex, apex, names.NEGATIVE_TTL_S)])


def from_host(query: Query, table: NameTable, entry: Entry) -> Answer:
    """The answer for a name outside the domain that an external service has taken over: a zone of one name."""
    answers = address_records(query, entry)
    no_data = [] if answers else [soa(query.labels, query.labels, names.NEGATIVE_TTL_S)]
    return reply(query, table, wire.NOERROR, answers=answers, authorities=no_data)


def address_records(query: Query, entry: Entry) -> list[dnslib.RR]:
    """The record of the asked type; for ANY one record, as small as can be (RFC 8482)."""
    owner, address = dnslib.DNSLabel(query.labels), entry.address
    if query.qtype in (wire.A, wire.ANY):
        return [dnslib.RR(owner, wire.A, ttl=names.TTL_S, rdata=dnslib.A(tuple(address)))]
    if query.qtype == wire.AAAA:
        return [dnslib.RR(owner, wire.AAAA, ttl=names.TTL_S, rdata=dnslib.AAAA(tuple(names.MAPPED + address)))]
    return []


def soa(owner: tuple[bytes, ...], primary: tuple[bytes, ...], ttl_s: int) -> dnslib.RR:
    """The start of authority, as RFC 6303 has it for zones that are served locally.

    The names are spelled as in the question, so that they compress into it.
    """
    data = dnslib.SOA(dnslib.DNSLabel(primary), dnslib.DNSLabel(names.HOSTMASTER), names.SOA_TIMERS)
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
    """Build an answer; authoritative if it says anything about a name."""
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
