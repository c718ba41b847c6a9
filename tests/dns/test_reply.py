import struct

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.dns import wire
from meshd.dns.reply import FAILURE_TTL_S, MAX_NEGATIVE_TTL_S, MAX_TTL_S, Limits, Reply, limited, packed, parse_reply
from tests.dns.support import query

QUERY = wire.parse_query(query("Example.org", ident=7))
WITH_EDNS = wire.parse_query(query("example.org", ident=8, edns=1232, do=True))
SOA = "example.org. {} IN SOA ns.example.org. host.example.org. 1 2 3 4 {}"


def message(
    *records: str, section: str = "answer", rcode: str = "NOERROR", edns: bool = False, flags: str = "QR RD RA"
) -> bytes:
    asked = dns.message.make_query("example.org.", "A", id=7, use_edns=0 if edns else -1)
    reply = dns.message.make_response(asked)
    reply.flags = dns.flags.from_text(flags)
    reply.set_rcode(dns.rcode.from_text(rcode))
    for record in records:
        where, _, text = record.rpartition("|")
        name, ttl, rclass, rtype, data = text.split(" ", 4)
        getattr(reply, where or section).append(dns.rrset.from_text(name, int(ttl), rclass, rtype, data))
    return reply.to_wire()


@pytest.mark.parametrize(
    ("records", "more", "ttl_s"),
    [
        (["example.org. 60 IN A 192.0.2.1"], {}, 60),
        (["example.org. 60 IN CNAME b.org.", "b.org. 20 IN A 192.0.2.1"], {}, 20),
        (["example.org. 60 IN A 192.0.2.1", "authority|org. 10 IN NS ns.org.", "additional|ns.org. 1 IN A 192.0.2.9"],
         {}, 10),
        (["example.org. 4000000 IN A 192.0.2.1"], {}, MAX_TTL_S),
        (["example.org. 0 IN A 192.0.2.1"], {}, 0),
        (["authority|" + SOA.format(300, 60)], {}, 60),
        (["authority|" + SOA.format(30, 60)], {"rcode": "NXDOMAIN"}, 30),
        (["authority|" + SOA.format(86400, 86400)], {"rcode": "NXDOMAIN"}, 86400),
        (["example.org. 40 IN CNAME b.org.", "authority|" + SOA.format(300, 60)], {}, 40),
        ([], {}, 0),
        ([], {"rcode": "NXDOMAIN"}, 0),
        (["authority|org. 300 IN NS ns.org."], {}, 0),
        (["example.org. 40 IN CNAME b.org."], {}, 0),
        ([], {"rcode": "SERVFAIL"}, FAILURE_TTL_S),
        (["example.org. 60 IN A 192.0.2.1"], {"flags": "QR RD RA TC"}, 0),
    ],
)  # fmt: skip
def test_how_long_a_reply_may_be_kept(records: list[str], more: dict[str, str], ttl_s: int) -> None:
    assert parse_reply(message(*records, **more), QUERY).ttl_s == ttl_s  # type: ignore[arg-type]


def test_a_ttl_with_its_highest_bit_set_is_zero() -> None:
    packet = message("example.org. 60 IN A 192.0.2.1")
    ttl = packet.rindex(struct.pack("!I", 60))
    assert parse_reply(packet[:ttl] + b"\x80\0\0\x3c" + packet[ttl + 4 :], QUERY).ttl_s == 0


def test_the_asker_gets_its_own_id_spelling_and_flags_and_no_authority() -> None:
    reply = parse_reply(message("example.org. 60 IN A 192.0.2.1", flags="QR AA RD RA AD", edns=True), QUERY)
    seen = dns.message.from_wire(packed(reply, QUERY, 25))
    assert (seen.id, str(seen.question[0].name), seen.edns) == (7, "Example.org.", -1)
    assert seen.flags == dns.flags.QR | dns.flags.RD | dns.flags.RA
    assert str(seen.answer[0]) == "Example.org. 35 IN A 192.0.2.1"


def test_one_who_asks_for_it_is_told_of_authentic_data_and_has_its_own_edns() -> None:
    reply = parse_reply(message("example.org. 60 IN A 192.0.2.1", flags="QR RD RA AD"), WITH_EDNS)
    seen = dns.message.from_wire(packed(reply, WITH_EDNS))
    assert seen.flags & dns.flags.AD
    assert (seen.edns, seen.payload, seen.ednsflags, seen.options) == (0, 1232, dns.flags.DO, ())


@pytest.mark.parametrize(("rcode", "code"), [("NOERROR", 3), ("NXDOMAIN", 19)])
def test_a_stale_answer_says_that_it_is(rcode: str, code: int) -> None:
    record = "example.org. 60 IN A 192.0.2.1" if rcode == "NOERROR" else "authority|" + SOA.format(60, 60)
    reply = parse_reply(message(record, rcode=rcode), WITH_EDNS)
    seen = dns.message.from_wire(packed(reply, WITH_EDNS, is_stale=True, stale_ttl_s=30))
    (option,) = seen.options
    assert isinstance(option, dns.edns.EDEOption)
    assert option.code == code
    assert [r.ttl for r in (*seen.answer, *seen.authority)] == [30]


def test_ttls_do_not_go_below_zero() -> None:
    reply = parse_reply(message("example.org. 60 IN A 192.0.2.1", "example.org. 5 IN AAAA 2001:db8::1"), QUERY)
    assert [r.ttl for r in dns.message.from_wire(packed(reply, QUERY, 10)).answer] == [50, 0]


def test_an_extended_rcode_is_an_error_of_the_server() -> None:
    packet = bytearray(message(edns=True))
    packet[-6] = 1  # the upper bits of BADVERS
    reply = parse_reply(bytes(packet), QUERY)
    assert (reply.rcode, reply.is_answer) == (16, False)
    assert dns.message.from_wire(packed(reply, QUERY)).rcode() == dns.rcode.SERVFAIL


def test_what_follows_an_opt_is_left_out() -> None:
    packet = (
        message("example.org. 60 IN A 192.0.2.1", edns=True) + b"\1x\0" + struct.pack("!HHIH", 1, 1, 60, 4) + b"abcd"
    )
    packet = packet[:10] + b"\0\2" + packet[12:]
    seen = dns.message.from_wire(packed(parse_reply(packet, QUERY), QUERY))
    assert (len(seen.answer), len(seen.additional)) == (1, 0)


def test_a_header_alone_is_an_error() -> None:
    reply = parse_reply(struct.pack("!6H", 7, 0x8182, 0, 0, 0, 0), QUERY)
    assert reply == Reply(0x8182, 2, (0, 0, 0), b"", (), FAILURE_TTL_S)


@given(st.binary(max_size=40), st.integers(0, 80), st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_broken_records_are_malformed_and_nothing_else(tail: bytes, cut: int, counts: list[int]) -> None:
    whole = message("example.org. 60 IN A 192.0.2.1", "authority|" + SOA.format(300, 60), edns=True)
    start = wire.HEADER_BYTES + len(QUERY.question)
    for packet in (whole[: start + cut] + tail, whole[:6] + struct.pack("!3H", *counts) + whole[12:start] + tail):
        try:
            reply = parse_reply(packet, QUERY)
        except wire.MalformedError:
            continue
        aged = packed(reply, QUERY, 5)
        assert len(aged) == start + len(reply.body)


@pytest.mark.parametrize(
    ("records", "more", "ttl_s"),
    [
        (["example.org. 600 IN A 192.0.2.1"], {}, 600),
        (["example.org. 86400 IN A 192.0.2.1"], {}, 3600),
        (["authority|" + SOA.format(86400, 86400)], {"rcode": "NXDOMAIN"}, 60),
        (["authority|" + SOA.format(86400, 86400)], {}, 60),
        (["authority|" + SOA.format(30, 30)], {}, 30),
        ([], {"rcode": "SERVFAIL"}, FAILURE_TTL_S),
    ],
)
def test_it_is_kept_no_longer_than_is_configured(records: list[str], more: dict[str, str], ttl_s: int) -> None:
    parsed = parse_reply(message(*records, **more), QUERY)  # type: ignore[arg-type]
    assert limited(parsed, Limits(3600, 60)).ttl_s == ttl_s
    assert limited(parsed, Limits(3600, 60)).ttls == parsed.ttls


def test_negative_answers_are_kept_for_a_quarter_of_an_hour_unless_configured() -> None:
    negative = parse_reply(message("authority|" + SOA.format(86400, 86400), rcode="NXDOMAIN"), QUERY)
    assert limited(negative, Limits()).ttl_s == MAX_NEGATIVE_TTL_S
