"""Messages cut out of a byte stream, whatever the pieces; gzip bounded."""

import gzip
import random
import struct
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.rpc.framing import GZIP_FROM_BYTES, Deframer, frame, frame_compressed, frame_parts
from meshd.rpc.status import RpcError, Status

LIMIT = 100_000


def compressed(message: bytes) -> bytes:
    return [piece for piece in frame_compressed(message) if piece is not None][-1]


def feed(deframer: Deframer, data: bytes) -> list[bytes]:
    """All messages that ``data`` completes."""
    deframer.feed(data)
    messages = []
    while (message := deframer.take()) is not None:
        messages.append(message)
    return messages


def by_hand(message: bytes) -> bytes:
    payload = gzip.compress(message, mtime=0)
    return struct.pack(">BI", 1, len(payload)) + payload


@settings(max_examples=80, deadline=None)
@given(
    messages=st.lists(
        st.one_of(st.binary(max_size=50), st.integers(0, 20_000).map(lambda n: b"abc" * (n // 3))), max_size=6
    ),
    cuts=st.lists(st.integers(0, 70_000), max_size=12),
    pick=st.lists(st.sampled_from([frame, compressed, by_hand]), min_size=6, max_size=6),
)
def test_any_split_gives_the_same_messages(messages, cuts, pick) -> None:
    wire = b"".join(encode(message) for encode, message in zip(pick, messages, strict=False))
    deframer = Deframer(LIMIT, "gzip")
    got = []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(wire)], strict=True):
        got += feed(deframer, wire[start:end])
    deframer.finish()
    assert got == messages


@settings(max_examples=40, deadline=None)
@given(messages=st.lists(st.binary(max_size=20), min_size=1, max_size=3))
def test_byte_by_byte(messages) -> None:
    deframer = Deframer(LIMIT, "gzip")
    got = []
    for byte in b"".join(by_hand(m) for m in messages):
        got += feed(deframer, bytes([byte]))
    assert got == messages


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300))
def test_random_bytes_raise_rpc_errors_only(data) -> None:
    deframer = Deframer(LIMIT, "gzip")
    with suppress(RpcError):
        assert sum(map(len, feed(deframer, data))) <= LIMIT * 60
        deframer.finish()


@pytest.mark.parametrize(
    ("wire", "encoding", "status", "says"),
    [
        (struct.pack(">BI", 0, LIMIT + 1), "identity", Status.RESOURCE_EXHAUSTED, "100001"),
        (struct.pack(">BI", 1, LIMIT + 1), "gzip", Status.RESOURCE_EXHAUSTED, "100001"),
        (by_hand(bytes(LIMIT + 1)), "gzip", Status.RESOURCE_EXHAUSTED, "inflates"),
        (by_hand(bytes(50_000_000)), "gzip", Status.RESOURCE_EXHAUSTED, "inflates"),
        (by_hand(b"x"), "identity", Status.INTERNAL, "identity"),
        (struct.pack(">BI", 2, 0), "gzip", Status.INTERNAL, "flag 2"),
        (struct.pack(">BI", 1, 3) + b"abc", "gzip", Status.INTERNAL, "broken"),
        (struct.pack(">BI", 1, 0), "gzip", Status.INTERNAL, "cut short"),
        (struct.pack(">BI", 1, 22) + gzip.compress(b"x", mtime=0)[:21] + b"y", "gzip", Status.INTERNAL, "tail|broken"),
    ],
)
def test_bad_messages_are_refused(wire, encoding, status, says) -> None:
    with pytest.raises(RpcError, match=says) as caught:
        feed(Deframer(LIMIT, encoding), wire)
    assert caught.value.status is status


def test_a_message_of_exactly_the_limit_passes() -> None:
    assert feed(Deframer(LIMIT, "gzip"), frame(bytes(LIMIT)) + by_hand(bytes(LIMIT))) == [bytes(LIMIT)] * 2


@pytest.mark.parametrize("wire", [b"\0", b"\0\0\0\0\1", frame(b"whole") + b"\0\0\0\0\5part"])
def test_an_end_inside_a_message_is_an_error(wire) -> None:
    deframer = Deframer(LIMIT, "identity")
    feed(deframer, wire)
    with pytest.raises(RpcError, match="inside a message"):
        deframer.finish()


def test_small_and_incompressible_messages_are_sent_as_they_are() -> None:
    assert compressed(b"a" * (GZIP_FROM_BYTES - 1))[0] == 0
    assert compressed(b"a" * GZIP_FROM_BYTES)[0] == 1
    noise = random.Random(1).randbytes(5000)
    assert compressed(noise) == frame(noise)


def test_large_messages_are_compressed_in_pieces() -> None:
    assert list(frame_compressed(bytes(300_000)))[:-1] == [None] * 5


def test_many_bombs_in_a_few_bytes_are_inflated_one_at_a_time() -> None:
    bombs = by_hand(bytes(10_000_000)) * 20
    assert len(bombs) < 200_100
    deframer = Deframer(10_000_000, "gzip")
    deframer.feed(bombs)
    tracemalloc.start()
    for _ in range(20):
        assert len(deframer.take() or b"") == 10_000_000
    assert tracemalloc.get_traced_memory()[1] < 45_000_000
    tracemalloc.stop()


@given(st.lists(st.binary(max_size=50)), st.integers(1, 100))
def test_a_message_in_parts_is_the_message_in_chunks(parts: list[bytes], size: int) -> None:
    chunks = list(frame_parts(parts, size))
    assert b"".join(chunks) == frame(b"".join(parts))
    assert all(size <= len(chunk) < size + 50 + 5 for chunk in chunks[:-1])
