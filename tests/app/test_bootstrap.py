from dataclasses import replace

import pytest

from meshd.app.bootstrap import CLUSTER_ID, DEFAULT_MESH, missing_defaults, own_proxies
from meshd.cli.known import registry
from meshd.kinds.config import Config
from meshd.kinds.dataplane import Dataplane, Inbound, InboundState, Networking, ServiceProbe
from meshd.kinds.defaults import in_state
from meshd.kinds.mesh import Mesh
from meshd.kinds.zone_ingress import AvailableService, ZoneIngress
from meshd.model import labels as label
from meshd.model.errors import ConflictError
from meshd.model.resource import Resource, ResourceKey
from meshd.policies import discover
from meshd.policies.initial import initial_policies
from meshd.policies.mesh_retry import MeshRetry
from meshd.store.memory import MemoryStore
from meshd.store.store import Create, Delete, Put
from tests.kds.lab import ingress, lab
from tests.rest.support import NOW

INGRESS = ResourceKey("ZoneIngress", "", "in")
ZONE_A = ResourceKey("Zone", "", "zone-a")
POLICIES = {
    ResourceKey("MeshTimeout", "default", "mesh-timeout-all-default"),
    ResourceKey("MeshTimeout", "default", "mesh-gateways-timeout-all-default"),
    ResourceKey("MeshCircuitBreaker", "default", "mesh-circuit-breaker-all-default"),
    ResourceKey("MeshRetry", "default", "mesh-retry-all-default"),
}
BY_FILE = {label.MANAGED_BY_FILE: "true"}


async def stored(*resources):
    store = MemoryStore(lambda: NOW)
    await store.write([Put(r) for r in resources])
    return store


def initial(mesh):
    return initial_policies(discover(), mesh, "zone-a")


def edits(store, zone="zone-a", *, federated=False, create_mesh=True):
    return list(
        missing_defaults(
            store,
            registry(),
            zone,
            federated=federated,
            create_mesh=create_mesh,
            cluster_id="00-11",
            initial=initial,
        )
    )


def defaults(store, zone="zone-a", *, federated=False, create_mesh=True):
    found = edits(store, zone, federated=federated, create_mesh=create_mesh)
    assert all(isinstance(edit, Create) for edit in found)
    return {edit.resource.key: edit.resource for edit in found}


async def test_a_first_start_makes_the_default_mesh_the_cluster_id_and_the_zone():
    made = defaults(await stored())
    assert set(made) - POLICIES == {DEFAULT_MESH, CLUSTER_ID, ZONE_A}
    assert made[CLUSTER_ID].spec.config == "00-11"
    assert made[ZONE_A].spec.enabled


async def test_a_mesh_begins_with_policies_which_are_not_made_again_once_they_are_deleted():
    store = await stored()
    assert set(defaults(store)) >= POLICIES
    await store.write(edits(store))
    assert {r.key for kind in ("MeshTimeout", "MeshRetry", "MeshCircuitBreaker") for r in store.list(kind)} >= POLICIES
    await store.write([Delete(key) for key in POLICIES])
    assert edits(store) == []


async def test_a_mesh_that_was_there_gets_none():
    assert set(defaults(await stored(Resource(DEFAULT_MESH, Mesh())))) == {CLUSTER_ID, ZONE_A}


async def test_a_zone_that_was_standalone_gives_up_the_policies_that_nobody_changed():
    store = await stored()
    await store.write(edits(store))
    retry = store.get(ResourceKey("MeshRetry", "default", "mesh-retry-all-default"))
    await store.write([Put(replace(retry, spec=MeshRetry()))])
    assert {edit.key for edit in edits(store, federated=True)} == {CLUSTER_ID, *POLICIES} - {retry.key}
    await store.write(edits(store, federated=True))
    assert edits(store, federated=True) == []


async def test_a_federated_zone_gets_mesh_and_cluster_id_from_its_global():
    assert set(defaults(await stored(), federated=True)) == {ZONE_A}


async def test_a_zone_that_was_standalone_gives_up_its_cluster_id_for_the_globals():
    own = Resource(CLUSTER_ID, Config(config="own"))
    synced = Resource(CLUSTER_ID, Config(config="global's"), labels={label.ORIGIN: label.ORIGIN_GLOBAL})
    for resource, expected in ((own, [CLUSTER_ID]), (synced, [])):
        found = edits(await stored(resource), federated=True)
        assert [edit.key for edit in found if isinstance(edit, Delete)] == expected


async def test_a_global_has_no_zone_of_its_own_and_the_mesh_can_be_left_out():
    assert set(defaults(await stored(), "", create_mesh=False)) == {CLUSTER_ID}


async def test_what_is_there_stays():
    store = await stored(Resource(DEFAULT_MESH, Mesh()), *defaults(await stored()).values())
    assert defaults(store) == {}


async def test_the_files_proxies_are_written_and_those_gone_from_it_removed():
    gone = ResourceKey("Dataplane", "default", "gone")
    others = ResourceKey("Dataplane", "default", "others")
    store = await stored(
        Resource(DEFAULT_MESH, Mesh()), Resource(gone, Dataplane(), BY_FILE), Resource(others, Dataplane())
    )
    removed, written = own_proxies(store, registry(), "zone-a", [Resource(INGRESS, ZoneIngress(), BY_FILE)])
    assert removed == Delete(gone)
    assert written.resource.key == INGRESS
    assert written.resource.labels[label.MANAGED_BY_FILE] == "true"
    assert written.resource.labels[label.ZONE] == "zone-a"


async def test_a_restart_keeps_what_an_ingress_had_computed():
    computed = (AvailableService(tags={"kuma.io/service": "web"}, instances=2, mesh="default"),)
    store = await stored(Resource(INGRESS, ZoneIngress(available_services=computed), BY_FILE))
    (written,) = own_proxies(store, registry(), "zone-a", [Resource(INGRESS, ZoneIngress(zone="zone-a"), BY_FILE)])
    assert written.resource.spec.available_services == computed
    assert written.resource.spec.zone == "zone-a"


async def test_a_restart_keeps_what_an_envoy_reported():
    key = ResourceKey("Dataplane", "default", "web-1")
    probed = Inbound(port=80, service_probe=ServiceProbe(), tags={"kuma.io/service": "web"})
    wanted = Resource(key, Dataplane(networking=Networking(address="10.0.0.1", inbound=(probed,))), BY_FILE)
    store = await stored(Resource(DEFAULT_MESH, Mesh()))
    for state in (InboundState.NOT_READY, InboundState.READY):
        (written,) = own_proxies(store, registry(), "zone-a", [wanted], {key})
        await store.write([written])
        [inbound] = store.get(key).spec.networking.inbound
        assert inbound.state is state
        ready = in_state(inbound, InboundState.READY)
        reported = written.resource.spec.model_copy(
            update={"networking": written.resource.spec.networking.model_copy(update={"inbound": (ready,)})}
        )
        await store.write([Put(replace(written.resource, spec=reported))])
    (written,) = own_proxies(store, registry(), "zone-a", [wanted])
    assert written.resource.spec.networking.inbound[0].state is InboundState.READY


@pytest.mark.parametrize("labels", [{label.ZONE: "zone-b"}, {label.ORIGIN: "global"}])
async def test_a_copy_of_another_zones_proxy_is_not_the_files_whatever_its_labels_say(labels):
    foreign = Resource(ResourceKey("ZoneIngress", "", "in-b"), ZoneIngress(), BY_FILE | labels)
    store = await stored(foreign)
    assert list(own_proxies(store, registry(), "zone-a", [])) == []
    with pytest.raises(
        ConflictError, match=r"in-b.* of the configuration file has the name of a copy of zone .*store\.sqlite\.path"
    ):
        list(own_proxies(store, registry(), "zone-a", [Resource(foreign.key, ZoneIngress(), BY_FILE)]))


async def test_a_restarted_global_keeps_the_proxies_of_a_zone_that_is_away(autojump_clock):
    async with lab("global", "zone-a", "zone-b") as it:
        for zone in ("zone-a", "zone-b"):
            await it.put(zone, {**ingress(f"in-{zone}"), "labels": BY_FILE})
        await it.settle()
        await it.stop("zone-b")
        await it.stop("global")
        store = it.store("global")
        # as an older version has stored them: with the label of the zone's file
        await store.write(
            [Put(Resource(r.key, r.spec, {**r.labels, **BY_FILE}, wire=r.wire)) for r in store.list("ZoneIngress")]
        )
        await store.write(list(own_proxies(store, registry(), "", [])))
        await it.start("global")
        await it.settle(30)
        assert it.names("global", "ZoneIngress") == ["in-zone-a", "in-zone-b"]
        assert it.names("zone-a", "ZoneIngress") == ["in-zone-a", "in-zone-b"]


async def test_what_cannot_be_read_is_not_replaced_by_defaults():
    store = await stored()
    store.unreadable = lambda: {DEFAULT_MESH: "no json"}
    assert set(defaults(store)) == {CLUSTER_ID, ZONE_A}
