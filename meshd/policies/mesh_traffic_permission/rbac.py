"""Who may connect, written down for Envoy's RBAC filters: the decision of ``permit.py``, made by an Envoy.

An Envoy asks of a client's certificate whether *any* URI SAN of it is equal to, or begins with, a text. That is what
Kuma's ``authenticated.principalName`` means, so a certificate may carry its services and its tags in any order. (The
newer way, a matcher over ``uri_san``, sees all SANs as one text with commas; with several in a certificate an exact
match then never holds. It is not used.)

Source: Kuma ``pkg/plugins/policies/meshtrafficpermission/xds`` (behaviour, not code); Envoy
``source/extensions/filters/common/rbac/matchers.cc``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

from meshd.model import labels as label
from meshd.model.resource import Resource
from meshd.policies.mesh_traffic_permission.permit import ByIdentity, ByTags, by_tags, of_policies
from meshd.policies.mesh_traffic_permission.spec import Action, FromConf, MeshTrafficPermission
from meshd.rules.client_match import ClientMatch, SpiffeIdMatchType
from meshd.rules.regions import Entry, Region, partition
from meshd.rules.target_ref import Kind
from meshd.xds.encode import PREFIX, Document
from meshd.xds.listeners import http_filter, network_filter
from meshd.xds.names import stat_name
from meshd.xds.shaping import InboundDraft, Shaper
from meshd.xds.shaping import http_filter as put_first

NETWORK_RBAC = PREFIX + "envoy.extensions.filters.network.rbac.v3.RBAC"
POLICY = "MeshTrafficPermission"
MAX_REGIONS = 1_000
"""Above this, ``from`` entries are written in the order in which they count, not as regions. See ``_in_order``."""

EVERYBODY: Document = {"any": True}
NOBODY: Document = {"notId": EVERYBODY}
_LETS_IN = (Action.ALLOW, Action.ALLOW_WITH_SHADOW_DENY)


@dataclass(frozen=True, slots=True)
class Rbac:
    """Principals that are let in, and those of them that are counted as if they were refused; none: nobody."""

    allow: tuple[Document, ...] = ()
    shadow: tuple[Document, ...] = ()

    @property
    def config(self) -> Document:
        """The fields that the network and the HTTP filter share."""
        found: Document = {"rules": _rules("ALLOW", self.allow)}
        if self.shadow:
            found["shadowRules"] = _rules("DENY", self.shadow)
        return found


class RbacShaper(Shaper):
    """Puts the permissions of an inbound, or of an external service at an egress, before everything else in it."""

    def idle(self, policy: Resource, *, has_mtls: bool) -> str:
        """See ``Shaper``. One that lets everybody in does what it says anywhere."""
        if has_mtls or _lets_everybody_in(cast("MeshTrafficPermission", policy.spec)):
            return ""
        return "has no effect: the mesh has no mTLS, so clients have no identity and everybody is let in"

    def inbound(self, draft: InboundDraft, matched: Sequence[Resource]) -> None:
        """See ``Shaper``. A client without a certificate has no identity: only chains of mesh mTLS are changed."""
        if not any(chain.is_mtls for chain in draft.chains):
            return
        # As in permit.py: what is said by rules is about inbounds of Dataplanes only.
        permit = by_tags(draft.mesh, matched) if draft.dataplane is None else of_policies(draft.mesh, matched)
        config = rbac_of(permit).config
        for chain in draft.chains:
            if not chain.is_mtls:
                continue
            if chain.hcm is not None:
                put_first(chain.hcm, http_filter("rbac", "rbac.v3.RBAC", config))
            else:
                # The dot is Kuma's: Envoy appends "rbac.allowed" without one.
                prefix = f"{stat_name(draft.listener['name'])}."
                chain.filters.insert(0, network_filter({"@type": NETWORK_RBAC, "statPrefix": prefix, **config}))


def rbac_of(permit: ByTags | ByIdentity) -> Rbac:
    """The decision of a permit as principals."""
    return _of_identity(permit) if isinstance(permit, ByIdentity) else _of_tags(permit)


def _of_tags(permit: ByTags) -> Rbac:
    listed = [entry for group in permit.groups for entry in group]
    try:
        rules = partition(listed, MAX_REGIONS)
    except ValueError:
        return _in_order(permit.mesh, listed)
    allow = [_region(permit.mesh, rule.region) for rule in rules if rule.conf.action is Action.ALLOW]
    shadow = [_region(permit.mesh, rule.region) for rule in rules if rule.conf.action is Action.ALLOW_WITH_SHADOW_DENY]
    return Rbac((*allow, *shadow), _but_not(shadow, allow))


def _in_order(mesh: str, listed: Sequence[Entry[FromConf]]) -> Rbac:
    """The last entry about a client counts: it is let in by one if none that refuses it comes later.

    For clients with one value of each tag that is what the regions say. One with several, which the regions let in if
    it would be as any of them, is refused here by any later entry that refuses one of them: never more is let in.
    """
    runs = [
        (action, [_all(_with(mesh, tag, value) for tag, value in sorted(e.tags.items())) for e in run])
        for action, run in groupby([e for e in listed if e.conf.action is not None], lambda e: e.conf.action)
    ]
    allow: list[Document] = []
    shadow: list[Document] = []
    refused: list[Document] = []
    decided: list[Document] = []
    for action, about in reversed(runs):
        if action in _LETS_IN:
            allow += _but_not(about, refused)
        if action is Action.ALLOW_WITH_SHADOW_DENY:
            shadow += _but_not(about, decided)
        else:
            decided += about
        if action is Action.DENY:
            refused += about
    return Rbac(tuple(allow), tuple(shadow))


def _of_identity(permit: ByIdentity) -> Rbac:
    deny = _conditions(permit.deny)
    shadow = _conditions(permit.shadow)
    allow = _conditions(permit.allow)
    return Rbac(_but_not([*allow, *shadow], deny), _but_not(shadow, deny))


def _conditions(pairs: Iterable[tuple[ClientMatch, str]]) -> list[Document]:
    return [principal for condition, _ in pairs if (principal := _condition(condition)) is not NOBODY]


def _condition(condition: ClientMatch) -> Document:
    """An SNI condition never holds here: those of mesh mTLS are no DNS names (see ``permit.NO_SNI``)."""
    wanted = condition.spiffe_id
    if wanted is None or condition.sni is not None:
        return NOBODY
    if wanted.value:
        return _uri({wanted.type.lower(): wanted.value})
    # Every URI begins with nothing and none is nothing; Envoy would compare it with the (empty) subject too.
    return {"authenticated": {}} if wanted.type is SpiffeIdMatchType.PREFIX else NOBODY


def _region(mesh: str, region: Region) -> Document:
    return _all(
        {"notId": _with(mesh, tag.key, tag.value)} if tag.negated else _with(mesh, tag.key, tag.value) for tag in region
    )


def _with(mesh: str, tag: str, value: str) -> Document:
    """Clients that prove a tag, as ``permit.tags_of`` reads it from their URIs."""
    if tag == label.SERVICE:
        return _uri({"exact": f"spiffe://{mesh}/{value}"})
    if not tag or "/" in value:
        return NOBODY
    return _uri({"exact": f"kuma://{tag}/{value}"})


def _uri(matcher: Document) -> Document:
    return {"authenticated": {"principalName": matcher}}


def _all(principals: Iterable[Document]) -> Document:
    return _joined("andIds", list(principals), EVERYBODY)


def _joined(how: str, principals: Sequence[Document], nothing: Document) -> Document:
    match principals:
        case []:
            return nothing
        case [one]:
            return one
        case _:
            return {how: {"ids": list(principals)}}


def _but_not(principals: Sequence[Document], excluded: Sequence[Document]) -> tuple[Document, ...]:
    """Principals for whom one of the first holds and none of the others."""
    if not principals or not excluded:
        return tuple(principals)
    return (_all([_joined("orIds", principals, NOBODY), {"notId": _joined("orIds", excluded, NOBODY)}]),)


def _lets_everybody_in(spec: MeshTrafficPermission) -> bool:
    entries = spec.from_ or ()
    everybody = any(e.target_ref.kind is Kind.MESH and not e.target_ref.tags for e in entries)
    return everybody and all(e.default.action is Action.ALLOW for e in entries)


def _rules(action: str, principals: Sequence[Document]) -> Document:
    """Without a policy ALLOW lets nobody in."""
    if not principals:
        return {"action": action}
    return {"action": action, "policies": {POLICY: {"permissions": [{"any": True}], "principals": list(principals)}}}
