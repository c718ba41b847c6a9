import json
import random
from ipaddress import ip_address

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.dns.top import TopNames
from meshd.dns.watch import Sampler, Seen, Watch, json_line, name_text, question_of, text_line
from meshd.dns.wire import name_to_wire
from tests.dns.support import query

NAME = st.lists(st.binary(min_size=1, max_size=63), max_size=4).filter(lambda labels: sum(map(len, labels)) < 240)


def seen(question: bytes, host: str = "10.0.0.7") -> Seen:
    return Seen(1_800_000_000.5, ip_address(host).packed, "udp", question, "NOERROR", "fast", 0.0000414)


def test_a_line() -> None:
    assert text_line(seen(query("Web.mesh")[12:])) == (
        "2027-01-15T08:00:00.500000Z 10.0.0.7 udp Web.mesh A NOERROR fast 41"
    )
    assert json.loads(json_line(seen(query("web.mesh", "AAAA")[12:], "::ffff:10.0.0.8"))) == {
        "time": "2027-01-15T08:00:00.500000Z", "client": "10.0.0.8", "transport": "udp", "name": "web.mesh",
        "type": "AAAA", "rcode": "NOERROR", "path": "fast", "us": 41,
    }  # fmt: skip
    assert text_line(seen(b"\0\0\x63\0\x03", "2001:db8::1")).split()[1:5] == ["2001:db8::1", "udp", ".", "CH/TYPE99"]
    assert text_line(seen(b"")).split()[3:5] == ["-", "-"]


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (b"a b\n2027", r"a\032b\0102027"),
        (b"a.b", r"a\.b"),
        (b'\\"', r"\\\""),
        (b"\x1b[31m", r"\027[31m"),
        (b"\xff", r"\255"),
    ],
)
def test_hostile_bytes_are_escaped(label: bytes, text: str) -> None:
    assert name_text(bytes((len(label),)) + label + b"\4mesh\0") == f"{text}.mesh"


@given(NAME, st.integers(0, 65535), st.integers(0, 65535))
def test_whatever_is_asked_is_one_line_of_eight_words(labels: list[bytes], qtype: int, qclass: int) -> None:
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    line = text_line(seen(wire + qtype.to_bytes(2) + qclass.to_bytes(2)))
    assert line.isascii()
    assert line.isprintable()
    assert len(line.split(" ")) == 8
    # And it says which name that was: another reader of RFC 1035's form finds the same.
    assert dns.name.from_text(name_text(wire)).labels == (*labels, b"")


def test_the_question_of_a_query() -> None:
    assert question_of(query("web.mesh", edns=1232)) == query("web.mesh")[12:]
    assert question_of(query("web.mesh")[:-1]) == question_of(query("web.mesh")[:12] + b"\xc0\x0c\0\1\0\1") == b""


@pytest.mark.parametrize("one_in", [1, 2, 10, 97])
def test_one_in_so_many_is_picked_whatever_the_rhythm(one_in: int) -> None:
    sampler = Sampler(one_in, random.Random(7).randint)
    picked = [sampler.take() for _ in range(20_000)]
    for rhythm in (picked, picked[::2], picked[1::2]):
        assert abs(sum(rhythm) - len(rhythm) / one_in) <= len(rhythm) / one_in * 0.25
    assert one_in > 1 or all(picked)


def test_names_count_in_lower_case_and_apart_by_what_was_answered() -> None:
    watch = Watch(None, Sampler(1, random.Random(1).randint), TopNames(2))
    for name, rcode in (
        ("web.mesh", "NOERROR"),
        ("WEB.mesh", "NOERROR"),
        ("web.mesh", "SERVFAIL"),
        ("b.mesh", "NOERROR"),
    ):
        watch.note(b"\x7f\0\0\1", "udp", query(name)[12:], rcode, "fast", at=5.0, took_s=0.0)
    watch.note(b"\x7f\0\0\1", "udp", b"", "FORMERR", "slow", at=5.0, took_s=0.0)
    assert watch.ranking(5.0) == [("web.mesh", "NOERROR", 2), ("b.mesh", "NOERROR", 1)]
    assert name_text(name_to_wire("b.mesh")) == "b.mesh"
