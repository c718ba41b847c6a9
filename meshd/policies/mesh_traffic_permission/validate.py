"""What the schema of a MeshTrafficPermission cannot say.

Source: Kuma ``pkg/plugins/policies/meshtrafficpermission/api/v1alpha1/validator.go`` (behaviour, not code).
"""

from typing import cast

from meshd.model.errors import Violation
from meshd.model.resource import Resource
from meshd.policies.mesh_traffic_permission.spec import From, MeshTrafficPermission, Rule
from meshd.rules import client_match, target_ref
from meshd.rules.target_ref import Kind

CLIENTS = (Kind.MESH, Kind.MESH_SUBSET, Kind.MESH_SERVICE, Kind.MESH_SERVICE_SUBSET)
PROXIES = (*CLIENTS, Kind.DATAPLANE)


def validate(resource: Resource) -> tuple[Violation, ...]:
    """Everything wrong with a policy whose schema is right, in the order of the document."""
    spec = cast("MeshTrafficPermission", resource.spec)
    found: list[Violation] = []
    if spec.target_ref is not None:
        inbound_policy = bool(spec.from_ or spec.rules)
        found += target_ref.violations(spec.target_ref, "spec.targetRef", PROXIES, inbound_policy=inbound_policy)
    if spec.from_ and spec.rules:
        found.append(Violation("spec", "field 'from' must be empty when 'rules' is defined"))
    if not spec.from_ and not spec.rules:
        found.append(Violation("spec", "at least one of 'from' or 'rules' has to be defined"))
    for index, item in enumerate(spec.from_ or ()):
        found += _from_violations(item, f"spec.from[{index}]")
    for index, rule in enumerate(spec.rules or ()):
        found += _rule_violations(rule, f"spec.rules[{index}]")
    return tuple(found)


def _from_violations(item: From, path: str) -> list[Violation]:
    found = target_ref.violations(item.target_ref, f"{path}.targetRef", CLIENTS)
    if item.default.action is None:
        found.append(Violation(f"{path}.default.action", "must be defined: Allow, Deny or AllowWithShadowDeny"))
    return found


def _rule_violations(rule: Rule, path: str) -> list[Violation]:
    conf = rule.default
    found = []
    if not (conf.deny or conf.allow or conf.allow_with_shadow_deny):
        message = "at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined"
        found.append(Violation(f"{path}.default", message))
    for field, matches in (
        ("allow", conf.allow),
        ("allowWithShadowDeny", conf.allow_with_shadow_deny),
        ("deny", conf.deny),
    ):
        for index, match in enumerate(matches or ()):
            place = f"{path}.default.{field}[{index}]"
            if match.spiffe_id is None and match.sni is None:
                # Kuma stores it and its proxies then match nobody by it; that is never what an author meant.
                found.append(Violation(place, "must have spiffeID or sni: an empty match is met by no client"))
            found += client_match.violations(match, place)
    return found
