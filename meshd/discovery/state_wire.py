"""The messages of state-of-the-world discovery as protobuf bytes (package ``envoy.service.discovery.v3``).

As ``wire``, with ``DiscoveryRequest`` and ``DiscoveryResponse``.
"""

from meshd.discovery.fields import BYTES, bytes_field, string_field, submessages, text, varint, varint_field
from meshd.discovery.messages import Entry, Node, Rejection, StateRequest, StateResponse
from meshd.discovery.wire import any_parts, decode_node, decode_status, encode_node

RESOURCE_KEY = varint(2 << 3 | BYTES)


def encode_request(request: StateRequest) -> bytes:
    """A ``DiscoveryRequest``."""
    parts = [string_field(1, request.version)]
    if request.node is not None:
        parts.append(bytes_field(2, encode_node(request.node)))
    parts += [bytes_field(3, name.encode()) for name in request.names]
    parts.append(string_field(4, request.type_url))
    parts.append(string_field(5, request.nonce))
    if request.error is not None:
        parts.append(bytes_field(6, varint_field(1, request.error.code) + string_field(2, request.error.message)))
    return b"".join(parts)


def decode_request(data: bytes) -> StateRequest:
    """Read a ``DiscoveryRequest``."""
    node: Node | None = None
    error: Rejection | None = None
    type_url = version = nonce = ""
    names: list[str] = []
    for number, part in submessages(data):
        match number:
            case 1:
                version = text(part)
            case 2:
                node = decode_node(part)
            case 3:
                names.append(text(part))
            case 4:
                type_url = text(part)
            case 5:
                nonce = text(part)
            case 6:
                error = decode_status(part)
    return StateRequest(type_url, tuple(names), version, nonce, error, node)


def encode_response(response: StateResponse) -> bytes:
    """A ``DiscoveryResponse``; the resources' bodies are joined as they are."""
    return b"".join(response_parts(response))


def response_parts(response: StateResponse) -> list[bytes]:
    """The same in parts, as ``wire.response_parts``."""
    parts = [string_field(1, response.version)]
    for entry in response.resources:
        parts += (RESOURCE_KEY, varint(len(entry.body)), entry.body)
    parts.append(string_field(4, response.type_url))
    parts.append(string_field(5, response.nonce))
    if response.control_plane:
        parts.append(bytes_field(6, string_field(1, response.control_plane)))
    return parts


def decode_response(data: bytes) -> StateResponse:
    """Read a ``DiscoveryResponse``. What a resource is called stands inside it: ``name`` is empty here."""
    type_url = version = nonce = control_plane = ""
    entries: list[Entry] = []
    for number, part in submessages(data):
        match number:
            case 1:
                version = text(part)
            case 2:
                any_parts(part)
                entries.append(Entry("", "", part))
            case 4:
                type_url = text(part)
            case 5:
                nonce = text(part)
            case 6:
                control_plane = next((text(v) for n, v in submessages(part) if n == 1), "")
    return StateResponse(type_url, version, tuple(entries), nonce, control_plane)
