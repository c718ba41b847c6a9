import random

import pytest
import trio
from prometheus_client import CollectorRegistry

from meshd.cli.known import registry
from meshd.insight.keeper import DEBOUNCE_S, InsightKeeper
from meshd.kinds.mesh import Mesh
from meshd.kinds.secret import Secret
from meshd.model.resource import Resource, ResourceKey
from meshd.store.memory import MemoryStore
from meshd.store.store import Delete, Put
from tests.insight.test_computed import OPEN, dataplane, insight
from tests.rest.support import NOW

MESH = Resource(ResourceKey("Mesh", "", "default"), Mesh())
KEY = ResourceKey("MeshInsight", "", "default")
SERVICES = ResourceKey("ServiceInsight", "default", "all-services-default")


@pytest.fixture
def store():
    return MemoryStore(lambda: NOW)


def keeper(store, metrics=None):
    return InsightKeeper(store, registry(), "mesh", 80, metrics or CollectorRegistry(), random.Random(1), lambda: 0.0)


async def test_it_follows_the_store_and_writes_only_what_changed(store, autojump_clock, nursery):
    metrics = CollectorRegistry()
    await store.write([Put(MESH), Put(dataplane("a", "x"))])
    await nursery.start(keeper(store, metrics).run)
    await trio.testing.wait_all_tasks_blocked()
    assert store.get(KEY).spec.dataplanes.offline == 1

    await store.write([Put(insight("a", OPEN))])
    await trio.sleep(DEBOUNCE_S + 0.1)
    assert store.get(KEY).spec.dataplanes.online == 1
    assert store.get(SERVICES).spec.services["x"].dataplanes.online == 1

    versions = store.get(KEY).version, store.get(SERVICES).version
    writes = metrics.get_sample_value("meshd_insight_writes_total", {"kind": "MeshInsight"})
    same = store.get(ResourceKey("Dataplane", "default", "a"))
    changed = same.spec.model_copy(update={"metrics": None})
    await store.write([Put(Resource(same.key, changed, labels={"team": "red"}))])
    await trio.sleep(DEBOUNCE_S + 0.1)
    assert (store.get(KEY).version, store.get(SERVICES).version) == versions
    assert metrics.get_sample_value("meshd_insight_writes_total", {"kind": "MeshInsight"}) == writes == 2


async def test_secrets_are_counted_as_in_kuma(store, autojump_clock, nursery):
    secret = Resource(ResourceKey("Secret", "default", "s"), Secret(data=b"hello"))
    await store.write([Put(MESH), Put(secret)])
    await nursery.start(keeper(store).run)
    await trio.testing.wait_all_tasks_blocked()
    spec = store.get(KEY).spec
    assert (spec.resources["Secret"].total, "Secret" in spec.policies) == (1, False)


async def test_a_burst_is_one_computation(store, autojump_clock, nursery):
    metrics = CollectorRegistry()
    await store.write([Put(MESH)])
    await nursery.start(keeper(store, metrics).run)
    await trio.testing.wait_all_tasks_blocked()
    for i in range(50):
        await store.write([Put(dataplane(f"d{i}", "x"))])
    await trio.sleep(DEBOUNCE_S + 0.1)
    assert store.get(KEY).spec.dataplanes.total == 50
    assert metrics.get_sample_value("meshd_insight_compute_seconds_count") == 2


async def test_the_insights_of_a_mesh_go_with_it(store, autojump_clock, nursery):
    await store.write([Put(MESH)])
    await nursery.start(keeper(store).run)
    await trio.testing.wait_all_tasks_blocked()
    assert store.get(KEY) is not None
    await store.write([Delete(MESH.key)])
    await trio.sleep(DEBOUNCE_S + 0.1)
    assert store.get(KEY) is None
    assert store.get(SERVICES) is None
