"""What a control plane adds to a resource that a user (or its own configuration) writes.

Source: Kuma ``pkg/core/resources/labels/compute.go``, ``pkg/core/managers/apis/dataplane`` (behaviour). Not taken over:
Kuma also turns an inbound with a ``serviceProbe`` NotReady until Envoy has probed it; that comes with Envoy.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from meshd.kinds.dataplane import Dataplane, GatewayType, ListenerType
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model import labels as label
from meshd.model.resource import Resource
from meshd.model.resource_type import Flow, ResourceType, Scope


def on_write(resource: Resource, type_: ResourceType, *, zone: str) -> Resource:
    """``resource`` as it is to be stored by the control plane of ``zone``, or by the global ("").

    Labels that the user set are kept, but for those that say what the proxy is. A standalone zone does as a federated
    one. Applying it twice changes nothing.
    """
    spec = resource.spec
    if zone and isinstance(spec, Dataplane):
        spec = _with_zone_tag(spec, zone)
    labels = _labels(resource, type_, zone)
    if spec is resource.spec and labels == dict(resource.labels):
        return resource
    return replace(resource, spec=spec, labels=MappingProxyType(labels))


def _labels(resource: Resource, type_: ResourceType, zone: str) -> dict[str, str]:
    labels = dict(resource.labels)
    if type_.scope is Scope.MESH:
        labels.setdefault(label.MESH, resource.key.mesh)
    if zone and Flow.ZONE_LOCAL in type_.flow:
        labels.setdefault(label.ORIGIN, label.ORIGIN_ZONE)
        if labels[label.ORIGIN] != label.ORIGIN_GLOBAL:
            labels.setdefault(label.ZONE, zone)
            labels.setdefault(label.ENV, "universal")
    spec = resource.spec
    if isinstance(spec, Dataplane):
        gateway = spec.networking.gateway
        is_builtin = gateway is not None and gateway.type is GatewayType.BUILTIN
        labels[label.PROXY_TYPE] = "gateway" if is_builtin else "sidecar"  # a delegated one has a sidecar of ours
        embedded = {listener.type for listener in spec.networking.listeners}
        for name, type_wanted in (
            (label.LISTENER_INGRESS, ListenerType.ZONE_INGRESS),
            (label.LISTENER_EGRESS, ListenerType.ZONE_EGRESS),
        ):
            labels.pop(name, None)
            if type_wanted in embedded:
                labels[name] = "enabled"
    elif isinstance(spec, ZoneIngress):
        labels[label.PROXY_TYPE] = "zoneingress"
    elif isinstance(spec, ZoneEgress):
        labels[label.PROXY_TYPE] = "zoneegress"
    return labels


def _with_zone_tag(spec: Dataplane, zone: str) -> Dataplane:
    """The Dataplane with ``kuma.io/zone`` on every inbound that has tags, and on its gateway."""

    def tagged(tags: Mapping[str, str]) -> Mapping[str, str]:
        return {**tags, label.ZONE: zone} if tags else tags

    networking = spec.networking
    inbound = tuple(i.model_copy(update={"tags": tagged(i.tags)}) for i in networking.inbound)
    gateway = networking.gateway
    if gateway is not None:
        gateway = gateway.model_copy(update={"tags": tagged(gateway.tags)})
    if inbound == networking.inbound and gateway == networking.gateway:
        return spec
    return spec.model_copy(
        update={"networking": networking.model_copy(update={"inbound": inbound, "gateway": gateway})}
    )
