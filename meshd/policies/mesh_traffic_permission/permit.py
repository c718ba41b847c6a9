"""Who may connect: the policies of one inbound as a decision over the URI SANs of a client.

Source: Kuma ``pkg/plugins/policies/meshtrafficpermission/{plugin,xds}`` (behaviour, not code):

- if any policy of the inbound has ``rules``, only ``rules`` count: a client that any ``deny`` matches is refused,
  otherwise one that any ``allow`` or ``allowWithShadowDeny`` matches is let in, everybody else is refused;
- otherwise ``from`` counts: each client gets the action merged from all entries about it. A tag condition is about
  the URI ``kuma://<tag>/<value>``, the service about ``spiffe://<mesh>/<service>``. A client with several services
  is let in if it would be as any of them (RBAC allows what any principal allows);
- no policy at all refuses everybody, as long as the mesh has mTLS;
- at an egress only ``from`` of policies with a top level by tags counts.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from meshd.kinds.dataplane import Dataplane
from meshd.kinds.mesh import Mesh
from meshd.l4.table import Permit, Verdict
from meshd.model import labels as label
from meshd.model.resource import Resource, Spec
from meshd.policies.mesh_traffic_permission.spec import Action, FromConf, MeshTrafficPermission, RuleConf
from meshd.rules import match
from meshd.rules.client_match import ClientMatch
from meshd.rules.inbound import Item
from meshd.rules.regions import Group, Rule, confs_of_client, connected, entries
from meshd.rules.target_ref import TargetRef
from meshd.topology.view import MeshView

KIND = "MeshTrafficPermission"
NO_SNI = ""
"""The SNIs of mesh mTLS are no DNS names, so no condition has one of them."""
NO_RULE = "default"
"""Named as the rule when no policy says anything about the client."""
NO_MTLS = "mtls-disabled"
"""Named as the rule in a mesh without mTLS: there clients have no identity and permissions no effect."""


@dataclass(frozen=True, slots=True)
class AllowAll:
    """Lets everybody in."""

    rule: str

    def decide(self, uris: Sequence[str]) -> Verdict:
        """See ``Permit``."""
        del uris
        return Verdict(allowed=True, rule=self.rule)


@dataclass(frozen=True, slots=True)
class ByTags:
    """The ``from`` way: ``groups`` of entries, least specific first."""

    mesh: str
    groups: tuple[Group[FromConf], ...]

    def decide(self, uris: Sequence[str]) -> Verdict:
        """See ``Permit``; of the ways in, one without a shadow denial is preferred."""
        refused: Verdict | None = None
        shadowed: Verdict | None = None
        for rule in confs_of_client(self.groups, tags_of(uris, self.mesh)):
            named = deciding(rule)
            match rule.conf.action:
                case Action.ALLOW:
                    return Verdict(allowed=True, rule=named)
                case Action.ALLOW_WITH_SHADOW_DENY:
                    shadowed = shadowed or Verdict(allowed=True, rule=named, shadow_denied=True)
                case _:
                    refused = refused or Verdict(allowed=False, rule=named)
        return shadowed or refused or Verdict(allowed=False, rule=NO_RULE)


@dataclass(frozen=True, slots=True)
class ByIdentity:
    """The ``rules`` way: (condition, policy) pairs of all policies, most specific policy first."""

    deny: tuple[tuple[ClientMatch, str], ...]
    shadow: tuple[tuple[ClientMatch, str], ...]
    allow: tuple[tuple[ClientMatch, str], ...]

    def decide(self, uris: Sequence[str]) -> Verdict:
        """See ``Permit``."""
        for condition, policy in self.deny:
            if condition.holds(uris, NO_SNI):
                return Verdict(allowed=False, rule=policy)
        shadow = next((policy for condition, policy in self.shadow if condition.holds(uris, NO_SNI)), None)
        allow = next((policy for condition, policy in self.allow if condition.holds(uris, NO_SNI)), None)
        if shadow is not None:
            return Verdict(allowed=True, rule=shadow, shadow_denied=True)
        if allow is not None:
            return Verdict(allowed=True, rule=allow)
        return Verdict(allowed=False, rule=NO_RULE)


@dataclass(frozen=True, slots=True)
class Every:
    """Lets in whom all of several permits let in."""

    permits: tuple[Permit, ...]

    def decide(self, uris: Sequence[str]) -> Verdict:
        """See ``Permit``."""
        verdicts = [permit.decide(uris) for permit in self.permits]
        refused = next((v for v in verdicts if not v.allowed), None)
        return refused or next((v for v in verdicts if v.shadow_denied), verdicts[0])


def permit_for(
    view: MeshView, dataplane: Resource | None, inbound_tags: Mapping[str, str], section: str = ""
) -> Permit:
    """The permit of one inbound of ``dataplane``, or of an external service at an egress if that is None.

    ``section`` is the inbound's name or, if it has none, its port; without it an inbound is found by its tags, and
    where several have the same, a client must be let in by the policies of each.
    """
    if cast("Mesh", view.mesh.spec).enabled_backend() is None:
        return AllowAll(NO_MTLS)
    policies = view.policies.get(KIND, ())
    if dataplane is None:
        return by_tags(view.mesh_name, match.of_tags(policies, inbound_tags))
    inbounds = [
        inbound
        for inbound in cast("Dataplane", dataplane.spec).networking.inbound
        if dict(inbound.tags) == dict(inbound_tags) and section in ("", inbound.name, str(inbound.port))
    ]
    permits = [of_policies(view.mesh_name, match.of_inbound(policies, dataplane, inbound)) for inbound in inbounds]
    if not permits:
        # The view is newer than the caller's inbound; the caller renders again at once, until then nobody is let in.
        return ByTags(view.mesh_name, ())
    return permits[0] if all(permit == permits[0] for permit in permits) else Every(tuple(permits))


def tags_of(uris: Sequence[str], mesh: str) -> dict[str, Collection[str]]:
    """The tags a client proves with its URIs: its services in ``mesh``, and its other tags; a tag may have several."""
    tags: dict[str, set[str]] = {}
    services = f"spiffe://{mesh}/"
    for uri in uris:
        if uri.startswith(services):
            tags.setdefault(label.SERVICE, set()).add(uri.removeprefix(services))
        elif uri.startswith("kuma://"):
            # Tag names have slashes (kuma.io/zone), values have none.
            key, _, value = uri.removeprefix("kuma://").rpartition("/")
            if key and key != label.SERVICE:
                tags.setdefault(key, set()).add(value)
    return dict(tags)


def deciding(rule: Rule[FromConf]) -> str:
    """The policy whose entry had the last word."""
    return rule.origins[-1].policy


def of_policies(mesh: str, policies: Sequence[Resource]) -> ByTags | ByIdentity:
    """The permit of an inbound from the policies that match it, least specific first."""
    specs = [(policy.display_name, cast("MeshTrafficPermission", policy.spec)) for policy in reversed(policies)]
    if not any(spec.rules for _, spec in specs):
        return by_tags(mesh, policies)
    confs = [(name, rule.default) for name, spec in specs for rule in spec.rules or ()]
    return ByIdentity(
        deny=tuple((m, name) for name, conf in confs for m in conf.deny or ()),
        shadow=tuple((m, name) for name, conf in confs for m in conf.allow_with_shadow_deny or ()),
        allow=tuple((m, name) for name, conf in confs for m in conf.allow or ()),
    )


def by_tags(mesh: str, policies: Sequence[Resource]) -> ByTags:
    """The permit that ``from`` alone gives."""
    return ByTags(mesh, connected(entries(policies, from_items)))


def from_items(spec: Spec) -> list[tuple[TargetRef, FromConf]]:
    """The entries of ``from``."""
    return [(item.target_ref, item.default) for item in cast("MeshTrafficPermission", spec).from_ or ()]


def inbound_items(spec: Spec) -> list[Item[RuleConf]]:
    """The entries of ``rules``, whose conditions are in their confs."""
    return [((), rule.default) for rule in cast("MeshTrafficPermission", spec).rules or ()]
