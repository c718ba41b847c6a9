"""What a role writes into its store before anything runs. Pure: the store's content and the wishes -> edits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from meshd.kinds.config import Config as ConfigSpec
from meshd.kinds.defaults import on_write
from meshd.kinds.mesh import Mesh
from meshd.kinds.zone import Zone
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model import labels as label
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.store.store import Create, Delete, Edit, Put, Store

PROXY_KINDS = ("Dataplane", "ZoneIngress", "ZoneEgress")
DEFAULT_MESH = ResourceKey("Mesh", "", "default")
CLUSTER_ID = ResourceKey("Config", "", "kuma-cluster-id")
"""The Config that every zone has a copy of; Kuma shows it as ``clusterId`` (reference/kds.md 8.5)."""


def own_proxies(store: Store, registry: Registry, zone: str, wanted: Sequence[Resource]) -> Iterator[Edit]:
    """Make the proxies that the configuration file owns what the file says; remove those that are gone from it.

    A proxy of the same name that somebody else wrote becomes the file's. An ingress keeps the ``availableServices``
    that it had, since they are computed: a restart must not make other zones see them go and come back.
    """
    keys = {proxy.key for proxy in wanted}
    for kind in PROXY_KINDS:
        for stored in store.list(kind):
            if stored.labels.get(label.MANAGED_BY_FILE) == "true" and stored.key not in keys:
                yield Delete(stored.key)
    for proxy in wanted:
        resource = on_write(proxy, registry[proxy.key.kind], zone=zone)
        before = store.get(proxy.key)
        if before is not None and isinstance(before.spec, ZoneIngress) and isinstance(resource.spec, ZoneIngress):
            spec = resource.spec.model_copy(update={"available_services": before.spec.available_services})
            resource = replace(resource, spec=spec)
        yield Put(resource)


def missing_defaults(
    store: Store, registry: Registry, zone: str, *, federated: bool, create_mesh: bool, cluster_id: str
) -> Iterator[Edit]:
    """What every control plane has: the default mesh and the cluster id (not in a federated zone), and a zone itself.

    Source: reference/kds.md 8.5.
    """
    wanted: Mapping[ResourceKey, Resource | None] = {
        DEFAULT_MESH: Resource(DEFAULT_MESH, Mesh()) if create_mesh and not federated else None,
        CLUSTER_ID: None if federated else Resource(CLUSTER_ID, ConfigSpec(config=cluster_id)),
    }
    if zone:
        key = ResourceKey("Zone", "", zone)
        wanted = {**wanted, key: Resource(key, Zone(enabled=True))}
    for key, resource in wanted.items():
        if resource is not None and store.get(key) is None:
            yield Create(on_write(resource, registry[key.kind], zone=zone))
