"""Between a resource and its row in a database."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from meshd.model.codec import spec_from_text, spec_to_text
from meshd.model.fields import parse_timestamp
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey

_TYPES: Mapping[str, type] = {"version": int, "wire": bytes}
"""Columns that are not text; SQLite itself takes any type anywhere."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row that could not be decoded: it stays in the database, is not in the image, and waits for a human."""

    key: ResourceKey
    reason: str


def to_row(resource: Resource, registry: Registry) -> dict[str, Any]:
    """The row of a stored resource (it has version and times).

    Raises:
        ValueError: it has text that is none.
    """
    type_ = registry[resource.key.kind]
    owner = resource.owner
    if resource.created is None or resource.modified is None:
        raise ValueError(f"{resource.key} has no times; only the store makes rows")
    row = {
        "kind": resource.key.kind,
        "mesh": resource.key.mesh,
        "name": resource.key.name,
        "spec": spec_to_text(type_, resource.spec),
        "labels": json.dumps(dict(resource.labels), sort_keys=True, ensure_ascii=False),
        "status": None if resource.status is None else spec_to_text(type_, resource.status),
        "owner_kind": owner.kind if owner else None,
        "owner_mesh": owner.mesh if owner else None,
        "owner_name": owner.name if owner else None,
        "version": resource.version,
        "created": resource.created.isoformat(),
        "modified": resource.modified.isoformat(),
        "wire": resource.wire,
    }
    for column, value in row.items():
        # Here, not in the database: its refusal would cost everybody who shares the commit.
        if isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError(f"{resource.key}: its {column} has a lone surrogate, which is no text")
    return row


def from_row(row: Mapping[str, Any], registry: Registry) -> Resource | Quarantined:
    """The resource of a row, or why it cannot be read."""
    key = ResourceKey(str(row["kind"]), str(row["mesh"]), str(row["name"]))
    for column, value in row.items():
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            return Quarantined(key, f"its {column} is not UTF-8")
        if value is not None and not isinstance(value, _TYPES.get(column, str)):
            return Quarantined(key, f"its {column} is not of the right type")
    type_ = registry.get(key.kind)
    if type_ is None:
        return Quarantined(key, f"kind {key.kind} is not known to this version")
    try:
        labels = json.loads(row["labels"])
        if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
            return Quarantined(key, "its labels are not texts")
        owner = None
        if row["owner_kind"] is not None:
            owner = ResourceKey(row["owner_kind"], row["owner_mesh"], row["owner_name"])
        return Resource(
            key,
            spec_from_text(type_, row["spec"]),
            labels=MappingProxyType(labels),
            status=None if row["status"] is None else spec_from_text(type_, row["status"], status=True),
            owner=owner,
            version=row["version"],
            created=parse_timestamp(row["created"]),
            modified=parse_timestamp(row["modified"]),
            wire=row["wire"],
        )
    except (ValueError, TypeError) as error:
        return Quarantined(key, str(error))
