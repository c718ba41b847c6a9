"""Protobuf fields read and written one at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.discovery.fields import (
    bytes_field,
    field,
    fields,
    map_entry,
    map_field,
    peek,
    read_varint,
    short_map_entry,
    varint,
    varint_field,
)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02"), (2**64 - 1, b"\xff" * 9 + b"\x01")],
)
def test_varint_vectors(value: int, encoded: bytes) -> None:
    assert varint(value) == encoded
    assert read_varint(encoded, 0) == (value, len(encoded))


def test_a_negative_number_takes_ten_bytes() -> None:
    assert varint_field(1, -1) == b"\x08" + b"\xff" * 9 + b"\x01"


@pytest.mark.parametrize(
    "data",
    [b"\x80", b"\x0a\x05abc", b"\x02\x00", b"\x0b", b"\x09\x01", b"\xff" * 11],
    ids=["cut varint", "cut bytes", "field 0", "group", "cut fixed64", "endless varint"],
)
def test_what_is_no_message_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="protobuf"):
        list(fields(data))


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_a_value_error(data: bytes) -> None:
    try:
        read = list(fields(data))
    except ValueError:
        return
    again = b"".join(field(*one) for one in read)
    assert list(fields(again)) == read


def test_maps_are_sorted_by_key() -> None:
    encoded = map_field(6, {"b": "2", "a": ""})
    entries = [map_entry(value) for _, _, value in fields(encoded) if isinstance(value, bytes)]
    assert entries == [("a", ""), ("b", "2")]
    assert bytes_field(1, b"b") in encoded


def test_a_field_within_fields_is_found() -> None:
    node = bytes_field(2, b"cluster") + bytes_field(1, b"id")
    assert peek(varint_field(5, 1) + bytes_field(1, node), (1, 1)) == b"id"
    assert peek(bytes_field(1, node), (1, 3)) == b""
    assert peek(varint_field(1, 7), (1, 1)) == b""


@given(st.binary(max_size=40), st.lists(st.integers(1, 3), max_size=3))
def test_looking_into_any_bytes_fails_by_a_value_error_only(data: bytes, path: list[int]) -> None:
    try:
        peek(data, path)
    except ValueError:
        return


def test_only_the_first_fields_are_looked_at() -> None:
    assert peek(varint_field(5, 1) * 20 + bytes_field(1, b"id"), (1,)) == b""


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_short_map_entry_is_read_as_any(key: str, value: str) -> None:
    entry = bytes_field(1, key.encode()) + bytes_field(2, value.encode())
    is_short = len(key.encode()) < 0x80 and len(value.encode()) < 0x80
    assert short_map_entry(entry) == (map_entry(entry) if is_short else None)


@given(st.binary(max_size=12) | st.lists(st.sampled_from([b"\x0a", b"\x12", b"\x01", b"\x00", b"k"])).map(b"".join))
def test_what_is_taken_for_a_short_map_entry_is_one(data: bytes) -> None:
    try:
        found = short_map_entry(data)
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):
            map_entry(data)
    else:
        assert found is None or found == map_entry(data)
