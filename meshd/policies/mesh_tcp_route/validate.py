"""What the schema of a MeshTCPRoute cannot say.

Source: Kuma ``pkg/plugins/policies/meshtcproute/api/v1alpha1/validator.go`` (behaviour, not code).
"""

from typing import cast

from meshd.model.errors import Violation
from meshd.model.resource import Resource
from meshd.policies.mesh_tcp_route.spec import MeshTCPRoute
from meshd.rules import target_ref
from meshd.rules.backend_ref import backend_violations
from meshd.rules.target_ref import PROXIES, ROUTED, WHOLE_MESH, Kind


def validate(resource: Resource) -> tuple[Violation, ...]:
    """Everything wrong with a policy whose schema is right, in the order of the document."""
    spec = cast("MeshTCPRoute", resource.spec)
    top = (spec.target_ref or WHOLE_MESH).kind
    found: list[Violation] = []
    if spec.target_ref is not None:
        more = (Kind.MESH_GATEWAY,) if target_ref.is_system(resource.labels) else ()
        found += target_ref.violations(spec.target_ref, "spec.targetRef", (*PROXIES, *more), gateway_tags=True)
    if spec.to is not None and not spec.to:
        found.append(Violation("spec.to", "must have at least one item, or be left out"))
    for index, item in enumerate(spec.to or ()):
        path = f"spec.to[{index}]"
        kinds = (Kind.MESH,) if top is Kind.MESH_GATEWAY else ROUTED
        found += target_ref.violations(item.target_ref, f"{path}.targetRef", kinds)
        if len(item.rules) > 1:
            found.append(Violation(f"{path}.rules", f"must have at most one item, not {len(item.rules)}"))
        for number, rule in enumerate(item.rules):
            place = f"{path}.rules[{number}].default.backendRefs"
            if not rule.default.backend_refs:
                found.append(Violation(place, "must be set"))
            for ref_number, ref in enumerate(rule.default.backend_refs or ()):
                found += backend_violations(ref, f"{place}[{ref_number}]")
    return tuple(found)
