import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.dns import wire
from tests.dns.support import query

PLAIN = query("backend.mesh")
OPT = b"\0\0\x29\x10\0\0\0\0\0\0\0"


def with_counts(message: bytes, *counts: int) -> bytes:
    return message[:4] + struct.pack("!4H", *counts) + message[12:]


def test_query_is_parsed_with_its_spelling_and_its_key() -> None:
    parsed = wire.parse_query(query("BackEnd.mesh", "AAAA", edns=4096, do=True))
    assert parsed.labels == (b"BackEnd", b"mesh")
    assert parsed.name == b"\x07backend\x04mesh\0"
    assert (parsed.qtype, parsed.qclass, parsed.edns) == (28, 1, wire.Edns(4096, 0, True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no question", with_counts(PLAIN, 0, 0, 0, 0)),
        ("two questions", with_counts(PLAIN + PLAIN[12:], 2, 0, 0, 0)),
        ("an answer in a query", with_counts(PLAIN, 1, 1, 0, 0)),
        ("an authority in a query", with_counts(PLAIN, 1, 0, 1, 0)),
        ("three additionals", with_counts(PLAIN + OPT * 3, 1, 0, 0, 3)),
        ("two OPT records", with_counts(PLAIN + OPT * 2, 1, 0, 0, 2)),
        ("cut name", PLAIN[:-6]),
        ("cut question", PLAIN[:-1]),
        ("trailing bytes", PLAIN + b"x"),
        ("compressed question", PLAIN[:12] + b"\xc0\x0c\0\x01\0\x01"),
        ("label of 64 bytes", PLAIN[:12] + b"\x40" + b"a" * 64 + b"\0\0\x01\0\x01"),
        ("name of 256 bytes", PLAIN[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\x01\0\x01"),
        ("OPT not at the root", with_counts(PLAIN + b"\x01a" + OPT, 1, 0, 0, 1)),
        ("cut OPT", with_counts(PLAIN + OPT[:-1], 1, 0, 0, 1)),
        ("cut option", with_counts(PLAIN + OPT[:-1] + b"\x03abc", 1, 0, 0, 1)),
        ("option longer than OPT", with_counts(PLAIN + OPT[:-1] + b"\x04\0\x0a\0\x08", 1, 0, 0, 1)),
        ("longer than any query", with_counts(PLAIN + OPT[:-2] + b"\x10\0\0\x0c\x0f\xfc" + bytes(4092), 1, 0, 0, 1)),
    ],
)
def test_malformed_query_is_refused(name: str, message: bytes) -> None:
    with pytest.raises(wire.MalformedError):
        wire.parse_query(message)


def test_longest_name_and_binary_labels_are_taken() -> None:
    name = (b"\x3f" + b"\xff" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0"
    assert len(name) == 255
    assert wire.parse_query(PLAIN[:12] + name + b"\0\x01\0\x01").name == name.lower()


@pytest.mark.parametrize(("udp_bytes", "limit"), [(None, 512), (0, 512), (600, 600), (65535, 1232)])
def test_udp_limit_is_between_512_and_1232(udp_bytes: int | None, limit: int) -> None:
    assert wire.parse_query(query("a.mesh", edns=udp_bytes)).udp_limit == limit


@pytest.mark.parametrize("name", ["", "a..b", ".a", "x" * 64, "é.mesh", ".".join(["a" * 62] * 5)])
def test_text_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        wire.name_to_wire(name)


def test_name_to_wire_folds_case_and_takes_the_final_dot() -> None:
    assert wire.name_to_wire("BackEnd.Mesh.") == wire.name_to_wire("backend.mesh") == b"\x07backend\x04mesh\0"


@given(st.binary(max_size=80))
@settings(max_examples=100)
def test_only_malformed_error_escapes(tail: bytes) -> None:
    for message in (PLAIN[:12] + tail, with_counts(PLAIN + tail, 1, 0, 0, 1)):
        with contextlib.suppress(wire.MalformedError):
            wire.parse_query(message)
