"""What a role writes into its store before anything runs. Pure: the store's content and the wishes -> edits."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from meshd.kinds.config import Config as ConfigSpec
from meshd.kinds.defaults import on_write
from meshd.kinds.mesh import Mesh
from meshd.kinds.zone import Zone
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model import labels as label
from meshd.model.errors import ConflictError
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.rest.writes import initial_edits
from meshd.store.store import Create, Delete, Edit, Put, Store

PROXY_KINDS = ("Dataplane", "ZoneIngress", "ZoneEgress")
DEFAULT_MESH = ResourceKey("Mesh", "", "default")
CLUSTER_ID = ResourceKey("Config", "", "kuma-cluster-id")
"""The Config that every zone has a copy of; Kuma shows it as ``clusterId`` (reference/kds.md 8.5)."""


def own_proxies(
    store: Store, registry: Registry, zone: str, wanted: Sequence[Resource], probed: Collection[ResourceKey] = ()
) -> Iterator[Edit]:
    """Make the proxies that the configuration file owns what the file says; remove those that are gone from it.

    Only what is this zone's own is touched, so on a global, ``zone`` is "", nothing. A proxy of the same name that
    somebody wrote here becomes the file's. An ingress keeps the ``availableServices`` that it had, since they are
    computed: a restart must not make other zones see them go and come back. ``probed`` are the Dataplanes whose Envoys
    probe their applications.

    Raises:
        ConflictError: a proxy of the file has the name of one that is stored here for another zone.
    """
    if not zone:
        return
    keys = {proxy.key for proxy in wanted}
    for kind in PROXY_KINDS:
        for stored in store.list(kind):
            is_managed = stored.labels.get(label.MANAGED_BY_FILE) == "true"
            if is_managed and stored.key not in keys and is_own(stored, zone):
                yield Delete(stored.key)
    for proxy in wanted:
        before = store.get(proxy.key)
        is_probed = proxy.key in probed
        resource = on_write(proxy, registry[proxy.key.kind], zone=zone, is_probed=is_probed, stored=before)
        if before is not None and not is_own(before, zone):
            raise ConflictError(
                f"{proxy.key} of the configuration file has the name of a copy of"
                f" zone '{before.labels.get(label.ZONE, '')}'; give it another name, or, if this zone was called"
                " so, give it a store of its own (store.sqlite.path)"
            )
        if before is not None and isinstance(before.spec, ZoneIngress) and isinstance(resource.spec, ZoneIngress):
            spec = resource.spec.model_copy(update={"available_services": before.spec.available_services})
            resource = replace(resource, spec=spec)
        yield Put(resource)


def is_own(resource: Resource, zone: str) -> bool:
    """Whether a stored proxy was made in ``zone``, rather than being a copy that the global has sent."""
    labels = resource.labels
    return labels.get(label.ZONE, zone) == zone and labels.get(label.ORIGIN) != label.ORIGIN_GLOBAL


def missing_defaults(
    store: Store,
    registry: Registry,
    zone: str,
    *,
    federated: bool,
    create_mesh: bool,
    cluster_id: str,
    initial: Callable[[Resource], Sequence[Resource]],
) -> Iterator[Edit]:
    """What every control plane has: the default mesh and the cluster id (not in a federated zone), and a zone itself.

    ``initial`` is what a Mesh begins with, made together with it and never again. What is stored but cannot be read
    is not made anew: a Mesh of defaults in place of a damaged one would switch its mTLS off. A zone that was
    standalone gives up its own cluster id, and the policies that its meshes began with as long as nobody changed
    them, so that the global's can take their place: a zone's own would win. Source: reference/kds.md 8.5.
    """
    own_id = store.get(CLUSTER_ID)
    if federated and own_id is not None and own_id.labels.get(label.ORIGIN) != label.ORIGIN_GLOBAL:
        yield Delete(CLUSTER_ID, own_id.version)
        for mesh in store.list("Mesh"):
            for made in initial(mesh):
                stored = store.get(made.key)
                if stored is not None and stored.same_content(made):
                    yield Delete(made.key, stored.version)
    damaged = store.unreadable()
    wanted: Mapping[ResourceKey, Resource | None] = {
        DEFAULT_MESH: Resource(DEFAULT_MESH, Mesh()) if create_mesh and not federated else None,
        CLUSTER_ID: None if federated else Resource(CLUSTER_ID, ConfigSpec(config=cluster_id)),
    }
    if zone:
        key = ResourceKey("Zone", "", zone)
        wanted = {**wanted, key: Resource(key, Zone(enabled=True))}
    for key, resource in wanted.items():
        if resource is not None and key not in damaged and store.get(key) is None:
            # A Zone has no labels in Kuma, and its KRI would have them.
            yield Create(resource if key.kind == "Zone" else on_write(resource, registry[key.kind], zone=zone))
            if key.kind == "Mesh":
                yield from initial_edits(store, initial(resource))
