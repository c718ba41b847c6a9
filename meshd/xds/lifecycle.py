"""What becomes of a proxy's resource when the proxy comes and goes. Pure.

Source: reference/dataplane.md 2.5, 2.6.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

from meshd.kinds.dataplane import Dataplane
from meshd.kinds.defaults import on_write
from meshd.kinds.membership import membership_violations
from meshd.kinds.mesh import Mesh
from meshd.kinds.proxy_insights import DataplaneInsight, ZoneEgressInsight, ZoneIngressInsight
from meshd.kinds.rules import service_case_conflicts
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model import labels as label
from meshd.model.errors import ConflictError, InvalidError, NotFoundError
from meshd.model.resource import Resource
from meshd.model.resource_type import ResourceType

COMPUTED = frozenset({label.MESH, label.ORIGIN, label.ZONE, label.ENV, label.DISPLAY_NAME, label.KDS_SYNC})
"""Labels that say where a resource is from; a proxy's word on them is not taken."""


def check_owner(stored: Resource, zone: str, *, replaced: bool) -> None:
    """Refuse a proxy that would be the resource of somebody else.

    Raises:
        ConflictError: it is a copy of another zone's, or it is to be ``replaced`` and the configuration file's.
    """
    labels = stored.labels
    if labels.get(label.ZONE, zone) != zone or labels.get(label.ORIGIN) == label.ORIGIN_GLOBAL:
        raise ConflictError(
            f"{stored.key} is of zone '{labels.get(label.ZONE, '')}', this is '{zone}'; take another name"
        )
    if replaced and labels.get(label.MANAGED_BY_FILE) == "true":
        raise ConflictError(
            f"{stored.key} is in this control plane's configuration file; start the proxy without a resource"
        )


def registered(
    wanted: Resource,
    stored: Resource | None,
    mesh: Resource | None,
    type_: ResourceType,
    *,
    zone: str,
    is_probed: bool,
) -> Resource:
    """A proxy's resource as it is to be stored when the proxy connects; ``wanted`` is what it brings.

    One that somebody stored before keeps its labels and stays when the proxy goes. What the control plane itself keeps
    in it (available services, what the proxy last reported of its inbounds) stays as it is, so that a proxy that comes
    back after a restart of the control plane changes nothing.

    Raises:
        NotFoundError: its mesh is not there.
        InvalidError: its mesh does not let it in.
        ConflictError: see ``check_owner``.
    """
    key = wanted.key
    if stored is not None:
        check_owner(stored, zone, replaced=True)
    if key.mesh and mesh is None:
        raise NotFoundError(f"mesh not found: there is no mesh '{key.mesh}'")
    if mesh is not None and isinstance(wanted.spec, Dataplane):
        violations = tuple(membership_violations(wanted.spec, key.mesh, cast("Mesh", mesh.spec)))
        if violations:
            raise InvalidError(str(key), violations)
    labels = dict(stored.labels) if stored is not None else {label.REGISTERED: "true"}
    labels |= {k: v for k, v in wanted.labels.items() if k not in COMPUTED and not k.startswith(label.OURS)}
    spec = wanted.spec
    if isinstance(spec, ZoneIngress):
        kept = cast("ZoneIngress", stored.spec).available_services if stored is not None else ()
        spec = spec.model_copy(update={"available_services": kept})
    owner = stored.owner if stored is not None else (mesh.key if mesh is not None and key.mesh else None)
    version = stored.version if stored is not None else 0
    resource = replace(wanted, spec=spec, labels=labels, owner=owner, version=version)
    return on_write(resource, type_, zone=zone, is_probed=is_probed, stored=stored)


def check_services(wanted: Resource, others: Iterable[Resource]) -> None:
    """Refuse a service that differs from one of its mesh by case only: SNI and DNS do not tell them apart.

    Raises:
        InvalidError: names both.
    """
    existing = [s for o in others if o.key != wanted.key for s in cast("Dataplane", o.spec).services()]
    violations = service_case_conflicts(cast("Dataplane", wanted.spec).services(), existing)
    if violations:
        raise InvalidError(str(wanted.key), violations)


def is_registered(resource: Resource, zone: str) -> bool:
    """Whether a resource is here because its proxy connected to this zone."""
    return resource.labels.get(label.REGISTERED) == "true" and resource.labels.get(label.ZONE, zone) == zone


def expired(
    resources: Iterable[Resource],
    insights: Mapping[tuple[str, str], Resource],
    zone: str,
    age: timedelta,
    now: datetime,
) -> list[Resource]:
    """The proxies of this zone that were connected once, and have been gone for ``age``.

    ``insights`` are by mesh and name. One that never connected stays: it may be waiting for its proxy. Of one that the
    configuration file has the file decides.
    """
    found = []
    for resource in resources:
        labels = resource.labels
        if labels.get(label.ZONE, zone) != zone or labels.get(label.MANAGED_BY_FILE) == "true":
            continue
        insight = insights.get((resource.key.mesh, resource.key.name))
        if insight is not None and (gone := _gone_since(insight)) is not None and now - gone >= age:
            found.append(resource)
    return found


def _gone_since(insight: Resource) -> datetime | None:
    """When the last connection of a proxy ended; None if one is open or there was none."""
    spec = cast("DataplaneInsight | ZoneIngressInsight | ZoneEgressInsight", insight.spec)
    if spec.is_online:
        return None
    return max((s.disconnect_time for s in spec.subscriptions if s.disconnect_time is not None), default=None)
