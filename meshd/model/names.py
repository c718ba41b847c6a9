"""What names, meshes and labels may look like.

Source: Kuma ``pkg/core/resources/apis/mesh/meta_validator.go`` and ``pkg/core/managers/apis/mesh`` (rules, not texts).
"""

import re
from collections.abc import Iterator, Mapping

from meshd.model import labels as label
from meshd.model.errors import Violation
from meshd.model.resource_type import ResourceType, Scope

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MESH = re.compile(r"[0-9a-z\-_.]+")
MAX_NAME = 253
MAX_MESH_NAME = 63
"""Of a mesh, and of a zone: both are part of host names and of identities."""
MAX_LABEL_KEY = 317
"""A DNS name of 253, a slash and 63, as Kubernetes has it."""
MAX_LABEL_VALUE = 63
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def name_violations(name: str, field: str = "name", limit: int = MAX_NAME) -> Iterator[Violation]:
    """What is wrong with the name of a resource."""
    if not name:
        yield Violation(field, "cannot be empty")
    elif len(name) > limit:
        yield Violation(field, f"has {len(name)} characters, at most {limit} are allowed")
    elif not _NAME.fullmatch(name):
        yield Violation(
            field,
            f'"{name}" is no name: use lower case letters, digits, "-" and ".", with a letter or digit at both ends '
            'and on both sides of every "."',
        )


def zone_name_violations(name: str, field: str = "name") -> Iterator[Violation]:
    """What is wrong with the name of a zone: it becomes part of resource names and SNIs, so it is one DNS label."""
    if not _LABEL.fullmatch(name):
        yield Violation(
            field,
            "must be a DNS label (lower case letters, digits and '-', at most 63, beginning and ending with a letter"
            f" or digit), not {name!r}",
        )


def mesh_violations(mesh: str) -> Iterator[Violation]:
    """What is wrong with the ``mesh`` of a resource; older meshes may have a "_" in their name."""
    if not mesh:
        yield Violation("mesh", "cannot be empty")
    elif len(mesh) > MAX_MESH_NAME:
        yield Violation("mesh", f"has {len(mesh)} characters, at most {MAX_MESH_NAME} are allowed")
    elif not _MESH.fullmatch(mesh):
        yield Violation("mesh", f'"{mesh}" is no mesh name: use lower case letters, digits, "-", "_" and "."')


def key_violations(type_: ResourceType, mesh: str, name: str) -> Iterator[Violation]:
    """What is wrong with the name and mesh of a resource of this kind."""
    yield from name_violations(name, limit=MAX_MESH_NAME if type_.kind in ("Mesh", "Zone") else MAX_NAME)
    if type_.scope is Scope.MESH:
        yield from mesh_violations(mesh)
    elif mesh:
        yield Violation("mesh", f"a {type_.kind} belongs to no mesh; remove the field")


def label_violations(labels: Mapping[str, str], mesh: str) -> Iterator[Violation]:
    """What is wrong with labels: their shape, an unknown origin, and a mesh label that says another mesh."""
    for key, value in labels.items():
        field = f'labels["{key}"]'
        prefix, slash, name = key.rpartition("/")
        if len(key) > MAX_LABEL_KEY or not _LABEL_NAME.fullmatch(name) or (slash and not _NAME.fullmatch(prefix)):
            yield Violation(field, f'"{key}" is no label name: write it as "team" or "example.com/team"')
        if len(value) > MAX_LABEL_VALUE and key not in (label.DISPLAY_NAME, label.WORKLOAD):
            yield Violation(field, f"has {len(value)} characters, at most {MAX_LABEL_VALUE} are allowed")
        elif value and not _LABEL_NAME.fullmatch(value):
            # Half a character, as JSON can have it, could not be written anywhere.
            shown = value.encode(errors="backslashreplace").decode()
            yield Violation(field, f'"{shown}" is no label value: use letters, digits, "-", "_" and "."')
    origin = labels.get(label.ORIGIN)
    if origin is not None and origin not in (label.ORIGIN_GLOBAL, label.ORIGIN_ZONE):
        yield Violation(f'labels["{label.ORIGIN}"]', f'must be "global" or "zone", not "{origin}"')
    said = labels.get(label.MESH)
    if said is not None and mesh and said != mesh:
        yield Violation(f'labels["{label.MESH}"]', f'must be "{mesh}", the mesh of the resource, not "{said}"')
