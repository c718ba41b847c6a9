"""Which policies apply to an inbound or a proxy, in which order.

Source: Kuma ``pkg/plugins/policies/core/matchers/dataplane.go`` (behaviour, not code). Two departures, both where
Kuma's answer surprises: a policy from the global that names a Dataplane selects it in whatever zone it is (Kuma's
never matches in a federated zone, and a federated zone accepts no other), and the order of Dataplane references is
total (name, then labels, then all; within each, with a section beats without).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, cast

from meshd.kinds.dataplane import Dataplane, Inbound
from meshd.kinds.without_effect import IDLE_POLICIES
from meshd.model import labels as label
from meshd.model.resource import Resource
from meshd.rules.target_ref import (
    SPECIFICITY,
    WHOLE_MESH,
    Kind,
    ProxyType,
    TargetRef,
    subset_of,
    tags_match,
)

SHADOW = "shadow"
_ORIGIN_ORDER: Mapping[str, int] = {label.ORIGIN_GLOBAL: 1, "": 2, label.ORIGIN_ZONE: 3}
_ROLE_ORDER: Mapping[str, int] = {"system": 1, "producer": 2, "consumer": 3, "workload-owner": 4}
_SELECTORS = ("sources", "destinations", "selectors")
"""What old policies have, for each of which tags say what it is about."""
_BY_TAGS = (Kind.MESH, Kind.MESH_SUBSET, Kind.MESH_SERVICE, Kind.MESH_SERVICE_SUBSET)


class PolicySpec(Protocol):
    """What every policy's spec has."""

    @property
    def target_ref(self) -> TargetRef | None:
        """The proxies it is about; None is the whole mesh."""


def top_level(policy: Resource) -> TargetRef:
    """The policy's ``targetRef``, the whole mesh if it has none."""
    return cast("PolicySpec", policy.spec).target_ref or WHOLE_MESH


def of_inbound(policies: Iterable[Resource], dataplane: Resource, inbound: Inbound) -> tuple[Resource, ...]:
    """The policies that apply to one inbound of a Dataplane, least specific first; shadowed ones do not apply."""
    return by_specificity(p for p in policies if not is_shadow(p) and selects_inbound(p, dataplane, inbound))


def of_proxy(policies: Iterable[Resource], dataplane: Resource) -> tuple[Resource, ...]:
    """The policies that apply to a proxy as a whole (``to`` policies, for one), least specific first."""
    return by_specificity(p for p in policies if not is_shadow(p) and selects_proxy(p, dataplane))


def of_tags(policies: Iterable[Resource], tags: Mapping[str, str]) -> tuple[Resource, ...]:
    """The policies about a service that has no Dataplane (an external one, at the egress), least specific first.

    Only references by tags can be about it.
    """
    return by_specificity(
        p
        for p in policies
        if not is_shadow(p) and top_level(p).kind in _BY_TAGS and tags_match(subset_of(top_level(p)), tags)
    )


def is_shadow(policy: Resource) -> bool:
    """Whether the policy is there only to see what it would do."""
    return policy.labels.get(label.EFFECT) == SHADOW


def selects_inbound(policy: Resource, dataplane: Resource, inbound: Inbound) -> bool:
    """Whether the policy's top level is about this inbound of this Dataplane."""
    ref = top_level(policy)
    if not _reaches(policy, dataplane):
        return False
    if ref.kind is Kind.DATAPLANE:
        section = inbound.name or str(inbound.port)
        return names(ref, policy, dataplane) and ref.section_name in (None, "", section)
    return _by_tags(ref, dataplane, inbound.tags)


def selects_proxy(policy: Resource, dataplane: Resource) -> bool:
    """Whether the policy's top level is about any inbound of the Dataplane, or about the delegated gateway it is.

    A policy about a route is about every proxy: it is the route that selects them (see ``rules.outbound``).
    """
    if top_level(policy).kind is Kind.MESH_HTTP_ROUTE:
        return _reaches(policy, dataplane)
    networking = cast("Dataplane", dataplane.spec).networking
    if any(selects_inbound(policy, dataplane, inbound) for inbound in networking.inbound or ()):
        return True
    if networking.gateway is None or networking.gateway.type != "DELEGATED":
        return False
    ref = top_level(policy)
    if ref.kind is Kind.DATAPLANE:
        return _reaches(policy, dataplane) and names(ref, policy, dataplane)
    return _reaches(policy, dataplane) and _by_tags(ref, dataplane, networking.gateway.tags or {})


def is_about(policy: Resource, dataplane: Resource) -> bool:
    """Whether a policy is about a Dataplane or one of its inbounds; an old one (of tags) by any of its selectors."""
    if is_shadow(policy):
        return False
    lists = [getattr(policy.spec, name) for name in _SELECTORS if hasattr(policy.spec, name)]
    if not lists:
        return selects_proxy(policy, dataplane)
    networking = cast("Dataplane", dataplane.spec).networking
    tags = [networking.gateway.tags] if networking.gateway else [i.tags for i in networking.inbound]
    return any(tags_match(s.match, t) for selectors in lists for s in selectors for t in tags)


def without_effect(policies: Callable[[str], Iterable[Resource]], dataplane: Resource) -> Iterator[Resource]:
    """The policies about a Dataplane of kinds that nothing here acts upon; ``policies`` gives those of a kind."""
    return (p for kind in IDLE_POLICIES for p in policies(kind) if is_about(p, dataplane))


def by_specificity(policies: Iterable[Resource]) -> tuple[Resource, ...]:
    """The policies from the least to the most specific: in a merge the last one wins.

    By kind of the top-level reference, form of a Dataplane reference, origin (zone beats global), tags of a gateway
    reference, role, and last the display name: the lexicographically smaller one wins.
    """
    by_name = sorted(policies, key=lambda p: (p.display_name, p.key), reverse=True)
    return tuple(sorted(by_name, key=rank))


def rank(policy: Resource) -> tuple[int, ...]:
    """How specific a policy is, but for its name: it comes after all that have less."""
    ref = top_level(policy)
    is_dataplane = ref.kind is Kind.DATAPLANE
    return (
        SPECIFICITY[ref.kind],
        (2 if ref.name else 1 if ref.labels else 0) if is_dataplane else 0,
        int(is_dataplane and bool(ref.section_name)),
        _ORIGIN_ORDER.get(policy.labels.get(label.ORIGIN, ""), 0),
        len(ref.tags or {}) if ref.kind is Kind.MESH_GATEWAY else 0,
        _ROLE_ORDER.get(policy.labels.get(label.POLICY_ROLE) or "system", 0),
    )


def _by_tags(ref: TargetRef, dataplane: Resource, tags: Mapping[str, str]) -> bool:
    # MeshGateway selects built-in gateways only, which have no inbounds; the kinds of routes and services that are
    # resources of their own select no inbound by tags.
    if ref.kind not in _BY_TAGS:
        return False
    if ref.proxy_types:
        is_gateway = cast("Dataplane", dataplane.spec).networking.gateway is not None
        if (ProxyType.GATEWAY if is_gateway else ProxyType.SIDECAR) not in ref.proxy_types:
            return False
    return tags_match(subset_of(ref), tags)


def names(ref: TargetRef, policy: Resource, resource: Resource) -> bool:
    """Whether a reference in ``policy`` to resources of the kind of ``resource`` (a Dataplane, a route) means it."""
    if ref.labels:
        return all(resource.labels.get(key) == value for key, value in ref.labels.items())
    if not ref.name:
        return not ref.namespace or ref.namespace == resource.labels.get(label.NAMESPACE, "")
    namespace = ref.namespace or policy.labels.get(label.NAMESPACE, "")
    zone = policy.labels.get(label.ZONE)
    return (
        ref.name == resource.display_name
        and namespace == resource.labels.get(label.NAMESPACE, "")
        and zone in (None, resource.labels.get(label.ZONE, zone))
    )


def _reaches(policy: Resource, dataplane: Resource) -> bool:
    """Whether a policy made in a zone or namespace may be about a Dataplane: a producer's may be about any."""
    role = policy.labels.get(label.POLICY_ROLE)
    if role in ("consumer", "workload-owner"):
        namespace = policy.labels.get(label.NAMESPACE)
        if namespace is None or namespace != dataplane.labels.get(label.NAMESPACE, ""):
            return False
    if role == "producer" or policy.labels.get(label.ORIGIN) != label.ORIGIN_ZONE:
        return True
    zone = policy.labels.get(label.ZONE)
    if zone is None or dataplane.labels.get(label.ORIGIN) != label.ORIGIN_ZONE:
        return True
    return dataplane.labels.get(label.ZONE, zone) == zone
