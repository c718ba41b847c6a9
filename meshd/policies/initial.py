"""The policies that a new Mesh begins with. They are ordinary ones: whoever changes or deletes one has the last word.

Made in the write that creates the Mesh and never again, by the control plane that creates it: the global or a
standalone zone.

Source: Kuma ``pkg/defaults/mesh/mesh.go`` (behaviour, not code).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from meshd.kinds.defaults import on_write
from meshd.kinds.mesh import Mesh
from meshd.model.resource import Resource
from meshd.policies import Policy

ALL = "*"
"""In ``skipCreatingInitialPolicies``: none at all."""


def initial_policies(policies: Sequence[Policy], mesh: Resource, zone: str) -> tuple[Resource, ...]:
    """What is to be created together with ``mesh`` in ``zone`` ("" for the global), labelled and owned by the Mesh."""
    skipped = cast("Mesh", mesh.spec).skip_creating_initial_policies
    if ALL in skipped:
        return ()
    return tuple(
        on_write(replace(made, owner=mesh.key), policy.type, zone=zone)
        for policy in policies
        if policy.type.kind not in skipped
        for made in policy.initial(mesh.key.name)
    )
