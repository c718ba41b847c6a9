"""Protobuf's wire format, one field at a time: a message is the concatenation of its fields, in any order.

Errors are ``ValueError``: the bytes are not a protobuf message. Source: protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED_SIZE = {FIXED64: 8, FIXED32: 4}
MAX_VARINT_BYTES = 10

Value = int | bytes
"""The value of a field: an int for VARINT, the raw bytes for the others."""


def varint(value: int) -> bytes:
    """``value`` (0 <= value < 2**64) as a base-128 varint."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def bytes_field(number: int, value: bytes) -> bytes:
    """A length-delimited field, present even when ``value`` is empty."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def string_field(number: int, value: str) -> bytes:
    """A string field; nothing when empty, as proto3 has it."""
    return bytes_field(number, value.encode()) if value else b""


def varint_field(number: int, value: int) -> bytes:
    """An integer, bool or enum field; nothing when 0. Negative values are two's complement of 64 bits."""
    return varint(number << 3 | VARINT) + varint(value & 0xFFFFFFFFFFFFFFFF) if value else b""


def signed(value: int) -> int:
    """A varint of an int32 or int64 field, which is two's complement of 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The varint that starts at ``at``, and where the next byte is."""
    value = shift = 0
    for index in range(at, min(at + MAX_VARINT_BYTES, len(data))):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, index + 1
        shift += 7
    raise ValueError(f"protobuf: no varint at byte {at} of {len(data)}")


def fields(data: bytes) -> Iterator[tuple[int, int, Value]]:
    """Every field of a message in order: number, wire type, value."""
    at, end = 0, len(data)
    while at < end:
        number, wire_type, value, at = _read_field(data, at)
        yield number, wire_type, value


def _read_field(data: bytes, at: int) -> tuple[int, int, Value, int]:
    """The field that starts at ``at``, and where the next one does."""
    end = len(data)
    key, at = read_varint(data, at)
    number, wire_type = key >> 3, key & 7
    if number == 0:
        raise ValueError(f"protobuf: field number 0 before byte {at}")
    if wire_type == VARINT:
        value, at = read_varint(data, at)
        return number, wire_type, value, at
    if wire_type == BYTES:
        size, at = read_varint(data, at)
    elif wire_type in FIXED_SIZE:
        size = FIXED_SIZE[wire_type]
    else:
        raise ValueError(f"protobuf: field {number} has wire type {wire_type}, which no proto3 message uses")
    if at + size > end:
        raise ValueError(f"protobuf: field {number} wants {size} bytes at byte {at}, there are {end - at}")
    return number, wire_type, data[at : at + size], at + size


def field(number: int, wire_type: int, value: Value) -> bytes:
    """One field as ``fields`` gave it, back as bytes."""
    key = varint(number << 3 | wire_type)
    if isinstance(value, int):
        return key + varint(value)
    return key + varint(len(value)) + value if wire_type == BYTES else key + value


def submessages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and value of the length-delimited fields of a message; others are checked and skipped."""
    at, end = 0, len(data)
    while at + 1 < end:
        key, size = data[at], data[at + 1]
        # Almost all fields are short and have low numbers, and a state-of-the-world request has thousands of them.
        if 8 <= key < 0x80 and key & 7 == BYTES and size < 0x80:
            at += 2
            if at + size > end:
                raise ValueError(f"protobuf: field {key >> 3} wants {size} bytes at byte {at}, there are {end - at}")
            yield key >> 3, data[at : at + size]
            at += size
            continue
        number, wire_type, value, at = _read_field(data, at)
        if wire_type == BYTES and isinstance(value, bytes):
            yield number, value
    if at < end:
        _read_field(data, at)


def peek(data: bytes, path: Iterable[int], among: int = 16) -> bytes:
    """The value of the field at a path of numbers, each among the first fields of its message; empty if there is none.

    For what must be known before a message is read that may be large: costs nothing, whatever it has.
    """
    for wanted in path:
        found = (value for number, _, value in islice(fields(data), among) if number == wanted)
        value = next(found, b"")
        if not isinstance(value, bytes):
            return b""
        data = value
    return data


def text(value: bytes) -> str:
    """A string field's value; ``ValueError`` (its subclass for UTF-8) when it is not text."""
    return value.decode()


def map_field(number: int, items: dict[str, str]) -> bytes:
    """A ``map<string, string>`` field, sorted by key, so that equal maps give equal bytes.

    Key and value are present even when empty, as Go's encoder has it.
    """
    return b"".join(
        bytes_field(number, bytes_field(1, key.encode()) + bytes_field(2, items[key].encode())) for key in sorted(items)
    )


def map_entry(data: bytes) -> tuple[str, str]:
    """One entry of a ``map<string, string>``."""
    key = value = ""
    for number, part in submessages(data):
        if number == 1:
            key = text(part)
        elif number == 2:
            value = text(part)
    return key, value


def short_map_entry(data: bytes) -> tuple[str, str] | None:
    """An entry as almost all are: key and value, each once, in this order and shorter than 128 bytes. None: another.

    A proxy that comes back has thousands of them.
    """
    size = len(data)
    if size < 4 or data[0] != 0x0A:
        return None
    middle = 2 + data[1]
    if middle + 2 > size or data[middle] != 0x12 or data[middle + 1] != size - middle - 2 or size - middle - 2 >= 0x80:
        return None
    return (data[2:middle].decode(), data[middle + 2 :].decode()) if middle < 0x82 else None
