"""Between resources and text or bytes: documents (REST, YAML files), KDS specs, and rows of the store.

Documents are read strictly and every violation is named; what comes from a peer or from our own store is read
leniently and kept whole. Callers decide what to do with an error; nothing here is fatal.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from meshd.model import documents, wire
from meshd.model import labels as label
from meshd.model.errors import InvalidError, Violation
from meshd.model.names import key_violations, label_violations
from meshd.model.registry import Registry
from meshd.model.resource import NO_LABELS, Resource, ResourceKey, Spec
from meshd.model.resource_type import ResourceType, Scope
from meshd.model.shape import ShapeError, join_path, read_lenient, read_strict, suggestion

Document = documents.Document
load_documents = documents.load_documents

_META = ("type", "mesh", "name", "labels", "creationTime", "modificationTime", "kri")
"""What every document may have. The times and the kri are ours: read back from a printed document, but not used."""
_ENVELOPE = ("spec", "status")
_COMPUTED = ("snis",)
"""What kumactl adds to a resource that it sends, made of its other parts: not used."""
ZERO_TIME = "0001-01-01T00:00:00Z"
"""What Kuma prints for a time that was never set."""


def decode_document(data: Any, registry: Registry) -> Resource:
    """The resource that one parsed YAML or JSON document describes, valid in itself.

    Version, times and owner are not part of a document. Rules that need other resources (does the mesh exist, is the
    service name unique) are the caller's.

    Raises:
        InvalidError: carries every violation that was found; if the shape is right also those of the kind's rules.
    """
    if not isinstance(data, Mapping):
        raise InvalidError("document", [Violation("", f"must be an object with type and name, not {data!r}")])
    type_ = _type_of(data, registry)
    found = [Violation(join_path([str(k)]), "field names must be text") for k in data if not isinstance(k, str)]
    name, mesh, labels = _text(data, "name", found), _text(data, "mesh", found), _labels(data, found)
    subject = f"{type_.kind} {mesh}/{name}" if mesh else f"{type_.kind} {name}"
    unreadable = {violation.field for violation in found}
    found += [v for v in key_violations(type_, mesh, name) if v.field not in unreadable]
    found += label_violations(labels, mesh)
    spec, status = _spec_and_status(type_, data, found)
    resource = None
    if spec is not None:
        resource = Resource(ResourceKey(type_.kind, mesh, name), spec, labels=labels or NO_LABELS, status=status)
        found += type_.validate(resource)
    if found or resource is None:
        raise InvalidError(subject, found)
    return resource


def encode_document(resource: Resource, registry: Registry) -> dict[str, Any]:
    """The resource as Kuma's REST API prints it: metadata, then the spec's fields (or ``spec`` and ``status``).

    Secrets are not redacted.

    Raises:
        KeyError: the registry does not know the kind.
    """
    type_ = registry[resource.key.kind]
    document: dict[str, Any] = {"type": type_.kind}
    if type_.scope is Scope.MESH:
        document["mesh"] = resource.key.mesh
    document["name"] = resource.key.name
    document["creationTime"] = _go_time(resource.created)
    document["modificationTime"] = _go_time(resource.modified)
    if resource.labels:
        document["labels"] = dict(sorted(resource.labels.items()))
    identifier = kri(resource, type_)
    if identifier:
        document["kri"] = identifier
    if type_.flat:
        return document | spec_to_json(type_, resource.spec)
    document["spec"] = spec_to_json(type_, resource.spec)
    if type_.status is not None:
        document["status"] = spec_to_json(type_, resource.status) if resource.status is not None else {}
    return document


def kri(resource: Resource, type_: ResourceType, section: str = "") -> str:
    """Kuma's identifier, ``kri_<short>_<mesh>_<zone>_<namespace>_<name>_<section>``; "" without a short name."""
    if not type_.short:
        return ""
    zone, namespace = resource.labels.get(label.ZONE, ""), resource.labels.get(label.NAMESPACE, "")
    return f"kri_{type_.short}_{resource.key.mesh}_{zone}_{namespace}_{resource.display_name}_{section}"


def spec_to_json(type_: ResourceType, spec: Spec) -> dict[str, Any]:
    """JSON data of a spec or status: as protobuf's JSON does, without defaults; JSON kinds as they were written."""
    if type_.message is not None:
        data = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    else:
        data = spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    return data


def spec_to_wire(type_: ResourceType, spec: Spec) -> bytes:
    """The bytes of a spec as KDS carries them: protobuf, or JSON text for a kind without a message. Deterministic."""
    if type_.message is not None:
        return wire.encode(wire.schema_of(type_.spec, type_.message), spec)
    return _json_text(spec_to_json(type_, spec))


def spec_from_wire(type_: ResourceType, data: bytes) -> Spec:
    """The spec that a peer's bytes say; fields we do not know are left out (keep the bytes in ``Resource.wire``).

    Raises:
        ValueError: the bytes cannot be decoded; says why.
    """
    if type_.message is not None:
        return wire.decode(wire.schema_of(type_.spec, type_.message), data)
    return read_lenient(type_.spec, data)


def status_to_wire(type_: ResourceType, status: Spec) -> bytes:
    """The JSON text of a status as KDS carries it."""
    return _json_text(spec_to_json(type_, status))


def status_from_wire(type_: ResourceType, data: bytes) -> Spec:
    """The status that a peer's JSON text says.

    Raises:
        ValueError: the kind has no status, or the text cannot be decoded.
    """
    if type_.status is None:
        raise ValueError(f"a {type_.kind} has no status")
    return read_lenient(type_.status, data)


def spec_to_text(type_: ResourceType, spec: Spec) -> str:
    """JSON text of a spec or status for a row of the store."""
    return json.dumps(spec_to_json(type_, spec), separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def spec_from_text(type_: ResourceType, text: str, *, status: bool = False) -> Spec:
    """What ``spec_to_text`` wrote, also by a version that knew other fields.

    Raises:
        ValueError: the text is not that of this kind.
    """
    wanted = type_.status if status else type_.spec
    if wanted is None:
        raise ValueError(f"a {type_.kind} has no status")
    return read_lenient(wanted, text)


def _json_text(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def _go_time(moment: datetime | None) -> str:
    """RFC 3339 as Go's JSON prints it: no trailing zeros in the fraction."""
    if moment is None:
        return ZERO_TIME
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{moment.microsecond:06d}".rstrip("0").rstrip(".") + "Z" if moment.microsecond else text + "Z"


def _type_of(data: Mapping[Any, Any], registry: Registry) -> ResourceType:
    kind = data.get("type")
    if not isinstance(kind, str) or not kind:
        what = "is required: the kind of the resource" if kind is None else f"must be text, not {kind!r}"
        raise InvalidError("document", [Violation("type", what)])
    type_ = registry.get(kind)
    if type_ is None:
        hint = suggestion(kind, (t.kind for t in registry))
        raise InvalidError("document", [Violation("type", f'"{kind}" is no known kind{hint}')])
    return type_


def _text(data: Mapping[Any, Any], field: str, found: list[Violation]) -> str:
    value = data.get(field)
    if value is None or isinstance(value, str):
        return value or ""
    found.append(Violation(field, f"must be text; put it in quotes, not {json.dumps(value, default=str)}"))
    return ""


def _labels(data: Mapping[Any, Any], found: list[Violation]) -> dict[str, str]:
    value = data.get("labels")
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        found.append(Violation("labels", f"must be an object, not {json.dumps(value, default=str)}"))
        return {}
    labels: dict[str, str] = {}
    for key, text in value.items():
        if isinstance(key, str) and isinstance(text, str):
            labels[key] = text
        else:
            found.append(Violation(f'labels["{key}"]', f"must be text; put it in quotes, not {text!r}"))
    return labels


def _spec_and_status(
    type_: ResourceType, data: Mapping[Any, Any], found: list[Violation]
) -> tuple[Spec | None, Spec | None]:
    passed = _META if type_.flat else (*_META, *_COMPUTED)
    rest = {key: value for key, value in data.items() if isinstance(key, str) and key not in passed}
    if type_.flat:
        return _read(type_.spec, rest, "", found, known=_META), None
    allowed = _ENVELOPE if type_.status is not None else ("spec",)
    found += [
        Violation(join_path([key]), "unknown field" + _misplaced(type_, key, allowed))
        for key in rest
        if key not in allowed
    ]
    status = _read(type_.status, rest.get("status"), "status", found) if type_.status is not None else None
    return _read(type_.spec, rest.get("spec"), "spec", found), status


def _misplaced(type_: ResourceType, key: str, allowed: tuple[str, ...]) -> str:
    if any(key in (name, info.alias) for name, info in type_.spec.model_fields.items()):
        return f'; it belongs under "spec" in a {type_.kind}'
    return suggestion(key, (*_META, *allowed))


def _read(spec: type[Spec], data: Any, field: str, found: list[Violation], known: tuple[str, ...] = ()) -> Spec | None:
    if not isinstance(data, Mapping | None):
        found.append(Violation(field, f"must be an object, not {json.dumps(data, default=str)}"))
        return None
    try:
        return read_strict(spec, data or {})
    except ShapeError as error:
        for violation in error.violations:
            message = violation.message
            if known and message == "unknown field":
                message += suggestion(violation.field, known)
            prefixed = violation.field if not field else f"{field}.{violation.field}".rstrip(".")
            found.append(Violation(prefixed, message))
        return None
