"""Which Dataplanes a Mesh lets in: its ``constraints.dataplaneProxy``.

Source: reference/dataplane.md 2.5; Kuma ``pkg/core/managers/apis/dataplane/membership_validator.go`` (behaviour).
"""

from collections.abc import Iterable, Mapping

from meshd.kinds.dataplane import Dataplane
from meshd.kinds.mesh import Mesh
from meshd.model.errors import Violation

ANY = "*"


def membership_violations(dataplane: Dataplane, mesh_name: str, mesh: Mesh) -> Iterable[Violation]:
    """Why a Dataplane may not be in a mesh: every set of its tags must be required and none restricted."""
    constraints = mesh.constraints.dataplane_proxy
    for field, tags in _tag_sets(dataplane):
        why = ""
        if constraints.requirements and not any(matches(rule.tags, tags) for rule in constraints.requirements):
            why = "none of the mesh's requirements has them"
        for rule in constraints.restrictions:
            if matches(rule.tags, tags):
                why = f"the mesh restricts {_shown(rule.tags)}"
        if why:
            yield Violation(field, f"cannot be a member of mesh '{mesh_name}' with tags {_shown(tags)}: {why}")


def matches(rule: Mapping[str, str], tags: Mapping[str, str]) -> bool:
    """Whether the tags have all that a rule names; its value "*" stands for any that is not empty."""
    return all(tags.get(tag, "") == value or (value == ANY and tags.get(tag, "")) for tag, value in rule.items())


def _tag_sets(dataplane: Dataplane) -> Iterable[tuple[str, Mapping[str, str]]]:
    networking = dataplane.networking
    if networking.gateway is not None:
        yield "networking.gateway", networking.gateway.tags
    for at, inbound in enumerate(networking.inbound):
        yield f"networking.inbound[{at}]", inbound.tags


def _shown(tags: Mapping[str, str]) -> str:
    return " ".join(f"{tag}={tags[tag]}" for tag in sorted(tags)) or "(none)"
