import struct
from ipaddress import IPv4Network

import dns.flags
import dns.message
import dns.reversename
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.dns import answer, forward, wire
from meshd.dns.forward import Health, Verdict
from meshd.dns.reply import packed, parse_reply
from tests.dns.support import honest, query, table

QUERY = wire.parse_query(query("Example.org", ident=7))
SENT = forward.upstream_query(QUERY, 99, case=0b10100)
TRUE = honest(SENT.message)[0]
SPELLING = SENT.question[1:8]


def test_query_goes_out_under_our_id_and_spelling_with_the_clients_wishes() -> None:
    parsed = wire.parse_query(query("Example.org", edns=4096, do=True, flags=0x0130))
    sent = dns.message.from_wire(forward.upstream_query(parsed, 99, case=0b10100).message)
    assert (sent.id, sent.payload, sent.ednsflags) == (99, 1232, dns.flags.DO)
    assert sent.flags == dns.flags.RD | dns.flags.AD | dns.flags.CD
    assert str(sent.question[0].name) == "eXaMple.org."


def test_a_server_without_edns_gets_a_query_without() -> None:
    assert dns.message.from_wire(SENT.message).edns == 0
    assert dns.message.from_wire(forward.upstream_query(QUERY, 99, edns=False).message).edns == -1


@given(st.binary(max_size=30), st.integers(0, 2**40))
def test_spelling_changes_nothing_but_letter_case(label: bytes, case: int) -> None:
    name = bytes((len(label),)) + label.lower() + b"\0"
    assert forward.spelled(name, case).lower() == name


@pytest.mark.parametrize(
    ("name", "packet", "verdict"),
    [
        ("true", TRUE, Verdict.BELIEVED),
        ("question in lower case", TRUE.replace(SPELLING, b"example"), Verdict.FOLDED),
        ("wrong id", b"\0\x01" + TRUE[2:], Verdict.MISMATCH),
        ("a query", SENT.message, Verdict.MISMATCH),
        ("another opcode", TRUE[:2] + b"\xa8" + TRUE[3:], Verdict.MISMATCH),
        ("another name", TRUE.replace(SPELLING, b"eXaMpel"), Verdict.MISMATCH),
        ("another type", honest(query("example.org", "AAAA", ident=99))[0], Verdict.MISMATCH),
        ("short", TRUE[:11], Verdict.MISMATCH),
        ("empty", b"", Verdict.MISMATCH),
        ("bare header that fails", struct.pack("!6H", 99, 0x8182, 0, 0, 0, 0), Verdict.BELIEVED),
        ("bare header that fails, and more", struct.pack("!6H", 99, 0x8182, 0, 0, 0, 0) + b"x", Verdict.MISMATCH),
        ("bare header that succeeds", struct.pack("!6H", 99, 0x8180, 0, 0, 0, 0), Verdict.MISMATCH),
    ],
)
def test_which_packets_are_believed(name: str, packet: bytes, verdict: Verdict) -> None:
    assert forward.judge(packet, SENT) is verdict


def test_formerr_without_opt_means_that_a_server_has_no_edns() -> None:
    error = parse_reply(struct.pack("!6H", 99, 0x8181, 0, 0, 0, 0), QUERY)
    assert forward.lacks_edns(error, edns=True)
    assert not forward.lacks_edns(error, edns=False)
    assert not forward.lacks_edns(parse_reply(TRUE, QUERY), edns=True)


def test_client_gets_its_own_id_and_spelling() -> None:
    outcome = forward.to_client(packed(parse_reply(TRUE, QUERY), QUERY), QUERY, table(recursive=True), 512)
    reply = dns.message.from_wire(outcome.wire)
    assert (reply.id, str(reply.question[0].name)) == (7, "Example.org.")
    assert str(reply.answer[0]) == "Example.org. 60 IN A 192.0.2.7"


@pytest.mark.parametrize(("limit", "truncated"), [(512, True), (1232, False)])
def test_a_reply_over_the_limit_is_truncated(limit: int, truncated: bool) -> None:
    message = packed(parse_reply(honest(SENT.message, count=40)[0], QUERY), QUERY)
    reply = dns.message.from_wire(forward.to_client(message, QUERY, table(recursive=True), limit).wire)
    assert bool(reply.flags & dns.flags.TC) == truncated
    assert bool(reply.answer) != truncated


def test_an_upstream_is_down_after_three_failures_and_probed_after_growing_pauses() -> None:
    health = Health()
    for _ in range(2):
        health = health.failed(0.0)
        assert health.is_up
    pauses = []
    now = 0.0
    for _ in range(6):
        health = health.failed(now)
        assert not health.is_up
        pauses.append(health.down_until - now)
        now = health.down_until
    assert pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert health.answered(0.01).is_up


def test_patience_is_learned_and_bounded() -> None:
    assert Health().patience_s == forward.PATIENCE_S
    assert Health().answered(0.001).patience_s == forward.MIN_PATIENCE_S
    steady = Health()
    for _ in range(60):
        steady = steady.answered(0.3)
    assert steady.patience_s == pytest.approx(0.3, abs=0.01)
    assert Health().answered(9.0).patience_s == forward.MAX_PATIENCE_S


def test_down_upstreams_are_not_asked_and_are_due_after_their_pause() -> None:
    healths = [Health(failures=3, down_until=10.0), Health()]
    assert forward.up(healths) == (1,)
    assert forward.due(healths, 9.0) == ()
    assert forward.due(healths, 10.0) == (0,)


def test_one_probe_keeps_the_others_from_trying() -> None:
    down = Health(failures=3, down_until=10.0)
    assert forward.due([down.probing(10.0)], 10.1) == ()
    assert Health().probing(10.0) == Health()


VIPS = IPv4Network("240.0.0.0/4")


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        ("mesh", True),
        ("Backend.Mesh", True),
        ("a.b.c.mesh", True),
        ("example.org", False),
        ("notmesh", False),
        ("mesh.example", False),
        (str(dns.reversename.from_address("240.1.2.3")), True),
        (str(dns.reversename.from_address("255.255.255.255")).upper(), True),
        (str(dns.reversename.from_address("239.1.2.3")), False),
        (str(dns.reversename.from_address("::ffff:240.1.2.3")), True),
        (str(dns.reversename.from_address("2001:db8::240")), False),
        ("256.0.0.240.in-addr.arpa", False),
        ("x.1.2.3.240.in-addr.arpa", False),
        ("240.in-addr.arpa", False),
    ],
)
def test_which_names_nobody_else_is_asked_for(name: str, stays: bool) -> None:
    assert forward.stays_here(wire.parse_query(query(name, "PTR")), wire.name_to_wire("mesh"), VIPS) == stays


@given(st.binary(max_size=60))
@settings(max_examples=100)
def test_no_packet_raises(tail: bytes) -> None:
    for packet in (tail, SENT.message[:2] + b"\x81\x80" + tail, TRUE[: 12 + len(QUERY.question)] + tail):
        if forward.judge(packet, SENT) is not Verdict.BELIEVED:
            continue
        try:
            message = packed(parse_reply(packet, QUERY), QUERY)
        except wire.MalformedError:
            continue
        assert isinstance(forward.to_client(message, QUERY, table(recursive=True), 512), answer.Answer)
