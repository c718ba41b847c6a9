"""Which policies are about a proxy, and which proxies a policy is about, as kumactl and the GUI ask for it. Pure.

Policies of kinds that have no effect here are listed apart, and are about no proxy: nothing would change if they went.
Source: reference/dataplane.md 6.5 ("Inspect"), recorded answers of Kuma 2.14.3.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from meshd.kinds.without_effect import EFFECTLESS
from meshd.kinds.without_effect import NO_EFFECT as NO_EFFECT_HERE
from meshd.model.codec import encode_document
from meshd.model.registry import Registry
from meshd.model.resource import Resource
from meshd.model.resource_type import ResourceType
from meshd.rules import match
from meshd.rules.explain import ROUTE, Explainer, Sections, conditions, no_rules

Stored = Callable[[str, str], Sequence[Resource]]
"""The resources of a kind and mesh."""
META = ("type", "mesh", "name", "creationTime", "modificationTime", "labels", "kri")
IDENTITY = ("type", "mesh", "name", "labels")
SIDECAR = "SidecarDataplane"
NO_EFFECT = {"type": "without effect", "name": "here"}
"""An attachment that kumactl prints as WITHOUT EFFECT here."""


def policies_of(registry: Registry, stored: Stored, dataplane: Resource) -> dict[str, Any]:
    """``/meshes/{m}/dataplanes/{n}/policies``: the policies about a Dataplane by kind, least specific first."""
    found: dict[str, list[Resource]] = {}
    for type_ in registry:
        if type_.is_policy:
            about = [p for p in stored(type_.kind, dataplane.key.mesh) if match.is_about(p, dataplane)]
            if about:
                found[type_.kind] = about if type_.flat else list(match.by_specificity(about))
    in_force = {kind: policies for kind, policies in found.items() if kind not in EFFECTLESS}
    idle = {kind: policies for kind, policies in found.items() if kind in EFFECTLESS}
    items = [
        {**attachment, "matchedPolicies": {kind: [meta(p, registry) for p in ps] for kind, ps in policies.items()}}
        for attachment, policies in (({"type": "dataplane"}, in_force), (NO_EFFECT, idle))
        if policies
    ]
    return {"kind": SIDECAR, "total": len(items), "items": items}


def rules_of(
    registry: Registry,
    explained: Sequence[tuple[ResourceType, Sections]],
    stored: Stored,
    mesh: Resource,
    resource: Resource,
) -> dict[str, Any]:
    """``/meshes/{m}/dataplanes/{n}/_rules``: what the policies about a Dataplane say, by kind.

    Of kinds without effect there is a warning for each policy. Of a builtin gateway (a Dataplane or a MeshGateway)
    there is nothing to say: there are none here.
    """
    answer: dict[str, Any] = {"httpMatches": [], "resource": identity(resource, registry), "rules": []}
    if resource.key.kind != "Dataplane":
        return answer
    routes = stored(ROUTE, resource.key.mesh)
    explainer = Explainer(mesh, resource, routes, lambda r: identity(r, registry))
    for type_, sections in explained:
        policies = stored(type_.kind, resource.key.mesh)
        rule = explainer.rule(type_.kind, sections, policies)
        if rule is not None:
            answer["rules"].append(rule)
            answer["httpMatches"] += conditions(sections, match.of_proxy(policies, resource))
    for type_ in registry:
        if type_.is_policy and not type_.flat and type_.kind in EFFECTLESS:
            about = [p for p in stored(type_.kind, resource.key.mesh) if match.is_about(p, resource)]
            if about:
                warnings = [f"{policy.display_name} {NO_EFFECT_HERE}" for policy in about]
                answer["rules"].append({"type": type_.kind, **no_rules(), "warnings": warnings})
    return answer


def proxies_of(type_: ResourceType, policy: Resource, dataplanes: Iterable[Resource]) -> list[Resource]:
    """The Dataplanes that a policy changes something for."""
    if type_.kind in EFFECTLESS:
        return []
    return [dataplane for dataplane in dataplanes if match.is_about(policy, dataplane)]


def attached(dataplane: Resource) -> dict[str, Any]:
    """An item of ``/meshes/{m}/{policies}/{n}/dataplanes``."""
    key = dataplane.key
    return {
        "kind": SIDECAR,
        "dataplane": {"mesh": key.mesh, "name": key.name},
        "attachments": [{"type": "dataplane"}],
    }


def identity(resource: Resource, registry: Registry) -> dict[str, Any]:
    """What a resource is, in the form of ``_resources/dataplanes`` and ``_rules``."""
    document = encode_document(resource, registry)
    return {"mesh": "", "labels": {}} | {name: document[name] for name in IDENTITY if name in document}


def meta(resource: Resource, registry: Registry) -> dict[str, Any]:
    """What a resource is, without what it says."""
    document = encode_document(resource, registry)
    return {name: document[name] for name in META if name in document}
