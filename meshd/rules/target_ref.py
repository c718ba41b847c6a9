"""``targetRef``: what a policy, or an entry of one, is about; and what may be written in it."""

import enum
import re
from collections.abc import Collection, Mapping

from meshd.model import labels as label
from meshd.model.errors import Violation
from meshd.model.resource import Spec

_NAME = re.compile(r"[0-9a-z.\-_]*\Z")
_TAG_NAME = re.compile(r"[a-zA-Z0-9.\-_:/]*\Z")
_TAG_VALUE = re.compile(r"[a-zA-Z0-9.\-_:]*\Z")
ANY_VALUE = "*"
"""A tag value that asks only for the tag to be there (in selectors, not in subsets)."""


class Kind(enum.StrEnum):
    """What a ``targetRef`` may refer to."""

    MESH = "Mesh"
    DATAPLANE = "Dataplane"
    MESH_SUBSET = "MeshSubset"
    MESH_GATEWAY = "MeshGateway"
    MESH_SERVICE = "MeshService"
    MESH_EXTERNAL_SERVICE = "MeshExternalService"
    MESH_MULTI_ZONE_SERVICE = "MeshMultiZoneService"
    MESH_SERVICE_SUBSET = "MeshServiceSubset"
    MESH_HTTP_ROUTE = "MeshHTTPRoute"


SPECIFICITY: Mapping[Kind, int] = {kind: place for place, kind in enumerate(Kind, start=1)}
"""Which top-level kind beats which: a higher one wins. Dataplane below MeshSubset is Kuma's order, not a slip."""


class ProxyType(enum.StrEnum):
    """The proxies a Mesh or MeshSubset reference is limited to."""

    SIDECAR = "Sidecar"
    GATEWAY = "Gateway"


class TargetRef(Spec):
    """A reference. Which fields may be set depends on ``kind``: see ``violations``."""

    kind: Kind
    name: str | None = None
    tags: dict[str, str] | None = None
    mesh: str | None = None
    proxy_types: tuple[ProxyType, ...] | None = None
    namespace: str | None = None
    labels: dict[str, str] | None = None
    section_name: str | None = None


PROXIES = (Kind.MESH, Kind.DATAPLANE, Kind.MESH_SUBSET, Kind.MESH_SERVICE, Kind.MESH_SERVICE_SUBSET)
"""What a top-level reference of most policies may be about."""
ROUTED = (Kind.MESH_SERVICE, Kind.MESH_EXTERNAL_SERVICE, Kind.MESH_MULTI_ZONE_SERVICE)
"""What routes may be made to."""
WHOLE_MESH = TargetRef(kind=Kind.MESH)
"""What a policy without a top-level ``targetRef`` is about."""

_FORBIDDEN: Mapping[Kind, tuple[str, ...]] = {
    Kind.MESH: ("name", "mesh", "tags", "labels", "namespace", "section_name"),
    Kind.DATAPLANE: ("tags", "mesh", "proxy_types"),
    Kind.MESH_SUBSET: ("name", "mesh", "labels", "namespace", "section_name"),
    Kind.MESH_SERVICE: ("mesh", "tags", "proxy_types"),
    Kind.MESH_MULTI_ZONE_SERVICE: ("mesh", "tags", "proxy_types"),
    Kind.MESH_HTTP_ROUTE: ("mesh", "tags", "proxy_types", "section_name"),
    Kind.MESH_EXTERNAL_SERVICE: ("mesh", "tags", "proxy_types", "section_name"),
    Kind.MESH_SERVICE_SUBSET: ("mesh", "proxy_types", "labels", "namespace", "section_name"),
    Kind.MESH_GATEWAY: ("mesh", "proxy_types", "tags", "labels", "namespace", "section_name"),
}
_BY_NAME_OR_LABELS = (Kind.MESH_SERVICE, Kind.MESH_MULTI_ZONE_SERVICE, Kind.MESH_HTTP_ROUTE, Kind.MESH_EXTERNAL_SERVICE)


def violations(
    ref: TargetRef,
    path: str,
    supported: Collection[Kind],
    *,
    inbound_policy: bool = False,
    gateway_tags: bool = False,
) -> list[Violation]:
    """Everything wrong with a reference that stands at ``path``.

    ``supported`` are the kinds allowed there; ``inbound_policy`` says that the policy configures inbounds (has
    ``from`` or ``rules``), the only ones whose Dataplane reference may name a section. ``gateway_tags`` says that a
    MeshGateway reference may name listeners by their tags.

    Source: Kuma ``pkg/core/resources/apis/mesh/validators.go`` (ValidateTargetRef).
    """
    if ref.kind not in supported:
        allowed = ", ".join(kind for kind in Kind if kind in supported)
        return [Violation(f"{path}.kind", f"value '{ref.kind}' is not supported here, use one of {allowed}")]
    names_listeners = gateway_tags and ref.kind is Kind.MESH_GATEWAY
    found = [
        Violation(f"{path}.{_camel(field)}", f"must not be set with kind {ref.kind}")
        for field in _FORBIDDEN[ref.kind]
        if getattr(ref, field) and not (names_listeners and field == "tags")
    ]
    if ref.proxy_types is not None and not ref.proxy_types:
        found.append(Violation(f"{path}.proxyTypes", "must be undefined or have at least one element"))
    if ref.labels and (ref.name or ref.namespace) and ref.kind in (Kind.DATAPLANE, *_BY_NAME_OR_LABELS):
        found.append(Violation(f"{path}.labels", "either labels or name and namespace must be specified, not both"))
    if ref.kind is Kind.DATAPLANE and ref.section_name and not inbound_policy:
        found.append(Violation(f"{path}.sectionName", "can only be used with inbound policies"))
    if ref.kind in _BY_NAME_OR_LABELS and not ref.labels and not ref.name:
        found.append(Violation(path, f"name or labels must be set when kind is {ref.kind}"))
    if ref.kind in (Kind.MESH_SERVICE_SUBSET, Kind.MESH_GATEWAY) and not ref.name:
        found.append(Violation(f"{path}.name", f"must be set when kind is {ref.kind}"))
    if ref.kind not in (Kind.MESH, Kind.DATAPLANE, Kind.MESH_SUBSET) and ref.name and not _NAME.match(ref.name):
        message = f"'{ref.name}' must consist of lower case alphanumeric characters, '-', '.' and '_'"
        found.append(Violation(f"{path}.name", message))
    if ref.kind in (Kind.MESH_SUBSET, Kind.MESH_SERVICE_SUBSET) or names_listeners:
        found += tag_violations(ref.tags or {}, f"{path}.tags", wildcard=ref.kind is not Kind.MESH_SUBSET)
    return found


def is_system(labels: Mapping[str, str]) -> bool:
    """Whether a policy with these labels is made by an operator of the mesh: all are, but for some on Kubernetes."""
    return labels.get(label.POLICY_ROLE, "") in ("", "system")


def tag_violations(tags: Mapping[str, str], path: str, *, wildcard: bool) -> list[Violation]:
    """Everything wrong with a tag set; ``wildcard`` allows ``*`` as a value."""
    found = []
    for key, value in sorted(tags.items()):
        if not key:
            found.append(Violation(path, "tag name must be non-empty"))
        elif not _TAG_NAME.match(key):
            message = f"tag name '{key}' may have letters, digits, dots, dashes, slashes, colons and underscores"
            found.append(Violation(f'{path}["{key}"]', message))
        if not value:
            found.append(Violation(f'{path}["{key}"]', "tag value must be non-empty"))
        elif not _TAG_VALUE.match(value) and not (wildcard and value == ANY_VALUE):
            message = f"tag value '{value}' may have letters, digits, dots, dashes, colons and underscores"
            found.append(Violation(f'{path}["{key}"]', message))
    return found


def subset_of(ref: TargetRef) -> dict[str, str]:
    """The tags that a proxy must have to be in the group ``ref`` names; none for the whole mesh.

    Raises:
        ValueError: a kind that is no group of proxies by tags (Dataplane, MeshGateway, ...).
    """
    match ref.kind:
        case Kind.MESH:
            return {}
        case Kind.MESH_SUBSET:
            return dict(ref.tags or {})
        case Kind.MESH_SERVICE:
            return {label.SERVICE: ref.name or ""}
        case Kind.MESH_SERVICE_SUBSET:
            return {label.SERVICE: ref.name or "", **(ref.tags or {})}
        case _:
            raise ValueError(f"targetRef kind {ref.kind} cannot be written as tags")


def tags_match(selector: Mapping[str, str], tags: Mapping[str, str]) -> bool:
    """Whether ``tags`` has every tag of the selector; ``*`` asks only for the tag to be there."""
    return all(key in tags and value in (tags[key], ANY_VALUE) for key, value in selector.items())


def _camel(field: str) -> str:
    head, *rest = field.split("_")
    return head + "".join(part.capitalize() for part in rest)
