"""From encoded Envoy resources back to documents, for people. Slow: milliseconds for a listener.

By the generated classes of envoy-data-plane, not by the tables that encode: what is shown is what a proxy reads.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from meshd.discovery.wire import any_parts
from meshd.xds.encode import Document, json_name, message_class
from meshd.xds.resources import SECRET, XdsResource

REDACTED = {"inlineString": "[redacted]"}
"""What Envoy shows instead of a secret."""
_SECRETS = frozenset({"password", "privateKey"})


def document_of(resource: XdsResource) -> Document:
    """What the bytes of a resource say: a proto-JSON document."""
    type_url, value = any_parts(resource.entry.body)
    document: Document = message_class(type_url).parse(value).to_dict(casing=json_name)
    return document


def shown(resources: Iterable[XdsResource]) -> dict[str, dict[str, Document]]:
    """Resources by type and name as documents without private keys; SDS secrets are left out."""
    found: dict[str, dict[str, Document]] = {}
    for resource in sorted(resources, key=lambda r: (r.type_url, r.name)):
        if resource.type_url != SECRET:
            found.setdefault(resource.type_url, {})[resource.name] = _redacted(document_of(resource))
    return found


def _redacted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: REDACTED if key in _SECRETS else _redacted(inner) for key, inner in value.items()}
    return [_redacted(inner) for inner in value] if isinstance(value, list) else value
