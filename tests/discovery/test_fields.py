"""Protobuf fields read and written one at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.discovery.fields import bytes_field, field, fields, map_entry, map_field, read_varint, varint, varint_field


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
