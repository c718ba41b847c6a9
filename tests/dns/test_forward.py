import struct

import dns.flags
import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.dns import answer, forward, wire
from tests.dns.support import honest, query, table

QUERY = wire.parse_query(query("Example.org", ident=7))
SENT = forward.upstream_query(QUERY, 99)


def test_query_goes_out_under_our_id_with_the_clients_wishes() -> None:
    parsed = wire.parse_query(query("Example.org", edns=4096, do=True, flags=0x0130))
    sent = dns.message.from_wire(forward.upstream_query(parsed, 99))
    assert (sent.id, sent.payload, sent.ednsflags) == (99, 1232, dns.flags.DO)
    assert sent.flags == dns.flags.RD | dns.flags.AD | dns.flags.CD
    assert str(sent.question[0].name) == "Example.org."


def test_a_client_without_edns_gets_a_query_without_edns() -> None:
    assert dns.message.from_wire(SENT).edns == -1


@pytest.mark.parametrize(
    ("name", "packet", "believed"),
    [
        ("true", honest(SENT)[0], True),
        ("question in lower case", honest(SENT)[0].replace(b"Example", b"example"), True),
        ("wrong id", b"\0\x01" + honest(SENT)[0][2:], False),
        ("a query", SENT, False),
        ("another opcode", honest(SENT)[0][:2] + b"\xa8" + honest(SENT)[0][3:], False),
        ("another name", honest(SENT)[0].replace(b"Example", b"Exampel"), False),
        ("another type", honest(query("Example.org", "AAAA", ident=99))[0], False),
        ("short", honest(SENT)[0][:11], False),
        ("empty", b"", False),
        ("bare header that fails", struct.pack("!6H", 99, 0x8182, 0, 0, 0, 0), True),
        ("bare header that succeeds", struct.pack("!6H", 99, 0x8180, 0, 0, 0, 0), False),
    ],
)
def test_which_packets_are_believed(name: str, packet: bytes, believed: bool) -> None:
    assert forward.is_reply(packet, 99, QUERY) == believed


def test_client_gets_its_own_id_and_spelling() -> None:
    folded = honest(SENT)[0].replace(b"Example", b"example")
    outcome = forward.to_client(folded, QUERY, table(recursive=True), 512)
    reply = dns.message.from_wire(outcome.wire)
    assert (reply.id, str(reply.question[0].name)) == (7, "Example.org.")
    assert str(reply.answer[0]) == "Example.org. 60 IN A 192.0.2.7"


@pytest.mark.parametrize(("limit", "truncated"), [(512, True), (1232, False)])
def test_a_reply_over_the_limit_is_truncated(limit: int, truncated: bool) -> None:
    packet = honest(SENT, count=40)[0]
    reply = dns.message.from_wire(forward.to_client(packet, QUERY, table(recursive=True), limit).wire)
    assert bool(reply.flags & dns.flags.TC) == truncated
    assert bool(reply.answer) != truncated


def test_a_bare_header_becomes_a_whole_answer() -> None:
    outcome = forward.to_client(struct.pack("!6H", 99, 0x8182, 0, 0, 0, 0), QUERY, table(recursive=True), 512)
    assert (outcome.rcode, dns.message.from_wire(outcome.wire).id) == ("SERVFAIL", 7)


def test_an_upstream_is_down_after_three_failures_and_probed_after_growing_pauses() -> None:
    health = forward.Health()
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


def test_down_upstreams_come_last_and_only_when_due() -> None:
    up, down = forward.Health(), forward.Health(failures=3, down_until=10.0)
    assert forward.order([down, up], 9.0) == (1,)
    assert forward.order([down, up], 10.0) == (1, 0)
    assert forward.order([down, down], 9.0) == ()


def test_one_probe_keeps_the_others_from_waiting() -> None:
    down = forward.Health(failures=3, down_until=10.0)
    assert forward.order([down.probing(10.0)], 10.1) == ()
    assert forward.Health().probing(10.0) == forward.Health()


@given(st.binary(max_size=60))
@settings(max_examples=100)
def test_no_packet_raises(tail: bytes) -> None:
    for packet in (tail, SENT[:2] + b"\x81\x80" + tail, honest(SENT)[0][: 12 + len(QUERY.question)] + tail):
        if forward.is_reply(packet, 99, QUERY):
            assert isinstance(forward.to_client(packet, QUERY, table(recursive=True), 512), answer.Answer)
