"""The parts of a DNS query that we must understand, parsed strictly from its bytes.

dnslib builds our unusual answers but does not parse queries here: it takes label lengths up to 191, names of any
length and compression in a question, and refuses labels that are no UTF-8, which are legal.

Source: RFC 1035 section 4, RFC 6891 section 6.
"""

import struct
from dataclasses import dataclass

HEADER = struct.Struct("!6H")
HEADER_BYTES = 12
MAX_QUERY_BYTES = 4096
"""A longer query is refused unread: no real one is, and our time on it would be its sender's to choose."""
MAX_NAME_BYTES = 255
MAX_LABEL_BYTES = 63
UDP_BYTES = 512
"""What a client without EDNS takes by UDP."""
EDNS_UDP_BYTES = 1232
"""What we offer, and the most we send by UDP: it fits every path without fragments (DNS flag day 2020)."""

QR = 0x8000
AA = 0x0400
TC = 0x0200
RD = 0x0100
RA = 0x0080
AD = 0x0020
CD = 0x0010
OPCODE = 0x7800
DO = 0x8000

CLASS_IN = 1
A, NS, SOA, PTR, HINFO, TXT, AAAA, SRV, OPT, SVCB, HTTPS, ANY = 1, 2, 6, 12, 13, 16, 28, 33, 41, 64, 65, 255
COOKIE = 10
"""The EDNS option of RFC 7873."""
CLIENT_COOKIE_BYTES = 8
COOKIE_BYTES = frozenset({CLIENT_COOKIE_BYTES, *range(16, 41)})
"""Lengths that a cookie may have: the client's half alone, or with a server's half of 8 to 32 bytes."""
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16


class MalformedError(ValueError):
    """The bytes are no query that can be answered; the message says where they go wrong."""


@dataclass(frozen=True, slots=True)
class Edns:
    """The OPT record of a query: what the sender takes by UDP, its version, and whether it wants DNSSEC records.

    ``cookie`` is what it sent as such: the client's half and maybe a server's; empty if none came.
    """

    udp_bytes: int
    version: int
    dnssec_ok: bool
    cookie: bytes = b""


@dataclass(frozen=True, slots=True)
class Query:
    """One query. ``question`` is its question section as sent; ``labels`` are in the sender's case, without the root.

    ``name`` is the owner name in wire form and lower case: the key of all our tables.
    """

    ident: int
    flags: int
    question: bytes
    labels: tuple[bytes, ...]
    name: bytes
    qtype: int
    qclass: int
    edns: Edns | None

    @property
    def udp_limit(self) -> int:
        """The most bytes that may go back by UDP."""
        return max(UDP_BYTES, min(self.edns.udp_bytes, EDNS_UDP_BYTES)) if self.edns else UDP_BYTES


def name_to_wire(text: str) -> bytes:
    """A name as text, with or without its trailing dot, in wire form and lower case.

    Raises:
        ValueError: an empty or too long label, a name of over 255 bytes, or characters that are no ASCII.
    """
    try:
        labels = text.removesuffix(".").lower().encode("ascii").split(b".")
    except UnicodeEncodeError:
        raise ValueError(f"name {text!r}: is no ASCII") from None
    if not all(0 < len(label) <= MAX_LABEL_BYTES for label in labels):
        raise ValueError(f"name {text!r}: a label is empty or longer than {MAX_LABEL_BYTES} bytes")
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(wire) > MAX_NAME_BYTES:
        raise ValueError(f"name {text!r}: is longer than {MAX_NAME_BYTES} bytes")
    return wire


def query_message(name: bytes, qtype: int) -> bytes:
    """A query with id 0 for a name in wire form, that wishes for recursion and has no EDNS."""
    return HEADER.pack(0, RD, 1, 0, 0, 0) + name + struct.pack("!HH", qtype, CLASS_IN)


def labels_at(message: bytes, offset: int) -> tuple[tuple[bytes, ...], int]:
    """The labels of the uncompressed name at ``offset`` and the offset behind it.

    Raises:
        MalformedError: cut short, compressed, or longer than a name may be.
    """
    labels = []
    start = offset
    while True:
        if offset >= len(message):
            raise MalformedError("name is cut short")
        length = message[offset]
        offset += 1
        if length == 0:
            break
        if length > MAX_LABEL_BYTES:
            raise MalformedError("name is compressed, or a label is of an unknown kind")
        labels.append(message[offset : offset + length])
        offset += length
        if offset - start >= MAX_NAME_BYTES:
            raise MalformedError("name is longer than 255 bytes")
    return tuple(labels), offset


def parse_query(message: bytes) -> Query:
    """Parse a query of opcode QUERY; its header has been looked at already.

    Raises:
        MalformedError: not exactly one question, answers in a query, several OPT records, or broken anywhere.
    """
    if len(message) > MAX_QUERY_BYTES:
        raise MalformedError(f"query is longer than {MAX_QUERY_BYTES} bytes")
    ident, flags, questions, answers, authorities, additionals = HEADER.unpack_from(message)
    # Two additionals: OPT and TSIG. A query has no use for more, or for the other sections.
    if questions != 1 or answers or authorities or additionals > 2:
        raise MalformedError("query has not exactly one question")
    labels, offset = labels_at(message, HEADER_BYTES)
    if offset + 4 > len(message):
        raise MalformedError("question is cut short")
    qtype, qclass = struct.unpack_from("!HH", message, offset)
    question = message[HEADER_BYTES : offset + 4]
    offset += 4
    edns: Edns | None = None
    for _ in range(additionals):
        record, offset = additional_at(message, offset)
        if record is not None and edns is not None:
            raise MalformedError("query has two OPT records")
        edns = record or edns
    if offset != len(message):
        raise MalformedError("bytes follow the last record")
    return Query(ident, flags, question, labels, question[:-4].lower(), qtype, qclass, edns)


def additional_at(message: bytes, offset: int) -> tuple[Edns | None, int]:
    """The record at ``offset``, if it is an OPT, and the offset behind it.

    Raises:
        MalformedError: cut short, an OPT not at the root, or options that do not fill it.
    """
    labels, offset = labels_at(message, offset)
    if offset + 10 > len(message):
        raise MalformedError("additional record is cut short")
    rtype, rclass, ttl, length = struct.unpack_from("!HHIH", message, offset)
    offset += 10
    end = offset + length
    if end > len(message):
        raise MalformedError("additional record is cut short")
    if rtype != OPT:
        return None, end
    if labels:
        raise MalformedError("OPT record is not at the root")
    return Edns(rclass, (ttl >> 16) & 0xFF, bool(ttl & DO), cookie_in(message[offset:end])), end


def cookie_in(options: bytes) -> bytes:
    """The first COOKIE among EDNS options (RFC 7873 5.2: others are ignored); empty if there is none.

    Raises:
        MalformedError: options that do not fill the record, or a cookie of a length that none can have.
    """
    cookie = b""
    offset = 0
    while offset < len(options):
        code, length = int.from_bytes(options[offset : offset + 2]), int.from_bytes(options[offset + 2 : offset + 4])
        value = options[offset + 4 : offset + 4 + length]
        if offset + 4 > len(options) or len(value) != length:
            raise MalformedError("EDNS option is cut short")
        if code == COOKIE and not cookie:
            if length not in COOKIE_BYTES:
                raise MalformedError("EDNS cookie has an impossible length")
            cookie = value
        offset += 4 + length
    return cookie
