"""Protobuf's wire format: tags, varints, the fields of a message, and google.protobuf.Struct."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types; groups (3 and 4) are refused."""
_MAX_DEPTH = 100
"""Nesting of Struct values, as other protobuf readers limit it."""


def varint(number: int) -> bytes:
    """``number`` (not negative) in 7 bits a byte, low ones first."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def tag(number: int, wire: int) -> bytes:
    """What stands before the value of a field."""
    return varint(number << 3 | wire)


def read_fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Every (field number, wire type, raw value) of a message in order; raw is an int for VARINT, else bytes.

    Raises:
        ValueError: the bytes end early, a varint is too long, a field number or wire type is not allowed.
    """
    position, end = 0, len(data)
    while position < end:
        key, position = _read_varint(data, position)
        number, wire = key >> 3, key & 7
        if not 0 < number < 2**29:
            raise ValueError(f"malformed protobuf: field number {number} at byte {position}")
        if wire == VARINT:
            value, position = _read_varint(data, position)
            yield number, wire, value
            continue
        if wire == BYTES:
            size, position = _read_varint(data, position)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"malformed protobuf: wire type {wire} at byte {position}")
        if size > end - position:
            raise ValueError(f"malformed protobuf: field {number} wants {size} bytes, {end - position} are left")
        yield number, wire, data[position : position + size]
        position += size


def read_packed(data: bytes, wire: int) -> Iterator[Any]:
    """Every raw value of a packed field of scalars.

    Raises:
        ValueError: the bytes end early.
    """
    position, size = 0, {FIXED64: 8, FIXED32: 4}.get(wire, 0)
    while position < len(data):
        if wire == VARINT:
            value, position = _read_varint(data, position)
            yield value
            continue
        if len(data) - position < size:
            raise ValueError(f"malformed protobuf: a packed field ends after {len(data) - position} bytes of {size}")
        yield data[position : position + size]
        position += size


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while shift < 70:
        if position >= len(data):
            raise ValueError("malformed protobuf: ends within a number")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & (2**64 - 1), position
        shift += 7
    raise ValueError(f"malformed protobuf: number of more than 10 bytes at byte {position}")


def encode_struct(value: Mapping[str, Any]) -> bytes:
    """A google.protobuf.Struct, keys sorted."""
    out = bytearray()
    for key in sorted(value):
        entry = b"\x0a" + _sized(key.encode()) + b"\x12" + _sized(_encode_value(value[key]))
        out += b"\x0a" + _sized(entry)
    return bytes(out)


def decode_struct(data: bytes, depth: int = 0) -> dict[str, Any]:
    """The JSON object that a Struct holds; whole numbers come back as int.

    Raises:
        ValueError: malformed, or nested deeper than 100.
    """
    result: dict[str, Any] = {}
    for number, wire, raw in read_fields(data):
        if number != 1 or wire != BYTES:
            continue
        key, value = "", b""
        for part, part_wire, part_raw in read_fields(raw):
            if part == 1 and part_wire == BYTES:
                key = part_raw.decode()
            elif part == 2 and part_wire == BYTES:
                value = part_raw
        result[key] = _decode_value(value, depth + 1)
    return result


def _encode_value(value: Any) -> bytes:
    if value is None:
        return b"\x08\x00"
    if isinstance(value, bool):
        return b"\x20\x01" if value else b"\x20\x00"
    if isinstance(value, (int, float)):
        return b"\x11" + struct.pack("<d", value)
    if isinstance(value, str):
        return b"\x1a" + _sized(value.encode())
    if isinstance(value, Mapping):
        return b"\x2a" + _sized(encode_struct(value))
    if isinstance(value, Sequence):
        return b"\x32" + _sized(b"".join(b"\x0a" + _sized(_encode_value(item)) for item in value))
    raise TypeError(f"{value!r} is not a JSON value")


def _decode_value(data: bytes, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("malformed protobuf: a Struct is nested too deep")
    result: Any = None
    for number, wire, raw in read_fields(data):
        match number, wire:
            case 1, 0:
                result = None
            case 2, 1:
                result = _number(struct.unpack("<d", raw)[0])
            case 3, 2:
                result = raw.decode()
            case 4, 0:
                result = bool(raw)
            case 5, 2:
                result = decode_struct(raw, depth)
            case 6, 2:
                result = [_decode_value(r, depth + 1) for n, w, r in read_fields(raw) if (n, w) == (1, BYTES)]
            case _:
                pass
    return result


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _sized(data: bytes) -> bytes:
    return varint(len(data)) + data


_FLOAT_DIGITS = range(6, 10)
"""Six significant digits survive a 32-bit float, nine tell any two apart."""


def shortest_float(value: float) -> float:
    """The number with the fewest digits that is the same 32-bit float: what Go prints of one.

    Raises:
        OverflowError: it is too large for one.
    """
    wanted = struct.pack("<f", value)
    short = (float(f"{value:.{digits}g}") for digits in _FLOAT_DIGITS)
    exact: float = struct.unpack("<f", wanted)[0]
    return next((s for s in short if is_float(s, wanted)), exact)


def is_float(value: float, wanted: bytes) -> bool:
    """Whether a number is the 32-bit float of these bytes; rounding may have made it too large for any."""
    try:
        return struct.pack("<f", value) == wanted
    except OverflowError:
        return False


def decode_float(data: bytes) -> float:
    """The number that four bytes say."""
    return shortest_float(struct.unpack("<f", data)[0])
