"""What the API says about itself and about everything. Source: reference/dataplane.md 6.5."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, cast

from meshd import __version__
from meshd.insight.computed import Health, Proxy, join
from meshd.kinds.config import Config as ConfigSpec
from meshd.kinds.dataplane import GatewayType
from meshd.kinds.service_insight import Service, ServiceInsight, ServiceType
from meshd.model.codec import ZERO_TIME
from meshd.model.registry import Registry
from meshd.model.resource import ResourceKey
from meshd.model.resource_type import Flow, ResourceType, Scope
from meshd.model.versions import KUMA
from meshd.store.store import Store

FROM_AS_RULES = frozenset({"MeshAccessLog", "MeshCircuitBreaker", "MeshRateLimit", "MeshTLS", "MeshTimeout"})
"""Policies whose ``from`` and ``rules`` say the same."""
COUNTED_ELSEWHERE = frozenset({"Mesh", "Zone", "ZoneIngress", "ZoneEgress"})
"""Kinds that have a part of their own in the global insight."""
CLUSTER_ID = ResourceKey("Config", "", "kuma-cluster-id")


def index(store: Store, hostname: str, instance_id: str) -> dict[str, Any]:
    """``GET /``: which API this is, in the fields where Kuma's clients look for it, and which program serves it.

    kumactl refuses to work with a product that is not called Kuma, and warns at each command of a version other than
    its own.
    """
    cluster = store.get(CLUSTER_ID)
    return {
        "hostname": hostname,
        "product": "Kuma",
        "version": KUMA,
        "instanceId": instance_id,
        "clusterId": cast("ConfigSpec", cluster.spec).config if cluster is not None else "",
        "gui": "",
        "implementation": {"product": "meshd", "version": __version__},
    }


_WORD = re.compile(r"OpenTelemetry|[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


def words(kind: str) -> str:
    """A kind as words: "MeshHTTPRoute" -> "Mesh HTTP Route"."""
    return " ".join(_WORD.findall(kind))


def plural(kind: str) -> str:
    """A kind as words, several of it."""
    text = words(kind)
    if text.lower().endswith(("s", "sh", "ch")):
        return text + "es"
    if text.endswith("y") and text[-2] not in "aeiou":
        return text[:-1] + "ies"
    return text + "s"


def target_refs(type_: ResourceType) -> dict[str, bool]:
    """Which lists of a policy take a targetRef."""
    fields = type_.spec.model_fields
    aliases = {info.alias or name for name, info in fields.items()}
    return {
        "hasToTargetRef": "to" in aliases,
        "hasFromTargetRef": "from" in aliases,
        "hasRulesTargetRef": "rules" in aliases,
        "isTargetRef": "targetRef" in aliases,
    }


def policies(registry: Registry) -> dict[str, Any]:
    """``GET /policies``."""
    return {"policies": [_policy(t) for t in registry if t.is_policy]}


def _policy(type_: ResourceType) -> dict[str, Any]:
    refs = target_refs(type_)
    return {
        "name": type_.kind,
        "readOnly": type_.read_only,
        "path": type_.path,
        "singularDisplayName": words(type_.kind),
        "pluralDisplayName": plural(type_.kind),
        "isExperimental": False,
        "isTargetRefBased": refs["isTargetRef"],
        "isInbound": refs["hasFromTargetRef"] or refs["hasRulesTargetRef"],
        "isOutbound": refs["hasToTargetRef"],
    }


def resources(registry: Registry) -> dict[str, Any]:
    """``GET /_resources``."""
    return {"resources": [_resource(t) for t in registry if t.path]}


def _resource(type_: ResourceType) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "name": type_.kind,
        "path": type_.path,
        "scope": "Mesh" if type_.scope is Scope.MESH else "Global",
        "readOnly": type_.read_only,
        "singularDisplayName": words(type_.kind),
        "pluralDisplayName": plural(type_.kind),
        "shortName": type_.short,
        "includeInFederation": Flow.GLOBAL_TO_ZONE in type_.flow and not type_.read_only,
    }
    if type_.is_policy:
        answer["policy"] = {**target_refs(type_), "isFromAsRules": type_.kind in FROM_AS_RULES}
    return answer


def global_insight(store: Store, registry: Registry) -> dict[str, Any]:
    """``GET /global-insight``: counts over all meshes and zones, computed from the store when asked.

    As in Kuma, zones and zone proxies count once they have been seen, and ``resources`` are what people write, but for
    what stands elsewhere in the answer; kinds of which there is none are left out.
    """
    counts = {t.kind: len(store.list(t.kind)) for t in registry if is_counted(t)}
    proxies = join(store.list("Dataplane"), store.list("DataplaneInsight"))
    created = min((m.created for m in store.list("Mesh") if m.created is not None), default=None)
    return {
        "createdAt": created.isoformat().replace("+00:00", "Z") if created else ZERO_TIME,
        "meshes": {"total": len(store.list("Mesh"))},
        "zones": {
            "controlPlanes": _zone_part(store, "ZoneInsight"),
            "zoneIngresses": _zone_part(store, "ZoneIngressInsight"),
            "zoneEgresses": _zone_part(store, "ZoneEgressInsight"),
        },
        "dataplanes": {
            "standard": _health(p for p in proxies if p.spec.networking.gateway is None),
            "gatewayBuiltin": _health(_gateways(proxies, GatewayType.BUILTIN)),
            "gatewayDelegated": _health(_gateways(proxies, GatewayType.DELEGATED)),
        },
        "services": _services(store),
        "policies": {"total": sum(counts[t.kind] for t in registry if t.is_policy)},
        "resources": {kind: {"total": n} for kind, n in sorted(counts.items()) if n},
    }


def is_counted(type_: ResourceType) -> bool:
    """Whether ``resources`` of the global insight has a kind."""
    if not type_.path or type_.read_only:
        return False
    return type_.scope is Scope.MESH or not (type_.admin_only or type_.kind in COUNTED_ELSEWHERE)


def _zone_part(store: Store, insight_kind: str) -> dict[str, int]:
    found = store.list(insight_kind)
    return {"online": sum(1 for insight in found if is_online(insight.spec)), "total": len(found)}


def is_online(spec: Any) -> bool:
    """Whether an insight of any kind has an open subscription."""
    return bool(spec.is_online)


def _gateways(proxies: Iterable[Proxy], wanted: GatewayType) -> Iterable[Proxy]:
    return (p for p in proxies if p.spec.networking.gateway and p.spec.networking.gateway.type is wanted)


def _health(proxies: Iterable[Proxy]) -> dict[str, int]:
    counts = Counter(p.health for p in proxies)
    return {
        "online": counts[Health.ONLINE],
        "offline": counts[Health.OFFLINE],
        "partiallyDegraded": counts[Health.PARTIALLY_DEGRADED],
        "total": counts.total(),
    }


def _services(store: Store) -> dict[str, Any]:
    found: list[Service] = [
        s for i in store.list("ServiceInsight") for s in cast("ServiceInsight", i.spec).services.values()
    ]
    answer: dict[str, Any] = {}
    for name, wanted in (
        ("internal", ServiceType.INTERNAL),
        ("gatewayBuiltin", ServiceType.GATEWAY_BUILTIN),
        ("gatewayDelegated", ServiceType.GATEWAY_DELEGATED),
    ):
        counts = Counter(s.status.value for s in found if s.service_type is wanted)
        answer[name] = {
            "online": counts["online"],
            "offline": counts["offline"],
            "partiallyDegraded": counts["partially_degraded"],
            "total": counts.total(),
        }
    answer["external"] = {"total": sum(1 for s in found if s.service_type is ServiceType.EXTERNAL)}
    return answer
