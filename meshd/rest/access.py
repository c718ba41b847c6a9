"""Who may write what where: one pure table. Source: reference/dataplane.md 6.2, design section 6 ("KDS at the border").

================  =======================================  ===========================================================
control plane     may be written                           refused (405 unless said otherwise)
================  =======================================  ===========================================================
any               what is not computed                     insights; everything with ``apiServer.readOnly``
any               what no file owns                        a proxy of the configuration file (409)
standalone zone   everything                               -
federated zone    Dataplane, zone proxies, Zone, secrets   Mesh, ExternalService, policies: make them on the global
 .. with allowZonePolicies: also policies                  without the label ``kuma.io/origin: zone`` (400)
federated zone    what the zone made                       what came from the global or from another zone (400)
zone              -                                        deleting its own Zone (400)
global            everything that zones do not make        Dataplane, ZoneIngress, ZoneEgress, and what a zone sent
================  =======================================  ===========================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass

from meshd.ca.access import User
from meshd.model import labels as label
from meshd.model.errors import ConflictError, InvalidError, MeshdError, Violation
from meshd.model.resource import Resource, ResourceKey
from meshd.model.resource_type import Flow, ResourceType
from meshd.rest.errors import RequestError, not_allowed


@dataclass(frozen=True, slots=True)
class Role:
    """What this control plane is, as far as writing goes. ``zone`` is empty on a global."""

    is_global: bool
    is_federated: bool
    zone: str = ""
    read_only: bool = False
    allow_zone_policies: bool = False


def check_user(user: User, type_: ResourceType) -> None:
    """Refuse what only administrators may read or write.

    Raises:
        RequestError: 403.
    """
    if type_.admin_only and not user.is_admin:
        raise denied(user, f'cannot access the resource of type "{type_.kind}"')


def denied(user: User, what: str) -> RequestError:
    """403: says who, and what not."""
    return RequestError(403, "Access Denied", f'user "{user.name}/{",".join(user.groups)}" {what}')


def refusal(type_: ResourceType, role: Role, leaving: Resource | None = None) -> MeshdError | None:
    """Why no resource of this kind may be written here, or None. ``leaving`` is the one to delete, if that is the wish.

    A policy that the zone made before it had a global, or before policies were forbidden here, may always go.
    """
    if role.read_only:
        return not_allowed("apiServer.readOnly is true: this control plane takes no changes over its API")
    if type_.read_only:
        return not_allowed(f"{type_.kind} is computed by the control planes and cannot be written")
    if role.is_global and not made_on_global(type_):
        return not_allowed(
            f"{type_.kind} belongs to a zone: on the global it can only be read; write it at the control plane of its"
            " zone"
        )
    if role.is_federated:
        is_leftover = leaving is not None and leaving.labels.get(label.ORIGIN) == label.ORIGIN_ZONE
        if Flow.ZONE_LOCAL not in type_.flow:
            return not_allowed(f"{type_.kind} comes from the global in a federated zone; write it on the global")
        if type_.is_policy and not role.allow_zone_policies and not is_leftover:
            return not_allowed(
                f"{type_.kind} is a policy: in a federated zone it comes from the global only; write it on the global,"
                " or set multizone.zone.allowZonePolicies"
            )
    return None


def made_on_global(type_: ResourceType) -> bool:
    """Whether a global makes resources of this kind: zones do not send them, or the global sends some too."""
    return Flow.ZONE_TO_GLOBAL not in type_.flow or Flow.GLOBAL_TO_ZONE in type_.flow


def check_stored(stored: Resource, role: Role, verb: str = "change") -> None:
    """Refuse to change or ``delete`` (the ``verb``) what somebody else owns.

    Raises:
        ConflictError: the configuration file owns it.
        InvalidError: it came from the global, or from a zone, or is the zone itself.
    """
    if stored.labels.get(label.MANAGED_BY_FILE) == "true":
        raise ConflictError(
            f"{stored.key} belongs to the configuration file of this control plane: change it there and restart"
        )
    if verb == "delete" and stored.key == ResourceKey("Zone", "", role.zone):
        violation = Violation("zone", f'zone "{role.zone}" is the one of this control plane, and stays')
        raise InvalidError(str(stored.key), [violation])
    origin, zone = stored.labels.get(label.ORIGIN), stored.labels.get(label.ZONE, "")
    wanted, because = "", ""
    if role.is_federated and origin == label.ORIGIN_GLOBAL:
        wanted, because = label.ORIGIN_ZONE, f"it came from the global; {verb} it there"
    elif role.zone and zone not in ("", role.zone):
        # ingresses of other zones, forwarded by the global: they carry origin "zone" here too
        violation = Violation(at(label.ZONE), f"must be '{role.zone}': it belongs to zone '{zone}'; {verb} it there")
        raise InvalidError(str(stored.key), [violation])
    elif role.is_global and origin == label.ORIGIN_ZONE:
        wanted, because = label.ORIGIN_GLOBAL, f"it came from zone '{zone}'; {verb} it there"
    if because:
        is_change = verb == "change"  # which label it must have is of no use to who wants to delete it
        found = origin_violation(wanted, because) if is_change else Violation(at(label.ORIGIN), because)
        raise InvalidError(str(stored.key), [found])


def label_violations(
    type_: ResourceType, labels: Mapping[str, str], stored: Resource | None, role: Role
) -> list[Violation]:
    """What is wrong with the labels of a resource that somebody wants to write here."""
    found = []
    origin = labels.get(label.ORIGIN)
    if role.is_global and origin not in (None, label.ORIGIN_GLOBAL):
        found.append(origin_violation(label.ORIGIN_GLOBAL))
    if role.is_federated and type_.is_policy and origin != label.ORIGIN_ZONE:
        found.append(origin_violation(label.ORIGIN_ZONE))
    if is_of_zone(type_, role) and origin not in (None, label.ORIGIN_ZONE):
        # taken for a copy of the global's it would stay here, and nobody could change it any more
        found.append(origin_violation(label.ORIGIN_ZONE))
    zone = labels.get(label.ZONE)
    if role.zone and zone not in (None, role.zone):
        found.append(Violation(at(label.ZONE), f"must be '{role.zone}', the zone of this control plane, not '{zone}'"))
    if label.MANAGED_BY_FILE in labels:
        found.append(Violation(at(label.MANAGED_BY_FILE), "is reserved for proxies of the configuration file"))
    for name in (label.ORIGIN, label.ZONE, label.DISPLAY_NAME):
        before = stored.labels.get(name) if stored is not None else None
        if before is not None and name in labels and labels[name] != before:
            message = f"is immutable, cannot be changed from '{before}' to '{labels[name]}'"
            found.append(Violation(at(name), message))
    return found


def is_of_zone(type_: ResourceType, role: Role) -> bool:
    """Whether what is written here of this kind is the zone's own: everything that zones make but policies."""
    return not role.is_global and not type_.is_policy and Flow.ZONE_LOCAL in type_.flow


def origin_violation(wanted: str, because: str = "") -> Violation:
    """The origin label is not what it must be here."""
    reason = f": {because}" if because else ""
    return Violation(at(label.ORIGIN), f"the origin label must be set to '{wanted}'{reason}")


def at(name: str) -> str:
    """The field of a label."""
    return f'labels["{name}"]'
