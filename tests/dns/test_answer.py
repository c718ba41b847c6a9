import struct

import dns.flags
import dns.message
import dnslib
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshd.dns import answer, wire
from meshd.dns.cookies import Cookies
from meshd.dns.table import Change, Entry, NameTable
from tests.dns.support import query, quickly, table

COOKIES = Cookies(b"secret", 1.8e9)
HOST = b"\x7f\0\0\1"
MAX_GROWTH_BYTES = 66
"""An SOA (50), and the server's part of a cookie (16)."""
TABLE = table()
RECURSIVE = table(recursive=True)


def fast(message: bytes, names: NameTable) -> bytes | None:
    """The fast road's answer, as bytes."""
    found = quickly(message, names, COOKIES, HOST)
    return found and found[0]


def respond(message: bytes, names: NameTable) -> answer.Answer | answer.Forward | answer.Drop:
    return answer.respond(message, names, lambda cookie: COOKIES.option(cookie, HOST))


def ask(message: bytes, *, recursive: bool = False) -> dns.message.Message:
    """The answer as dnspython reads it, once dnslib has read it too and both roads have been compared."""
    names = RECURSIVE if recursive else TABLE
    outcome = respond(message, names)
    assert isinstance(outcome, answer.Answer)
    dnslib.DNSRecord.parse(outcome.wire)
    assert fast(message, names) in (None, outcome.wire)
    parsed = dns.message.from_wire(outcome.wire)
    assert dns.message.from_wire(message).is_response(parsed)
    return parsed


def lines(section: list[object]) -> list[str]:
    return [str(rrset) for rrset in section]


MAPPED_1 = "1.0.0.0.0.0.0.f.f.f.f.f" + ".0" * 20 + ".ip6.arpa"
REVERSE = ["240.in-addr.arpa. 5 IN SOA 240.in-addr.arpa. nobody.invalid. 1 3600 1200 604800 5"]
PORTS = (80, 8443, 9000)
HOST_SOA = ["api.example.com. 5 IN SOA api.example.com. nobody.invalid. 1 3600 1200 604800 5"]
SOA = ["mesh. 5 IN SOA mesh. nobody.invalid. 1 3600 1200 604800 5"]


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "answers", "authorities"),
    [
        ("backend.mesh", "A", 0, ["backend.mesh. 30 IN A 240.0.0.1"], []),
        ("backend.mesh", "AAAA", 0, ["backend.mesh. 30 IN AAAA ::ffff:240.0.0.1"], []),
        ("BackEnd.MESH", "A", 0, ["BackEnd.MESH. 30 IN A 240.0.0.1"], []),
        ("a_b_c.mesh", "A", 0, ["a_b_c.mesh. 30 IN A 240.0.0.2"], []),
        ("a.b.c.mesh", "A", 0, ["a.b.c.mesh. 30 IN A 240.0.0.2"], []),
        ("backend.mesh", "MX", 0, [], SOA),
        ("backend.mesh", "HTTPS", 0, [], SOA),
        ("backend.mesh", "SRV", 0, [], SOA),
        ("backend.mesh", "ANY", 0, ["backend.mesh. 30 IN A 240.0.0.1"], []),
        ("b.c.mesh", "A", 0, [], SOA),
        ("c.mesh", "TXT", 0, [], SOA),
        ("unknown.mesh", "A", 3, [], SOA),
        ("unknown.mesh", "TXT", 3, [], SOA),
        ("under.backend.mesh", "A", 3, [], SOA),
        ("mesh", "SOA", 0, ["mesh. 30 IN SOA mesh. nobody.invalid. 1 3600 1200 604800 5"], []),
        ("mesh", "NS", 0, ["mesh. 30 IN NS mesh."], []),
        ("mesh", "ANY", 0, ["mesh. 30 IN SOA mesh. nobody.invalid. 1 3600 1200 604800 5"], []),
        ("mesh", "A", 0, [], SOA),
        ("mesh", "DS", 0, [], SOA),
        ("api.example.com", "A", 0, ["api.example.com. 30 IN A 240.0.0.3"], []),
        ("API.example.com", "AAAA", 0, ["API.example.com. 30 IN AAAA ::ffff:240.0.0.3"], []),
        ("api.example.com", "HTTPS", 0, [], HOST_SOA),
        ("api.example.com", "ANY", 0, ["api.example.com. 30 IN A 240.0.0.3"], []),
        ("_tcp.Backend.mesh", "SRV", 0, [f"_tcp.Backend.mesh. 30 IN SRV 0 0 {p} Backend.mesh." for p in PORTS], []),
        ("_http._tcp.backend.mesh", "SRV", 0, ["_http._tcp.backend.mesh. 30 IN SRV 0 0 80 backend.mesh."], []),
        ("_GRPC._TCP.a.b.c.mesh", "SRV", 0, ["_GRPC._TCP.a.b.c.mesh. 30 IN SRV 0 0 8443 a.b.c.mesh."], []),
        ("_grpc._tcp.backend.mesh", "ANY", 0, ["_grpc._tcp.backend.mesh. 30 IN SRV 0 0 8443 backend.mesh."], []),
        ("_tcp.backend.mesh", "ANY", 0, ["_tcp.backend.mesh. 30 IN SRV 0 0 80 backend.mesh."], []),
        ("_tcp.backend.mesh", "A", 0, [], SOA),
        ("_tcp._tcp.backend.mesh", "SRV", 3, [], SOA),
        ("_mysql._tcp.backend.mesh", "SRV", 3, [], SOA),
        ("_http._udp.backend.mesh", "SRV", 3, [], SOA),
        ("x._http._tcp.backend.mesh", "SRV", 3, [], SOA),
        ("_tcp.b.c.mesh", "SRV", 3, [], SOA),
        ("_meshd.backend.mesh", "TXT", 0, ['_meshd.backend.mesh. 30 IN TXT "zone-a=2" "zone-b=1"'], []),
        ("_meshd.backend.mesh", "ANY", 0, ['_meshd.backend.mesh. 30 IN TXT "zone-a=2" "zone-b=1"'], []),
        ("_meshd.backend.mesh", "AAAA", 0, [], SOA),
        ("_meshd._tcp.backend.mesh", "TXT", 3, [], SOA),
        ("_meshd.mesh", "TXT", 3, [], SOA),
        ("2.0.0.240.in-addr.arpa", "A", 0, [], REVERSE),
        ("1.0.0.240.In-Addr.ARPA", "PTR", 0, ["1.0.0.240.In-Addr.ARPA. 30 IN PTR backend.mesh."], []),
        ("1.0.0.240.in-addr.arpa", "ANY", 0, ["1.0.0.240.in-addr.arpa. 30 IN PTR backend.mesh."], []),
        (MAPPED_1, "PTR", 0, [f"{MAPPED_1}. 30 IN PTR backend.mesh."], []),
        ("9.9.9.240.in-addr.arpa", "PTR", 3, [], REVERSE),
        ("x.0.240.in-addr.arpa", "PTR", 3, [], REVERSE),
        ("0.240.in-addr.arpa", "PTR", 0, [], REVERSE),
        ("240.in-addr.arpa", "PTR", 0, [], REVERSE),
        ("240.in-addr.arpa", "NS", 0, ["240.in-addr.arpa. 30 IN NS 240.in-addr.arpa."], []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("edns", [None, 4096])
@pytest.mark.parametrize("recursive", [False, True])
def test_local_name(
    name: str, qtype: str, rcode: int, answers: list[str], authorities: list[str], edns: int | None, recursive: bool
) -> None:
    reply = ask(query(name, qtype, edns=edns), recursive=recursive)
    assert reply.rcode() == rcode
    assert [line for rrset in lines(reply.answer) for line in rrset.splitlines()] == answers
    assert lines(reply.authority) == authorities
    assert bool(reply.flags & dns.flags.AA)
    assert bool(reply.flags & dns.flags.RA) == recursive
    assert (reply.edns, reply.payload if edns else 1232) == (0 if edns else -1, 1232)


@pytest.mark.parametrize(
    ("name", "message", "rcode"),
    [
        ("a foreign name without upstreams", query("example.org"), 5),
        ("the root", query(".", "NS"), 5),
        ("zone transfer", query("mesh", "AXFR"), 5),
        ("OPT as type", query("backend.mesh", 41), 5),
        ("class CH", query("backend.mesh")[:-2] + b"\0\x03", 5),
        ("EDNS version 1", query("backend.mesh", edns=4096, version=1), 16),
    ],
)
def test_refusal(name: str, message: bytes, rcode: int) -> None:
    assert ask(message).rcode() == rcode


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 6])
def test_other_opcodes_are_not_implemented(opcode: int) -> None:
    outcome = answer.respond(query("backend.mesh", flags=opcode << 11), TABLE)
    assert isinstance(outcome, answer.Answer)
    assert outcome.wire == struct.pack("!6H", 0x1234, 0x8000 | opcode << 11 | 4, 0, 0, 0, 0)


@pytest.mark.parametrize("message", [b"", b"\0" * 11, query("backend.mesh", flags=0x8100), b"\xff" * 40])
def test_what_is_short_or_a_response_gets_silence(message: bytes) -> None:
    assert isinstance(answer.respond(message, TABLE), answer.Drop)


def test_malformed_query_gets_a_bare_formerr_no_longer_than_itself() -> None:
    outcome = answer.respond(query("backend.mesh") + b"junk", TABLE)
    assert isinstance(outcome, answer.Answer)
    assert outcome.wire == struct.pack("!6H", 0x1234, 0x8101, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("name", "qtype"), [("example.org", "A"), ("api.example.com", "TXT"), ("meshes", "A"), ("xmesh", "A")]
)
def test_foreign_question_is_forwarded_if_there_are_upstreams(name: str, qtype: str) -> None:
    assert isinstance(answer.respond(query(name, qtype), RECURSIVE), answer.Forward)


@pytest.mark.parametrize("name", ["x.mesh", "MESH", "b.c.mesh", "a.b.unknown.Mesh"])
@pytest.mark.parametrize("qtype", ["A", "TXT", "ANY", "PTR"])
def test_a_name_under_the_domain_is_never_forwarded(name: str, qtype: str) -> None:
    assert isinstance(answer.respond(query(name, qtype), RECURSIVE), answer.Answer)


def test_any_for_a_foreign_name_is_answered_small() -> None:
    reply = ask(query("example.org", "ANY"), recursive=True)
    assert lines(reply.answer) == ['example.org. 30 IN HINFO "RFC8482" ""']


def test_rd_and_cd_are_echoed_and_ad_is_not_claimed() -> None:
    reply = ask(query("backend.mesh", flags=0x0130))
    assert reply.flags & (dns.flags.RD | dns.flags.CD) == dns.flags.RD | dns.flags.CD
    assert not reply.flags & dns.flags.AD


def test_do_is_echoed() -> None:
    assert ask(query("backend.mesh", edns=1232, do=True)).ednsflags == dns.flags.DO


@pytest.mark.parametrize("name", ["a" * 63 + ".mesh", ".".join(["b" * 61] * 4) + ".mesh"[:6]])
def test_answers_fit_into_512_bytes_even_for_the_longest_names(name: str) -> None:
    outcome = answer.respond(query(name[:253], "TXT", edns=512), TABLE)
    assert isinstance(outcome, answer.Answer)
    assert len(outcome.wire) <= 512


def test_binary_label_under_the_domain_is_nxdomain() -> None:
    message = query("backend.mesh")[:12] + b"\x02\xff\xfe\x04mesh\0\0\x01\0\x01"
    outcome = answer.respond(message, TABLE)
    assert isinstance(outcome, answer.Answer)
    assert outcome.rcode == "NXDOMAIN"
    assert outcome.wire[12 : len(message)] == message[12:]


def test_while_nothing_is_known_there_is_nothing_to_remember_of_a_name() -> None:
    nothing = NameTable("mesh", recursive=False, is_known=False)
    outcome = answer.respond(query("backend.mesh"), nothing)
    assert isinstance(outcome, answer.Answer)
    assert outcome.rcode == "SERVFAIL"
    assert dns.message.from_wire(outcome.wire).authority == []
    nothing.change(Change({b"\x03web\x04mesh\0": Entry(b"\xf0\0\0\1")}))
    assert fast(query("backend.mesh"), nothing) is None
    assert fast(query("web.mesh"), nothing) is not None
    apex = answer.respond(query("mesh", "SOA"), nothing)
    assert isinstance(apex, answer.Answer)
    assert apex.rcode == "NOERROR"


def test_truncated_answer_keeps_question_and_says_so() -> None:
    parsed = wire.parse_query(query("Example.org", edns=1232))
    reply = dns.message.from_wire(answer.truncated(parsed, 0x8180))
    assert reply.flags & dns.flags.TC
    assert (str(reply.question[0].name), reply.answer, reply.edns) == ("Example.org.", [], 0)


NAMES = [
    "backend.mesh", "a_b_c.mesh", "a.b.c.mesh", "b.c.mesh", "api.example.com", "unknown.mesh", "x.backend.mesh", "mesh",
    "_tcp.backend.mesh", "_x.mesh", "example.org", "1.0.0.240.in-addr.arpa", "xmesh", "x" * 63 + ".mesh",
    ".".join(["y" * 61] * 4)[:-1] + ".mesh"[:5],
]  # fmt: skip


@st.composite
def spelled(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(NAMES))
    upper = draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
    return "".join(c.upper() if up else c for c, up in zip(name, upper, strict=True))


OPTIONS = st.sampled_from([b"", b"", b"\0\x0a\0\x08clientid", b"\0\x0a\0\x18clientid" + b"s" * 16, b"\0\x0c\0\0"])


@st.composite
def queries(draw: st.DrawFn) -> bytes:
    """Plain queries, as clients send them, with and without EDNS."""
    types = st.sampled_from(["A", "AAAA", "MX", "TXT", "SRV", "HTTPS", "PTR", "SOA", "NS", "ANY", 999, "CNAME"])
    message = query(
        draw(spelled()),
        draw(types),
        ident=draw(st.integers(0, 0xFFFF)),
        flags=draw(st.sampled_from([0x0000, 0x0100, 0x0120, 0x0110, 0x0030])),
        edns=(edns := draw(st.none() | st.integers(0, 0xFFFF))),
        do=draw(st.booleans()),
    )
    if edns is None:
        return message
    options = draw(OPTIONS)
    return message[:-2] + len(options).to_bytes(2) + options


@given(queries(), st.booleans())
@settings(max_examples=300)
def test_both_roads_give_the_same_bytes(message: bytes, recursive: bool) -> None:
    names = RECURSIVE if recursive else TABLE
    ready = fast(message, names)
    slow = respond(message, names)
    if ready is not None:
        assert isinstance(slow, answer.Answer)
        assert ready == slow.wire
        assert len(ready) <= len(message) + MAX_GROWTH_BYTES
    if isinstance(slow, answer.Answer):
        dnslib.DNSRecord.parse(slow.wire)
        parsed = dns.message.from_wire(slow.wire)
        assert dns.message.from_wire(message).is_response(parsed)
        assert len(slow.wire) <= max(512, wire.parse_query(message).udp_limit)


@pytest.mark.parametrize("name", ["BackEnd.mesh", "unknown.mesh", "b.c.mesh", "x.backend.mesh"])
@pytest.mark.parametrize("qtype", ["A", "AAAA", "MX", "TXT", "HTTPS", "SRV"])
@pytest.mark.parametrize("options", [None, b"", b"\0\x0a\0\x08clientid", b"\0\x0a\0\x18clientid" + b"s" * 16])
@pytest.mark.parametrize("do", [False, True])
def test_plain_queries_under_the_domain_take_the_fast_road(
    name: str, qtype: str, options: bytes | None, do: bool
) -> None:
    message = query(name, qtype, edns=None if options is None else 1232, do=do)
    message = message if options is None else message[:-2] + len(options).to_bytes(2) + options
    ready = fast(message, TABLE)
    assert ready is not None
    assert dns.message.from_wire(message).is_response(dns.message.from_wire(ready))
    assert dnslib.DNSRecord.parse(ready).header.id == 0x1234


@pytest.mark.parametrize(
    ("name", "qtype", "options", "growth_bytes"),
    [
        ("backend.mesh", "A", None, 16),
        ("backend.mesh", "AAAA", None, 28),
        ("backend.mesh", "MX", None, 50),
        ("unknown.mesh", "A", b"", 50),
        ("unknown.mesh", "A", b"\0\x0a\0\x08clientid", MAX_GROWTH_BYTES),
        ("unknown.mesh", "A", b"\0\x0a\0\x18clientid" + b"s" * 16, 50),
    ],
)
def test_a_ready_answer_is_little_longer_than_its_query(
    name: str, qtype: str, options: bytes | None, growth_bytes: int
) -> None:
    message = query(name, qtype, edns=None if options is None else 1232)
    message = message if options is None else message[:-2] + len(options).to_bytes(2) + options
    ready = fast(message, TABLE)
    assert ready is not None
    assert len(ready) - len(message) == growth_bytes


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (b"\0\x0a\0\x08clientid", True),
        (b"\0\x0c\0\x02\0\0\0\x0a\0\x08clientid", True),
        (b"\0\x0a\0\x0aclientidxx", None),
        (b"\0\x0a\0\x07clienti", None),
        (b"\0\x0c\0\0", False),
    ],
)
def test_a_cookie_is_answered_and_one_of_impossible_length_is_malformed(options: bytes, expected: bool | None) -> None:
    message = query("backend.mesh", edns=1232)
    outcome = respond(message[:-2] + len(options).to_bytes(2) + options, TABLE)
    assert isinstance(outcome, answer.Answer)
    if expected is None:
        assert outcome.rcode == "FORMERR"
        return
    cookies = [option.to_wire() for option in dns.message.from_wire(outcome.wire).options]
    assert [cookie[:8] for cookie in cookies] == ([b"clientid"] if expected else [])
    assert all(COOKIES.is_ours(cookie, HOST) for cookie in cookies)


def test_more_than_fits_is_truncated_by_udp_and_whole_by_tcp() -> None:
    names = table()
    zones = tuple((f"zone-{i:03}", i) for i in range(1, 200))
    names.change(Change({b"\x03big\x04mesh\0": Entry(b"\xf0\0\0\x09", zones=zones)}))
    message = query("_meshd.big.mesh", "TXT", edns=4096)
    cut, whole = answer.respond(message, names), answer.respond(message, names, by_udp=False)
    assert isinstance(cut, answer.Answer)
    assert isinstance(whole, answer.Answer)
    parsed = dns.message.from_wire(cut.wire)
    assert (bool(parsed.flags & dns.flags.TC), parsed.answer, parsed.edns) == (True, [], 0)
    assert str(dns.message.from_wire(whole.wire).answer[0]).endswith('"zone-199=199"')


@pytest.mark.parametrize("refuse", [False, True])
def test_what_is_held_back_gets_its_question_and_no_more(refuse: bool) -> None:
    message = query("backend.mesh", edns=1232, do=True)
    reply = answer.short(message, refuse=refuse)
    assert reply is not None
    assert len(reply) == len(message)
    parsed = dns.message.from_wire(reply)
    assert dns.message.from_wire(message).is_response(parsed)
    assert (parsed.rcode(), bool(parsed.flags & dns.flags.TC)) == ((5, False) if refuse else (0, True))
    for broken in (b"", message[:-1], query("backend.mesh", flags=0x8000), query("backend.mesh", flags=0x2800)):
        assert answer.short(broken, refuse=refuse) is None


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    message = bytearray(
        query(draw(spelled()), draw(st.sampled_from(["A", "AAAA", "MX"])), edns=draw(st.none() | st.just(900)))
    )
    for _ in range(draw(st.integers(1, 4))):
        message[draw(st.integers(0, len(message) - 1))] = draw(st.integers(0, 255))
    return bytes(message[: draw(st.integers(0, len(message)))]) + draw(st.binary(max_size=12))


@given(st.binary(max_size=64) | damaged())
@settings(max_examples=300)
@example(b"\0" * 12)
@example(query("backend.mesh", edns=1232)[:-2] + b"\0\x0c\0\x0a\0\x08clientid" + b"more than fits.")
@example(query("backend.mesh", edns=1232)[:-2] + b"\0\x0c\0\x0a\0\x08clientid" + b"more than it has")
def test_no_bytes_raise_and_both_roads_agree(message: bytes) -> None:
    for names in (TABLE, RECURSIVE):
        slow = respond(message, names)
        ready = fast(message, names)
        assert isinstance(slow, answer.Answer | answer.Forward | answer.Drop)
        if ready is not None:
            assert isinstance(slow, answer.Answer)
            assert ready == slow.wire
        if isinstance(slow, answer.Answer):
            assert slow.wire[:2] == message[:2]
            assert slow.wire[2] & 0x80
            dnslib.DNSHeader.parse(dnslib.DNSBuffer(slow.wire))
            assert slow.rcode != "FORMERR" or len(slow.wire) <= len(message)
