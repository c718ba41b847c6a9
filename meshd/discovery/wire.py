"""The messages of delta discovery as protobuf bytes (package ``envoy.service.discovery.v3``), both directions.

Field numbers: reference/kds.md 2.2. Decoding skips what it does not know and raises ``ValueError`` on what is no
protobuf message. Encoding is deterministic: map keys are sorted.
"""

import struct
from collections.abc import Mapping

from meshd.discovery.fields import (
    BYTES,
    FIXED64,
    VARINT,
    Value,
    bytes_field,
    fields,
    map_entry,
    map_field,
    short_map_entry,
    signed,
    string_field,
    submessages,
    text,
    varint,
    varint_field,
)
from meshd.discovery.messages import DeltaRequest, DeltaResponse, Entry, Json, Node, Rejection

MAX_NODE_BYTES = 2 * 1024 * 1024
"""Larger nodes are refused: their metadata may hold a resource, but it takes a microsecond for every few bytes."""
MAX_STRUCT_DEPTH = 64
"""Deeper ``Struct`` values are refused: a peer chooses the depth, our stack pays for it."""


def any_bytes(type_url: str, value: bytes) -> bytes:
    """A ``google.protobuf.Any``: type URL (may be empty) and the encoded message."""
    return string_field(1, type_url) + (bytes_field(2, value) if value else b"")


def any_parts(data: bytes) -> tuple[str, bytes]:
    """Type URL and value of a ``google.protobuf.Any``."""
    type_url, value = "", b""
    for number, part in submessages(data):
        if number == 1:
            type_url = text(part)
        elif number == 2:
            value = part
    return type_url, value


def encode_request(request: DeltaRequest) -> bytes:
    """A ``DeltaDiscoveryRequest``."""
    parts = []
    if request.node is not None:
        parts.append(bytes_field(1, encode_node(request.node)))
    parts.append(string_field(2, request.type_url))
    parts += [bytes_field(3, name.encode()) for name in request.subscribe]
    parts += [bytes_field(4, name.encode()) for name in request.unsubscribe]
    parts.append(map_field(5, dict(request.initial_versions)))
    parts.append(string_field(6, request.nonce))
    if request.error is not None:
        parts.append(bytes_field(7, varint_field(1, request.error.code) + string_field(2, request.error.message)))
    return b"".join(parts)


def decode_request(data: bytes) -> DeltaRequest:
    """Read a ``DeltaDiscoveryRequest``."""
    node: Node | None = None
    error: Rejection | None = None
    type_url = nonce = ""
    subscribe: list[str] = []
    unsubscribe: list[str] = []
    versions: dict[str, str] = {}
    for number, part in submessages(data):
        match number:
            case 1:
                node = decode_node(part)
            case 2:
                type_url = text(part)
            case 3:
                subscribe.append(text(part))
            case 4:
                unsubscribe.append(text(part))
            case 5:
                name, version = short_map_entry(part) or map_entry(part)
                versions[name] = version
            case 6:
                nonce = text(part)
            case 7:
                error = decode_status(part)
    return DeltaRequest(type_url, tuple(subscribe), tuple(unsubscribe), versions, nonce, error, node)


def encode_response(response: DeltaResponse) -> bytes:
    """A ``DeltaDiscoveryResponse``; the resources' bodies are joined as they are."""
    return b"".join(response_parts(response))


def response_parts(response: DeltaResponse) -> list[bytes]:
    """The same in parts, most of which many streams share: what waits to be sent to them takes no room then."""
    parts: list[bytes] = [string_field(1, response.version)]
    for entry in response.resources:
        head, tail = entry.frame or _frame(entry)
        parts += (head, entry.body, tail)
    parts.append(string_field(4, response.type_url))
    parts.append(string_field(5, response.nonce))
    parts += [bytes_field(6, name.encode()) for name in response.removed]
    if response.control_plane:
        parts.append(bytes_field(7, string_field(1, response.control_plane)))
    return parts


def _frame(entry: Entry) -> tuple[bytes, bytes]:
    """What stands before and behind the body of a ``Resource`` in a response; the entry keeps it."""
    tail = string_field(3, entry.name)
    head = string_field(1, entry.version) + varint(2 << 3 | BYTES) + varint(len(entry.body))
    frame = varint(2 << 3 | BYTES) + varint(len(head) + len(entry.body) + len(tail)) + head, tail
    object.__setattr__(entry, "frame", frame)
    return frame


def decode_response(data: bytes) -> DeltaResponse:
    """Read a ``DeltaDiscoveryResponse``; bodies are left encoded, so one bad resource does not spoil the others."""
    type_url = nonce = control_plane = version = ""
    entries: list[Entry] = []
    removed: list[str] = []
    for number, part in submessages(data):
        match number:
            case 1:
                version = text(part)
            case 2:
                entries.append(decode_entry(part))
            case 4:
                type_url = text(part)
            case 5:
                nonce = text(part)
            case 6:
                removed.append(text(part))
            case 7:
                control_plane = next((text(v) for n, v in submessages(part) if n == 1), "")
    return DeltaResponse(type_url, tuple(entries), tuple(removed), nonce, control_plane, version)


def decode_entry(data: bytes) -> Entry:
    """Read a ``Resource`` of a response."""
    version = name = ""
    body = b""
    for number, part in submessages(data):
        if number == 1:
            version = text(part)
        elif number == 2:
            body = part
        elif number == 3:
            name = text(part)
    return Entry(name, version, body)


def encode_node(node: Node) -> bytes:
    """A ``envoy.config.core.v3.Node`` with id, cluster and metadata."""
    metadata = bytes_field(3, encode_struct(node.metadata)) if node.metadata else b""
    return string_field(1, node.id) + string_field(2, node.cluster) + metadata


def decode_node(data: bytes) -> Node:
    """Read id, cluster and metadata of a ``Node``."""
    if len(data) > MAX_NODE_BYTES:
        raise ValueError(f"a node of {len(data)} bytes is over the limit of {MAX_NODE_BYTES}")
    node_id = cluster = ""
    metadata: dict[str, Json] = {}
    for number, part in submessages(data):
        if number == 1:
            node_id = text(part)
        elif number == 2:
            cluster = text(part)
        elif number == 3:
            metadata = decode_struct(part)
    return Node(node_id, cluster, metadata)


def decode_status(data: bytes) -> Rejection:
    """Read code and message of a ``google.rpc.Status``."""
    code, message = 0, ""
    for number, wire_type, value in fields(data):
        if number == 1 and isinstance(value, int):
            code = signed(value)
        elif number == 2 and wire_type == BYTES and isinstance(value, bytes):
            message = value.decode(errors="replace")
    return Rejection(message, code)


def encode_struct(values: Mapping[str, Json]) -> bytes:
    """A ``google.protobuf.Struct``, keys sorted."""
    return b"".join(
        bytes_field(1, bytes_field(1, key.encode()) + bytes_field(2, encode_value(values[key])))
        for key in sorted(values)
    )


def encode_value(value: Json) -> bytes:
    """A ``google.protobuf.Value``; its fields are a oneof, so even defaults are written."""
    if value is None:
        return varint(1 << 3 | VARINT) + b"\x00"
    if isinstance(value, bool):
        return varint(4 << 3 | VARINT) + (b"\x01" if value else b"\x00")
    if isinstance(value, (int, float)):
        return varint(2 << 3 | FIXED64) + struct.pack("<d", value)
    if isinstance(value, str):
        return bytes_field(3, value.encode())
    if isinstance(value, list):
        return bytes_field(6, b"".join(bytes_field(1, encode_value(item)) for item in value))
    return bytes_field(5, encode_struct(value))


def decode_struct(data: bytes, depth: int = 0) -> dict[str, Json]:
    """Read a ``google.protobuf.Struct``."""
    if depth > MAX_STRUCT_DEPTH:
        raise ValueError(f"protobuf: a Struct is nested deeper than {MAX_STRUCT_DEPTH}")
    values: dict[str, Json] = {}
    for number, entry in submessages(data):
        if number != 1:
            continue
        key, value = "", b""
        for part_number, part in submessages(entry):
            if part_number == 1:
                key = text(part)
            elif part_number == 2:
                value = part
        values[key] = decode_value(value, depth + 1)
    return values


def decode_value(data: bytes, depth: int) -> Json:
    """Read a ``google.protobuf.Value``; the last field of the oneof wins, none at all is null."""
    value: Json = None
    for number, wire_type, raw in fields(data):
        value = one_value(number, wire_type, raw, depth)
    return value


def one_value(number: int, wire_type: int, raw: Value, depth: int) -> Json:
    """The JSON value in one field of a ``Value``."""
    match number, wire_type, raw:
        case 2, 1, bytes():
            (double,) = struct.unpack("<d", raw)
            return float(double)
        case 3, 2, bytes():
            return text(raw)
        case 4, 0, int():
            return bool(raw)
        case 5, 2, bytes():
            return decode_struct(raw, depth + 1)
        case 6, 2, bytes():
            if depth > MAX_STRUCT_DEPTH:
                raise ValueError(f"protobuf: a ListValue is nested deeper than {MAX_STRUCT_DEPTH}")
            return [decode_value(item, depth + 1) for n, item in submessages(raw) if n == 1]
        case _:
            return None
