"""A resource as the Kubernetes object that Kuma would keep it in (``?format=kubernetes``). Pure.

Source: Kuma 2.14.3 ``pkg/plugins/resources/k8s/mapper.go`` (NewInferenceMapper, what a universal control plane answers)
and recorded answers. It leaves all labels out; here those stay that an author wrote: a policy must not become real on
its way because it lost ``kuma.io/effect: shadow``.
"""

import base64
from datetime import datetime
from typing import Any, cast

from meshd.kinds.secret import Secret
from meshd.model import labels as label
from meshd.model.codec import encode_document
from meshd.model.registry import Registry
from meshd.model.resource import Resource
from meshd.model.resource_type import ResourceType, Scope

FORMATS = ("k8s", "kubernetes")
API_VERSION = "kuma.io/v1alpha1"
SYSTEM_NAMESPACE = "kuma-system"
SECRETS = {"Secret": "system.kuma.io/secret", "GlobalSecret": "system.kuma.io/global-secret"}
NAMESPACED = frozenset(
    {"Dataplane", "DataplaneInsight", "ZoneIngress", "ZoneIngressInsight", "ZoneEgress", "ZoneEgressInsight"}
)
"""Kinds that travel as protobuf and are in a namespace; those that travel as JSON all are."""
COMPUTED = frozenset(
    {
        label.DELETION_GRACE,
        label.DISPLAY_NAME,
        label.ENV,
        label.KDS_SYNC,
        label.LISTENER_EGRESS,
        label.LISTENER_INGRESS,
        label.MESH,
        label.NAMESPACE,
        label.ORIGIN,
        label.POLICY_ROLE,
        label.PROXY_TYPE,
        label.ZONE,
    }
)
"""Labels that a control plane sets: that of the cluster sets its own."""
_META = ("type", "mesh", "name", "creationTime", "modificationTime", "labels", "kri")


def kubernetes_object(resource: Resource, registry: Registry, namespace: str = "") -> dict[str, Any]:
    """The object; ``namespace``: in which it is to be, if it is in any, instead of the control plane's."""
    type_ = registry[resource.key.kind]
    is_secret = type_.kind in SECRETS
    is_namespaced = is_secret or not type_.flat or type_.kind in NAMESPACED
    metadata: dict[str, Any] = {"name": resource.key.name}
    if is_namespaced:
        metadata["namespace"] = namespace or SYSTEM_NAMESPACE
    metadata["creationTimestamp"] = _seconds(resource.created)
    names_mesh = type_.scope is Scope.MESH
    labels = {k: v for k, v in resource.labels.items() if k not in COMPUTED and not k.startswith(label.OURS)}
    if names_mesh and (is_secret or not type_.flat):
        labels[label.MESH] = resource.key.mesh
    if labels:
        metadata["labels"] = dict(sorted(labels.items()))
    if is_secret:
        value = base64.b64encode(cast("Secret", resource.spec).data).decode()
        found = {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": {"value": value}}
        return {**found, "type": SECRETS[type_.kind]}
    found = {"kind": type_.kind, "apiVersion": API_VERSION, "metadata": metadata}
    if names_mesh and type_.flat:
        found["mesh"] = resource.key.mesh
    return found | _content(type_, encode_document(resource, registry))


def _content(type_: ResourceType, document: dict[str, Any]) -> dict[str, Any]:
    if type_.flat:
        return {"spec": {key: value for key, value in document.items() if key not in _META}}
    return {key: document[key] for key in ("spec", "status") if key in document}


def _seconds(moment: datetime | None) -> str | None:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment is not None else None
