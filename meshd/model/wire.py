"""Protobuf bytes of a spec and back, driven by the field numbers of a generated message class.

The generated classes (``meshd.proto``) are the schema; the bytes are read and written here, because the library's own
reader takes truncated input for whole and needs twice the time (ADR 005). Writing is deterministic: fields by number,
map entries by key, defaults left out. Reading is lenient as protobuf is: unknown fields are skipped, unknown enum
numbers read as the default, the last of several values wins, messages are merged; but malformed bytes are a ValueError.

Spec and message correspond by field name, without regard to case and underscores.
"""

import enum
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from meshd.model import wire_values
from meshd.model.resource import Spec
from meshd.model.wire_values import BYTES, FIXED32, FIXED64, VARINT, read_fields, read_packed, tag, varint


def encode(schema: "Schema", spec: Spec) -> bytes:
    """The message bytes of ``spec``."""
    out = bytearray()
    for field in schema.fields:
        value = getattr(spec, field.attribute)
        if value == field.default:
            continue
        if field.is_map:
            for key in sorted(value):
                entry = b"\x0a" + _sized(key.encode()) + _keyed(2, field.codec, value[key])
                out += tag(field.number, BYTES) + _sized(entry)
        elif field.is_repeated and field.codec.wire != BYTES:
            packed = b"".join(map(field.codec.write, value))
            out += tag(field.number, BYTES) + _sized(packed)
        elif field.is_repeated:
            for item in value:
                out += _keyed(field.number, field.codec, item)
        else:
            out += _keyed(field.number, field.codec, value)
    return bytes(out)


def decode(schema: "Schema", data: bytes) -> Spec:
    """The spec that message bytes say.

    Raises:
        ValueError: the bytes are not a message of this schema.
    """
    try:
        return _decode(schema, data)
    except (OverflowError, RecursionError, struct.error) as error:
        raise ValueError(f"malformed protobuf: {error}") from error


@dataclass(frozen=True, slots=True)
class Codec:
    """How values of one type are written: ``wire`` is the protobuf wire type; ``write`` gives a length-less body."""

    wire: int
    write: Callable[[Any], bytes]
    read: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """One field of a message and where it lives in the spec; a value equal to ``default`` is not written."""

    number: int
    attribute: str
    codec: Codec
    default: Any
    is_repeated: bool = False
    is_map: bool = False
    is_message: bool = False
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """A spec class and the fields of its message, by number."""

    spec: type[Spec]
    fields: tuple[FieldPlan, ...]
    by_number: Mapping[int, FieldPlan]


def schema_of(spec: type[Spec], message: Any) -> Schema:
    """Match a spec class with a message class (of betterproto2).

    Raises:
        TypeError: a field of one has no counterpart in the other; the two are then out of step.
    """
    known = _SCHEMAS.get((spec, message))
    if known is not None:
        return known
    meta = message._betterproto  # noqa: SLF001 - the generated schema has no public reader
    attributes = {_plain(name): name for name in spec.model_fields}
    plans = []
    for name in meta.meta_by_field_name:
        attribute = attributes.pop(_plain(name), None)
        if attribute is None and (spec.__name__, name) not in _NOT_MODELLED:
            raise TypeError(f"{spec.__name__} has no field for {message.__name__}.{name}")
        if attribute is not None:
            plans.append(_field_plan(spec, attribute, message, name))
    if attributes:
        raise TypeError(f"{message.__name__} has no field for {spec.__name__}: {', '.join(attributes.values())}")
    plans.sort(key=lambda plan: plan.number)
    schema = Schema(spec, tuple(plans), {plan.number: plan for plan in plans})
    _SCHEMAS[spec, message] = schema
    return schema


_SCHEMAS: dict[tuple[type[Spec], Any], Schema] = {}


_NOT_MODELLED: frozenset[tuple[str, str]] = frozenset()
"""Message fields that a spec leaves out on purpose; they survive in ``Resource.wire``."""


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _field_plan(spec: type[Spec], attribute: str, message: Any, name: str) -> FieldPlan:
    meta = message._betterproto.meta_by_field_name[name]  # noqa: SLF001
    cls = message._betterproto.cls_by_field[name]  # noqa: SLF001
    info = spec.model_fields[attribute]
    value_meta = meta
    if meta.map_meta is not None:
        value_meta = meta.map_meta[1]
        cls = cls._betterproto.cls_by_field["value"]
    return FieldPlan(
        number=meta.number,
        attribute=attribute,
        codec=_codec(value_meta.proto_type, value_meta.unwrap, cls, info.annotation),
        default=info.get_default(call_default_factory=True, validated_data={}),
        is_repeated=bool(meta.repeated),
        is_map=meta.map_meta is not None,
        is_message=value_meta.proto_type == "message" and not meta.repeated and meta.map_meta is None,
        group=meta.group,
    )


def _codec(proto_type: str, unwrap: Callable[[], type] | None, cls: Any, annotation: Any) -> Codec:
    if proto_type == "enum":
        return _enum_codec(cls, _find(annotation, enum.Enum))
    if proto_type != "message":
        return _SCALARS[proto_type]
    if unwrap is not None:
        return _WRAPPED[unwrap().__name__]
    if cls.__name__ == "Struct":
        return Codec(BYTES, wire_values.encode_struct, wire_values.decode_struct)
    sub = schema_of(_find(annotation, Spec), cls)
    return Codec(BYTES, lambda value: encode(sub, value), lambda data: _decode(sub, data))


def _find(annotation: Any, wanted: type) -> Any:
    """The class derived from ``wanted`` inside an annotation such as ``tuple[X, ...]`` or ``X | None``."""
    if isinstance(annotation, type) and issubclass(annotation, wanted):
        return annotation
    for part in get_args(annotation):
        found = _find(part, wanted)
        if found is not None:
            return found
    return None


def _enum_codec(message_enum: Any, spec_enum: Any) -> Codec:
    numbers = {spec_enum(member.name): int(member) for member in message_enum}
    members = {number: member for member, number in numbers.items()}
    return Codec(VARINT, lambda value: varint(numbers[value]), lambda number: members.get(number, members[0]))


def _scalar_message(codec: Codec, zero: Any) -> Codec:
    """A google.protobuf wrapper: a message whose field 1 is the value, left out when zero."""

    def read(data: bytes) -> Any:
        value = zero
        for number, wire, raw in read_fields(data):
            if number == 1 and wire == codec.wire:
                value = codec.read(raw)
        return value

    return Codec(BYTES, lambda value: b"" if value == zero else _keyed(1, codec, value), read)


def _seconds_and_nanos(data: bytes) -> tuple[int, int]:
    parts = {1: 0, 2: 0}
    for number, wire, raw in read_fields(data):
        if number in parts and wire == VARINT:
            parts[number] = raw - 2**64 if raw >= 2**63 else raw
    return parts[1], parts[2]


def _write_pair(seconds: int, nanos: int) -> bytes:
    out = tag(1, VARINT) + varint(seconds & (2**64 - 1)) if seconds else b""
    return out + (tag(2, VARINT) + varint(nanos & (2**64 - 1)) if nanos else b"")


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _write_timestamp(moment: datetime) -> bytes:
    seconds, micros = divmod((moment - _EPOCH) // _MICROSECOND, 10**6)
    return _write_pair(seconds, micros * 1000)


def _read_timestamp(data: bytes) -> datetime:
    seconds, nanos = _seconds_and_nanos(data)
    return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)


def _write_duration(length: timedelta) -> bytes:
    micros = length // _MICROSECOND
    sign = -1 if micros < 0 else 1
    seconds, rest = divmod(abs(micros), 10**6)
    return _write_pair(sign * seconds, sign * rest * 1000)


def _read_duration(data: bytes) -> timedelta:
    seconds, nanos = _seconds_and_nanos(data)
    return timedelta(seconds=seconds, microseconds=int(nanos / 1000))


_TEXT = Codec(BYTES, str.encode, lambda data: data.decode())
_RAW = Codec(BYTES, bytes, bytes)
_BOOL = Codec(VARINT, lambda value: b"\x01" if value else b"\x00", bool)
_UINT32 = Codec(VARINT, varint, lambda number: number & (2**32 - 1))
_UINT64 = Codec(VARINT, varint, int)
_DOUBLE = Codec(FIXED64, lambda value: struct.pack("<d", value), lambda data: struct.unpack("<d", data)[0])
_FLOAT = Codec(FIXED32, lambda value: struct.pack("<f", value), wire_values.decode_float)
_SCALARS = {
    "string": _TEXT,
    "bytes": _RAW,
    "bool": _BOOL,
    "uint32": _UINT32,
    "uint64": _UINT64,
    "double": _DOUBLE,
}
_WRAPPED = {
    "BoolValue": _scalar_message(_BOOL, zero=False),
    "UInt32Value": _scalar_message(_UINT32, 0),
    "StringValue": _scalar_message(_TEXT, ""),
    "BytesValue": _scalar_message(_RAW, b""),
    "DoubleValue": _scalar_message(_DOUBLE, 0.0),
    "FloatValue": _scalar_message(_FLOAT, 0.0),
    "Timestamp": Codec(BYTES, _write_timestamp, _read_timestamp),
    "Duration": Codec(BYTES, _write_duration, _read_duration),
}


def _sized(data: bytes) -> bytes:
    return varint(len(data)) + data


def _keyed(number: int, codec: Codec, value: Any) -> bytes:
    body = codec.write(value)
    return tag(number, codec.wire) + (_sized(body) if codec.wire == BYTES else body)


def _decode(schema: Schema, data: bytes) -> Spec:
    values: dict[str, Any] = {}
    pieces: dict[FieldPlan, bytes] = {}
    groups: dict[str, str] = {}
    for number, wire, raw in read_fields(data):
        field = schema.by_number.get(number)
        if field is not None and field.is_repeated and wire == BYTES != field.codec.wire:
            values.setdefault(field.attribute, []).extend(map(field.codec.read, read_packed(raw, field.codec.wire)))
            continue
        if field is None or wire != (BYTES if field.is_map else field.codec.wire):
            continue
        if field.group:
            values.pop(groups.get(field.group, ""), None)
            groups[field.group] = field.attribute
        if field.is_map:
            key, value = _read_entry(field.codec, raw)
            values.setdefault(field.attribute, {})[key] = value
        elif field.is_repeated:
            values.setdefault(field.attribute, []).append(field.codec.read(raw))
        elif field.is_message:
            pieces[field] = pieces.get(field, b"") + raw  # a message split in pieces is their concatenation
            values[field.attribute] = field
        else:
            values[field.attribute] = field.codec.read(raw)
    for plan, raw in pieces.items():
        if values.get(plan.attribute) is plan:
            values[plan.attribute] = plan.codec.read(raw)
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
    return schema.spec.model_construct(**values)


def _read_entry(codec: Codec, data: bytes) -> tuple[str, Any]:
    key: str = ""
    value: Any = None
    for number, wire, raw in read_fields(data):
        if number == 1 and wire == BYTES:
            key = raw.decode()
        elif number == 2 and wire == codec.wire:
            value = codec.read(raw)
    if value is None:  # an absent value is the zero of its type
        value = codec.read({BYTES: b"", VARINT: 0, FIXED32: bytes(4), FIXED64: bytes(8)}[codec.wire])
    return key, value
