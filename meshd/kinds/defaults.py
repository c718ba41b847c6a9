"""What a control plane adds to a resource that a user (or its own configuration) writes.

Source: Kuma ``pkg/core/resources/labels/compute.go``, ``pkg/core/managers/apis/dataplane`` (behaviour).
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import cast

from meshd.kinds.dataplane import Dataplane, GatewayType, Health, Inbound, InboundState, ListenerType
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model import labels as label
from meshd.model.resource import Resource
from meshd.model.resource_type import Flow, ResourceType, Scope


def on_write(
    resource: Resource, type_: ResourceType, *, zone: str, is_probed: bool = False, stored: Resource | None = None
) -> Resource:
    """``resource`` as it is to be stored by the control plane of ``zone``, or by the global ("").

    Labels that the user set are kept, but for those that say what the proxy is. A standalone zone does as a federated
    one. Applying it twice changes nothing.

    ``is_probed``: an Envoy will probe the applications of a Dataplane and report. So an inbound with a
    ``serviceProbe`` is not ready until it does, unless it was already in what is ``stored``.
    """
    spec = resource.spec
    if zone and isinstance(spec, Dataplane):
        spec = _with_zone_tag(spec, zone)
    if is_probed and isinstance(spec, Dataplane):
        spec = with_reported_states(spec, cast("Dataplane", stored.spec) if stored is not None else None)
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


def with_reported_states(spec: Dataplane, stored: Dataplane | None) -> Dataplane:
    """The Dataplane with the state that its proxy last reported of each inbound; NotReady if it never has.

    Without a probe an inbound is ready as long as its proxy is: at first it counts as ready. What is to be ignored
    is no proxy's to say.
    """
    before = {(i.address, i.port): i for i in stored.networking.inbound} if stored is not None else {}

    def reported(inbound: Inbound) -> Inbound:
        was = before.get((inbound.address, inbound.port))
        is_known = was is not None and (was.service_probe is None) == (inbound.service_probe is None)
        if inbound.state is InboundState.IGNORED or (not is_known and inbound.service_probe is None):
            return inbound
        if was is None or not is_known:
            return in_state(inbound, InboundState.NOT_READY)
        if was.state is InboundState.IGNORED:
            return inbound
        return inbound.model_copy(update={"state": was.state, "health": was.health})

    inbound = tuple(reported(i) for i in spec.networking.inbound)
    if inbound == spec.networking.inbound:
        return spec
    return spec.model_copy(update={"networking": spec.networking.model_copy(update={"inbound": inbound})})


def in_state(inbound: Inbound, state: InboundState) -> Inbound:
    """The inbound in a state; older zones read ``health`` instead."""
    return inbound.model_copy(update={"state": state, "health": Health(ready=state is InboundState.READY)})
