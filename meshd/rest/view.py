"""Resources as the API prints them: plain, and joined with what was seen of them (overviews)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from meshd.kinds.service_insight import Service, ServiceInsight
from meshd.model import labels as label
from meshd.model.codec import encode_document, spec_to_json
from meshd.model.registry import Registry
from meshd.model.resource import Resource, Spec
from meshd.model.resource_type import Scope


@dataclass(frozen=True, slots=True)
class Overview:
    """How an overview of a kind is built: which insight, and under which names its parts are printed."""

    kind: str
    insight: str
    field: str
    insight_field: str
    legacy: str


OVERVIEWS: Mapping[str, Overview] = {
    "Dataplane": Overview(
        "DataplaneOverview", "DataplaneInsight", "dataplane", "dataplaneInsight", "dataplanes+insights"
    ),
    "Zone": Overview("ZoneOverview", "ZoneInsight", "zone", "zoneInsight", "zones+insights"),
    "ZoneIngress": Overview(
        "ZoneIngressOverview", "ZoneIngressInsight", "zoneIngress", "zoneIngressInsight", "zoneingresses+insights"
    ),
    "ZoneEgress": Overview(
        "ZoneEgressOverview", "ZoneEgressInsight", "zoneEgress", "zoneEgressInsight", "zoneegressoverviews"
    ),
}

META = ("mesh", "name", "creationTime", "modificationTime", "labels", "kri")


def overview(resource: Resource, insight: Spec | None, registry: Registry) -> dict[str, Any]:
    """A resource with its insight, as the lists of Kuma's ``_overview`` have it."""
    how = OVERVIEWS[resource.key.kind]
    document = encode_document(resource, registry)
    answer: dict[str, Any] = {"type": how.kind} | {name: document[name] for name in META if name in document}
    answer[how.field] = spec_to_json(registry[resource.key.kind], resource.spec)
    if insight is not None:
        answer[how.insight_field] = spec_to_json(registry[how.insight], insight)
    return answer


def single_overview(resource: Resource, insight: Spec | None, registry: Registry) -> dict[str, Any]:
    """The same of one resource that was asked for, which always has an insight, if an empty one."""
    return {OVERVIEWS[resource.key.kind].insight_field: {}} | overview(resource, insight, registry)


def service_items(insights: list[Resource], registry: Registry) -> list[dict[str, Any]]:
    """The virtual per-service items of ServiceInsights, sorted by mesh and name."""
    items = []
    for insight in insights:
        spec = cast("ServiceInsight", insight.spec)
        type_ = registry[insight.key.kind]
        document = encode_document(insight, registry)
        meta = {name: document[name] for name in ("mesh", "creationTime", "modificationTime")}
        # the name in it is the insight's, not the service's
        if labels := {key: value for key, value in insight.labels.items() if key != label.DISPLAY_NAME}:
            meta["labels"] = dict(sorted(labels.items()))
        for name, service in sorted(spec.services.items()):
            items.append({"type": type_.kind, **meta, "name": name, **service_json(service)})
    return sorted(items, key=lambda item: (item["mesh"], item["name"]))


def service_json(service: Service) -> dict[str, Any]:
    """One service; its status is printed even where it is the default, its type (internal) is not."""
    data = service.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {"status": service.status.value, **data}


def page_of(items: list[Any], total: int, next_link: str | None) -> dict[str, Any]:
    """A list of resources as Kuma prints it."""
    return {"total": total, "items": items, "next": next_link}


def part_of(items: list[Any], total: int, next_link: str | None) -> dict[str, Any]:
    """A list of what Kuma says about a resource: it has no ``next`` at its end."""
    return {"total": total, "items": items, **({"next": next_link} if next_link is not None else {})}


def in_mesh(scope: Scope, path: str) -> list[str]:
    """The list paths of a kind: of all meshes, and of one."""
    return [f"/{path}", f"/meshes/{{mesh}}/{path}"] if scope is Scope.MESH else [f"/{path}"]
