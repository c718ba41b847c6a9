import struct
from ipaddress import IPv4Address

import dns.flags
import dns.message
import dnslib
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshd.dns import answer, wire
from meshd.dns.table import empty_table
from tests.dns.support import query, table

TABLE = table()
RECURSIVE = table(recursive=True)


def ask(message: bytes, *, recursive: bool = False) -> dns.message.Message:
    """The answer as dnspython reads it, once dnslib has read it too and both roads have been compared."""
    names = RECURSIVE if recursive else TABLE
    outcome = answer.respond(message, names)
    assert isinstance(outcome, answer.Answer)
    dnslib.DNSRecord.parse(outcome.wire)
    assert answer.fast(message, names) in (None, outcome.wire)
    parsed = dns.message.from_wire(outcome.wire)
    assert dns.message.from_wire(message).is_response(parsed)
    return parsed


def lines(section: list[object]) -> list[str]:
    return [str(rrset) for rrset in section]


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
    ],
)  # fmt: skip
@pytest.mark.parametrize("edns", [None, 4096])
@pytest.mark.parametrize("recursive", [False, True])
def test_local_name(
    name: str, qtype: str, rcode: int, answers: list[str], authorities: list[str], edns: int | None, recursive: bool
) -> None:
    reply = ask(query(name, qtype, edns=edns), recursive=recursive)
    assert reply.rcode() == rcode
    assert lines(reply.answer) == answers
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
    nothing = empty_table("mesh", recursive=False, is_known=False)
    outcome = answer.respond(query("backend.mesh"), nothing)
    assert isinstance(outcome, answer.Answer)
    assert outcome.rcode == "SERVFAIL"
    assert dns.message.from_wire(outcome.wire).authority == []
    assert not nothing.changed({b"\x03web\x04mesh\0": IPv4Address("240.0.0.1")}).is_known
    apex = answer.respond(query("mesh", "SOA"), nothing)
    assert isinstance(apex, answer.Answer)
    assert apex.rcode == "NOERROR"


def test_truncated_answer_keeps_question_and_says_so() -> None:
    parsed = wire.parse_query(query("Example.org", edns=1232))
    reply = dns.message.from_wire(answer.truncated(parsed, 0x8180))
    assert reply.flags & dns.flags.TC
    assert (str(reply.question[0].name), reply.answer, reply.edns) == ("Example.org.", [], 0)


@st.composite
def spelled(draw: st.DrawFn) -> str:
    name = draw(
        st.sampled_from(["backend.mesh", "a_b_c.mesh", "a.b.c.mesh", "api.example.com", "unknown.mesh", "mesh"])
    )
    upper = draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
    return "".join(c.upper() if up else c for c, up in zip(name, upper, strict=True))


@given(
    spelled(),
    st.sampled_from(["A", "AAAA"]),
    st.integers(0, 0xFFFF),
    st.sampled_from([0x0000, 0x0100, 0x0120, 0x0110, 0x0030]),
    st.none() | st.integers(0, 0xFFFF),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=100)
def test_both_roads_give_the_same_bytes(
    name: str, qtype: str, ident: int, flags: int, edns: int | None, do: bool, recursive: bool
) -> None:
    message = query(name, qtype, ident=ident, flags=flags, edns=edns, do=do)
    names = RECURSIVE if recursive else TABLE
    ready = answer.fast(message, names)
    slow = answer.respond(message, names)
    assert isinstance(slow, answer.Answer)
    if name.lower() in ("unknown.mesh", "mesh"):
        assert ready is None
    else:
        assert ready == slow.wire


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
def test_no_bytes_raise_and_both_roads_agree(message: bytes) -> None:
    for names in (TABLE, RECURSIVE):
        slow = answer.respond(message, names)
        ready = answer.fast(message, names)
        assert isinstance(slow, answer.Answer | answer.Forward | answer.Drop)
        if ready is not None:
            assert isinstance(slow, answer.Answer)
            assert ready == slow.wire
        if isinstance(slow, answer.Answer):
            assert slow.wire[:2] == message[:2]
            assert slow.wire[2] & 0x80
            dnslib.DNSHeader.parse(dnslib.DNSBuffer(slow.wire))
            assert slow.rcode != "FORMERR" or len(slow.wire) <= len(message)
