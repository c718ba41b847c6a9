"""``KumaResource``, the envelope of every resource on a KDS stream (reference/kds.md 2.1 and 2.3)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from meshd.discovery.fields import bytes_field, map_entry, map_field, string_field, submessages, text
from meshd.discovery.messages import Entry
from meshd.discovery.wire import any_bytes, any_parts
from meshd.kds.names import key_of, wire_name
from meshd.model import codec
from meshd.model.resource import Resource, ResourceKey
from meshd.model.resource_type import ResourceType, Scope

TYPE_PREFIX = "type.googleapis.com/"
META, SPEC, STATUS = 1, 2, 3
KUMA_RESOURCE = "kuma.mesh.v1alpha1.KumaResource"
MAX_NAME = 253
MAX_LABEL_CHARS = 64 * 1024
"""Of all labels of a resource together, keys and values."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A resource as it came, its envelope opened and its spec still encoded; ``status`` is None if there was none."""

    key: ResourceKey
    labels: Mapping[str, str]
    spec: bytes
    status: bytes | None


class UnreadableError(ValueError):
    """One resource of a response cannot be read. ``key`` is its best known key, None if even that is lost."""

    def __init__(self, key: ResourceKey | None, reason: str) -> None:
        self.key = key
        super().__init__(reason)


def encode(type_: ResourceType, resource: Resource) -> Entry:
    """The resource as an entry of a discovery response; equal resources give equal bytes and versions.

    The spec is ``resource.wire`` when the resource has one. A kind with a status always carries one, if only ``{}``.

    Raises:
        ValueError: the spec has no wire form.
    """
    spec = resource.wire if resource.wire is not None else codec.spec_to_wire(type_, resource.spec)
    meta = string_field(1, resource.key.name) + string_field(2, resource.key.mesh) + map_field(6, dict(resource.labels))
    body = bytes_field(META, meta) + bytes_field(SPEC, any_bytes(spec_url(type_), spec))
    if type_.status is not None:
        status = b"{}" if resource.status is None else codec.status_to_wire(type_, resource.status)
        body += bytes_field(STATUS, any_bytes("", status))
    version = hashlib.sha256(body).hexdigest()
    return Entry(wire_name(resource.key), version, any_bytes(TYPE_PREFIX + KUMA_RESOURCE, body))


def spec_url(type_: ResourceType) -> str:
    """The type URL of a kind's spec: its message's, empty for JSON."""
    return TYPE_PREFIX + type_.message_name if type_.message_name else ""


def decode(type_: ResourceType, entry: Entry) -> Arrived:
    """Open the envelope of one entry, leaving spec and status encoded.

    Raises:
        UnreadableError: this resource cannot be read; the others of its response still can.
    """
    key = key_of(type_.kind, entry.name) if entry.name else None
    try:
        parts = opened(entry)
        key, labels = decode_meta(type_, parts.get(META, b""))
        check_key(type_, key)
        spec = spec_bytes(type_, parts.get(SPEC))
        status = any_parts(parts[STATUS])[1] if STATUS in parts and type_.status is not None else None
    except ValueError as error:
        raise UnreadableError(key, str(error)) from error
    return Arrived(key, labels, spec, status or None)


def opened(entry: Entry) -> dict[int, bytes]:
    """The fields of the ``KumaResource`` in an entry."""
    url, body = any_parts(entry.body)
    if url.rpartition("/")[2] != KUMA_RESOURCE:
        raise ValueError(f"its envelope is a {url or 'message without a type'!r}, not a {KUMA_RESOURCE}")
    return dict(submessages(body))


def spec_bytes(type_: ResourceType, data: bytes | None) -> bytes:
    """The encoded spec in an ``Any`` of the right type."""
    url, spec = any_parts(data) if data is not None else ("", b"")
    if type_.message_name and url.rpartition("/")[2] != type_.message_name:
        raise ValueError(f"its spec is a {url!r}, not a {type_.message_name}")
    if not type_.message_name and not spec:
        raise ValueError("it has no spec; an empty one is {}")
    return spec


def decode_meta(type_: ResourceType, data: bytes) -> tuple[ResourceKey, dict[str, str]]:
    """Key and labels of a ``KumaResource.Meta``."""
    name = mesh = ""
    labels: dict[str, str] = {}
    for number, value in submessages(data):
        if number == 1:
            name = text(value)
        elif number == 2:
            mesh = text(value)
        elif number == 6:
            key, item = map_entry(value)
            labels[key] = item
    if sum(len(key) + len(item) for key, item in labels.items()) > MAX_LABEL_CHARS:
        raise ValueError(f"its labels have more than {MAX_LABEL_CHARS} characters")
    return ResourceKey(type_.kind, mesh, name), labels


def check_key(type_: ResourceType, key: ResourceKey) -> None:
    """Refuse what the store could not name or REST could not show."""
    if not 0 < len(key.name) <= MAX_NAME or not key.name.isprintable() or "/" in key.name:
        raise ValueError(f"its name {key.name[:64]!r} is no name of 1 to {MAX_NAME} printable characters")
    if type_.scope is Scope.GLOBAL and key.mesh:
        raise ValueError(f"it names mesh {key.mesh!r}, but a {type_.kind} belongs to none")
    if type_.scope is Scope.MESH and (
        not 0 < len(key.mesh) <= MAX_NAME or not key.mesh.isprintable() or "/" in key.mesh
    ):
        raise ValueError(f"its mesh {key.mesh[:64]!r} is no name of a mesh")
