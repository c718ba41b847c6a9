"""Envoy resources as protobuf bytes: from proto-JSON documents, by the classes of envoy-data-plane as the schema.

A document is what stands in Envoy's own JSON and YAML: ``dict`` with camelCase keys, durations as text ("5s"), enums by
name, ``google.protobuf.Any`` as an object with ``@type``. Building and encoding typed messages of that library took
3.9 ms for one outbound listener, this takes some hundredths (docs/adr/006-envoy-documents.md).

Strict: what the schema does not have is an error that names its place. Deterministic: fields by number, map entries
by key, so equal documents are equal bytes. Plain fields that have their default are left out, as proto3 does.
"""

import base64
import importlib
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from meshd.discovery.fields import BYTES, FIXED32, FIXED64, VARINT, bytes_field, varint
from meshd.discovery.wire import any_bytes, encode_struct, encode_value

Document = dict[str, Any]
"""A proto-JSON object."""

PREFIX = "type.googleapis.com/"
_PACKAGE = "envoy_data_plane"
_MAX_DURATION_S = 315_576_000_000
_DURATION = re.compile(r"(-?)(\d+)(?:\.(\d{1,9}))?s\Z")


class SchemaError(ValueError):
    """A document that Envoy's API does not have: a defect of ours or of a patch, never of traffic."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A message that is bytes already, in the place of its object: what is large and changes little is encoded once."""

    body: bytes


def encode(type_url: str, document: Mapping[str, Any]) -> bytes:
    """The message bytes of a document of the type.

    Raises:
        SchemaError: the document does not fit; names the place in it.
    """
    return _encode(_plan(message_class(type_url)), document, "")


def encode_any(document: Mapping[str, Any], at: str = "") -> bytes:
    """A ``google.protobuf.Any`` of a document with ``@type``.

    Raises:
        SchemaError: as ``encode``, or there is no ``@type``.
    """
    type_url = document.get("@type") if isinstance(document, Mapping) else None
    if not isinstance(type_url, str):
        raise SchemaError(f"{at or 'document'}: an Any needs @type, which {document!r:.60} has not")
    plan = _plan(message_class(type_url))
    content = {key: value for key, value in document.items() if key != "@type"}
    if plan.whole is not None:
        return any_bytes(type_url, plan.whole(content.get("value"), at))
    return any_bytes(type_url, _encode(plan, content, at))


@cache
def message_class(type_url: str) -> Any:
    """The generated class of a type.

    Raises:
        SchemaError: Envoy's API, as far as envoy-data-plane has it, has no such message.
    """
    name = type_url.removeprefix(PREFIX)
    pool = importlib.import_module(f"{_PACKAGE}.message_pool").default_message_pool
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            importlib.import_module(".".join((_PACKAGE, *parts[:end])))
        except ImportError:
            continue
        break
    found = pool.url_to_type.get(PREFIX + name)
    if found is None or not type_url.startswith(PREFIX):
        raise SchemaError(f"there is no message {type_url!r}")
    return found


USUAL = tuple(
    PREFIX + name
    for name in (
        "envoy.config.cluster.v3.Cluster",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        "envoy.config.listener.v3.Listener",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "envoy.extensions.transport_sockets.tls.v3.Secret",
    )
)
"""What every proxy has."""


@cache
def load_schema() -> None:
    """Import the classes of what is ``USUAL``, which takes most of a second: do it where nobody waits, in a thread."""
    for type_url in USUAL:
        _plan(message_class(type_url))


Write = Callable[[Any, str], bytes]
"""(value, place in the document) -> the field's value as on the wire: length-prefixed where that applies."""


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    tag: bytes
    write: Write
    default: Any
    group: str | None = None
    is_repeated: bool = False
    is_packed: bool = False
    is_map: bool = False


@dataclass(frozen=True, slots=True)
class _Plan:
    """The fields of a message by JSON name; ``whole``: it is no object in JSON (a wrapper, Duration, Struct)."""

    name: str
    fields: Mapping[str, _Field]
    whole: Write | None = None


def _encode(plan: _Plan, document: Any, at: str) -> bytes:
    if not isinstance(document, Mapping):
        if isinstance(document, Encoded):
            return document.body
        raise SchemaError(f"{at or plan.name}: expected an object of {plan.name}, got {document!r:.60}")
    parts: list[tuple[int, bytes]] = []
    chosen: dict[str, str] = {}
    for key, value in document.items():
        field = plan.fields.get(key)
        if field is None:
            raise SchemaError(f"{at or plan.name}: {plan.name} has no field {key!r}")
        where = f"{at}.{key}" if at else key
        if field.group is not None and chosen.setdefault(field.group, key) != key:
            raise SchemaError(f"{where}: {plan.name} has either {chosen[field.group]!r} or {key!r}, not both")
        try:
            parts.append((field.number, _field_bytes(field, value, where)))
        except SchemaError:
            raise
        except (TypeError, AttributeError, ValueError, OverflowError, struct.error) as error:
            raise SchemaError(f"{where}: {value!r:.60} does not fit: {error}") from error
    parts.sort(key=lambda part: part[0])
    return b"".join([part[1] for part in parts])


def _field_bytes(field: _Field, value: Any, at: str) -> bytes:
    if field.is_map:
        if not isinstance(value, Mapping):
            raise TypeError("expected an object")
        return b"".join(
            field.tag + _sized(bytes_field(1, key.encode()) + b"\x12" + field.write(value[key], f"{at}[{key}]"))
            for key in sorted(value)
        )
    if field.is_repeated:
        if not isinstance(value, (list, tuple)):
            raise TypeError("expected a list")
        if field.is_packed:
            items = b"".join(field.write(item, f"{at}[{i}]") for i, item in enumerate(value))
            return field.tag + _sized(items) if value else b""
        return b"".join(field.tag + field.write(item, f"{at}[{i}]") for i, item in enumerate(value))
    if field.default is not None and _is(value, field.default):
        return b""
    return field.tag + field.write(value, at)


def _is(value: Any, default: Any) -> bool:
    """Whether a plain field has its default; ``False == 0`` in Python, but is no number here."""
    if default == b"":
        return value in (b"", "")  # as they are, or as base64
    return bool(value == default) and isinstance(value, bool) == isinstance(default, bool)


def _sized(data: bytes) -> bytes:
    return varint(len(data)) + data


@cache
def _plan(cls: Any) -> _Plan:
    name = str(cls.__name__)
    whole = _WHOLE.get(name) if cls.__module__.endswith(".google.protobuf") else None
    if whole is not None:
        return _Plan(name, {}, whole)
    meta = cls._betterproto
    fields: dict[str, _Field] = {}
    for attribute in meta.meta_by_field_name:
        fields[json_name(attribute)] = _field(cls, attribute)
    return _Plan(name, fields)


def _field(cls: Any, attribute: str) -> _Field:
    meta = cls._betterproto.meta_by_field_name[attribute]
    value, value_cls = meta, cls._betterproto.cls_by_field[attribute]
    is_map = meta.map_meta is not None
    if is_map and meta.map_meta[0].proto_type != "string":
        return _Field(meta.number, b"", _refuse, None)  # compiled CEL has such, and nothing else
    if is_map:
        value = meta.map_meta[1]
        value_cls = value_cls._betterproto.cls_by_field["value"]  # noqa: SLF001
    wire, write, zero = _writer(value, value_cls)
    is_packed = bool(meta.repeated) and wire != BYTES
    tag = varint(meta.number << 3 | (BYTES if is_map or is_packed else wire))
    # A field of a oneof, or one that knows whether it was set, is written also when it has its default.
    default = None if meta.repeated or is_map or meta.group or meta.optional else zero
    return _Field(meta.number, tag, write, default, meta.group, bool(meta.repeated), is_packed, is_map)


def _refuse(value: Any, at: str) -> bytes:
    raise SchemaError(f"{at}: a map whose keys are no text is not available, got {value!r:.60}")


def _writer(meta: Any, cls: Any) -> tuple[int, Write, Any]:
    """Wire type, writer, and default (None: has none) of a field's values."""
    if meta.proto_type == "enum":
        numbers = _enum_numbers(cls)
        return VARINT, lambda value, at: varint(_number(numbers, value, at) & _U64), next(iter(numbers), None)
    if meta.proto_type != "message":
        return _SCALARS[meta.proto_type]
    if meta.unwrap is not None:
        cls = meta.unwrap()
    if cls.__name__ == "Any":
        return BYTES, lambda value, at: _sized(encode_any(value, at)), None

    def message(value: Any, at: str) -> bytes:  # the plan is made when first needed: messages are recursive
        plan = _plan(cls)
        return _sized(plan.whole(value, at) if plan.whole is not None else _encode(plan, value, at))

    return BYTES, message, None


def _enum_numbers(cls: Any) -> dict[str, int]:
    renamed = cls.betterproto_value_to_renamed_proto_names()
    return {str(renamed.get(member.value, member.name)): int(member.value) for member in cls}


def _number(numbers: Mapping[str, int], value: Any, at: str) -> int:
    if value not in numbers:
        raise SchemaError(f"{at}: {value!r} is none of {', '.join(numbers)}")
    return numbers[value]


_U64 = 0xFFFFFFFFFFFFFFFF


def _integer(value: Any, at: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SchemaError(f"{at}: {value!r} is no whole number from {low} to {high}")
    return value


def _int(low: int, high: int) -> tuple[int, Write, Any]:
    return VARINT, lambda value, at: varint(_integer(value, at, low, high) & _U64), 0


def _text(value: Any, at: str) -> bytes:
    if not isinstance(value, str):
        raise SchemaError(f"{at}: {value!r:.60} is no text")
    return _sized(value.encode())


def _raw(value: Any, at: str) -> bytes:
    """Bytes: as they are, or base64 text as proto-JSON has it."""
    if isinstance(value, bytes):
        return _sized(value)
    if not isinstance(value, str):
        raise SchemaError(f"{at}: {value!r:.60} is neither bytes nor base64 text")
    return _sized(base64.b64decode(value, validate=True))


def _real(value: Any, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SchemaError(f"{at}: {value!r:.60} is no number")
    return value


def _bool(value: Any, at: str) -> bytes:
    if not isinstance(value, bool):
        raise SchemaError(f"{at}: {value!r:.60} is not true or false")
    return b"\x01" if value else b"\x00"


_SCALARS: dict[str, tuple[int, Write, Any]] = {
    "string": (BYTES, _text, ""),
    "bytes": (BYTES, _raw, b""),
    "bool": (VARINT, _bool, False),
    "uint32": _int(0, 2**32 - 1),
    "uint64": _int(0, 2**64 - 1),
    "int32": _int(-(2**31), 2**31 - 1),
    "int64": _int(-(2**63), 2**63 - 1),
    "float": (FIXED32, lambda value, at: struct.pack("<f", _real(value, at)), 0.0),
    "double": (FIXED64, lambda value, at: struct.pack("<d", _real(value, at)), 0.0),
}


def _wrapper(proto_type: str) -> Write:
    """A wrapper message: its field 1, left out when it has its default."""
    wire, write, zero = _SCALARS[proto_type]
    key = varint(1 << 3 | wire)
    return lambda value, at: b"" if _is(value, zero) else key + write(value, at)


def _duration(value: Any, at: str) -> bytes:
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise SchemaError(f"{at}: {value!r} is no duration such as '5s' or '0.25s'")
    sign = -1 if match[1] else 1
    seconds, nanos = sign * int(match[2]), sign * int((match[3] or "").ljust(9, "0"))
    if abs(seconds) > _MAX_DURATION_S:
        raise SchemaError(f"{at}: {value!r} is longer than a duration can be, 10,000 years")
    out = b"\x08" + varint(seconds & _U64) if seconds else b""
    return out + (b"\x10" + varint(nanos & _U64) if nanos else b"")


_WHOLE: dict[str, Write] = {
    "BoolValue": _wrapper("bool"),
    "UInt32Value": _wrapper("uint32"),
    "UInt64Value": _wrapper("uint64"),
    "Int32Value": _wrapper("int32"),
    "Int64Value": _wrapper("int64"),
    "FloatValue": _wrapper("float"),
    "DoubleValue": _wrapper("double"),
    "StringValue": _wrapper("string"),
    "BytesValue": _wrapper("bytes"),
    "Duration": _duration,
    "Struct": lambda value, _: encode_struct(value),
    "Value": lambda value, _: encode_value(value),
}


def json_name(attribute: str) -> str:
    """What a field of a generated class is called in JSON (protobuf's rule)."""
    head, *rest = attribute.rstrip("_").split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)
