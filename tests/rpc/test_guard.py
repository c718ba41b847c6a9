"""Frames cut and floods refused before h2 sees them."""

import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.rpc.guard import BLOCK_FRAMES, PREFACE, Bucket, FrameGuard, GoAway, RefusedError
from meshd.rpc.limits import DEFAULT_LIMITS

LIMITS = replace(DEFAULT_LIMITS, idle_frames_burst=100, idle_frames_per_s=10.0, max_header_bytes=1000)
PING, DATA, HEADERS, CONTINUATION, GOAWAY, PUSH = 6, 0, 1, 9, 7, 5


def raw(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def guard(*, preface: bool = False) -> FrameGuard:
    return FrameGuard(LIMITS, 0.0, expect_preface=preface)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 40), max_size=20),
    cuts=st.lists(st.integers(0, 1000), max_size=10),
    goodbye=st.integers(0, 20),
)
def test_any_split_hands_over_whole_frames_in_order(sizes, cuts, goodbye) -> None:
    frames = [raw(DATA, b"x" * size, stream=1) for size in sizes]
    frames.insert(goodbye, raw(GOAWAY, struct.pack(">II", 5, 2) + b"bye"))
    wire = PREFACE + b"".join(frames)
    it = guard(preface=True)
    got = []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(wire)], strict=True):
        got += it.feed(wire[start:end], 0.0)
    assert [g for g in got if isinstance(g, GoAway)] == [GoAway(5, 2, "bye")]
    data = b"".join(g for g in got if isinstance(g, bytes))
    assert data == PREFACE + b"".join(f for f in frames if f[3] != GOAWAY)


def test_many_frames_come_in_blocks() -> None:
    blocks = list(guard().feed(raw(DATA, b"x") * (BLOCK_FRAMES * 2 + 1), 0.0))
    assert [len(b) for b in blocks] == [BLOCK_FRAMES * 10, BLOCK_FRAMES * 10, 10]


@pytest.mark.parametrize(
    ("wire", "reason", "code"),
    [
        (b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", "protocol", 6),
        (raw(HEADERS, b"h" * 1001, stream=1), "headers", 11),
        (raw(HEADERS, b"h" * 600, stream=1) + raw(CONTINUATION, b"h" * 401, stream=1), "headers", 11),
        (raw(HEADERS, b"h", stream=1) + raw(PING, bytes(8)), "protocol", 1),
        (raw(HEADERS, b"", stream=1) + raw(CONTINUATION, b"", stream=1) * 101, "flood", 11),
        (raw(PING, bytes(8)) * 101, "flood", 11),
        (raw(DATA, b"", stream=1) * 101, "flood", 11),
        (raw(77, b"", stream=1) * 101, "flood", 11),
        (raw(PUSH, b"", stream=1), "protocol", 1),
        (raw(GOAWAY, b"short"), "protocol", 6),
    ],
)
def test_what_no_honest_peer_sends_is_refused(wire, reason, code) -> None:
    with pytest.raises(RefusedError) as caught:
        list(guard().feed(wire, 0.0))
    assert (caught.value.reason, caught.value.error_code) == (reason, code)


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"PRI * HTTP/1"])
def test_other_protocols_are_refused_at_their_first_wrong_byte(first) -> None:
    with pytest.raises(RefusedError, match="no HTTP/2"):
        list(guard(preface=True).feed(first, 0.0))


def test_pings_with_payload_between_are_welcome() -> None:
    it = guard()
    for _ in range(1000):
        list(it.feed(raw(PING, bytes(8)) + raw(DATA, b"x", stream=1), 0.0))
    for _ in range(1000):
        list(it.feed(raw(PING, bytes(8)), 0.0))
        it.moved(1)


def test_a_bucket_refills_with_time() -> None:
    bucket = Bucket(2, 1.0, 0.0)
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(1.0), bucket.take(1.0)] == [True, False]
    assert [bucket.take(100.0) for _ in range(3)] == [True, True, False]
