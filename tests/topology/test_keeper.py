import json
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import wait_all_tasks_blocked

from meshd.kinds import KINDS
from meshd.model.errors import ConflictError, UnavailableError
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.policies.mesh_traffic_permission import TYPE
from meshd.store.memory import MemoryStore
from meshd.store.sqlite import SqliteStore
from meshd.store.store import Delete, Edit, Put
from meshd.topology.keeper import Keeper, VipSettings
from tests.topology.builders import available, dataplane, ingress, mesh
from tests.topology.test_build import policy
from tests.topology.views import build_views

REGISTRY = Registry((*KINDS, TYPE))


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time


class WatchedStore(MemoryStore):
    """Notes what the keeper writes, and fails the next writes on demand."""

    def __init__(self, now: Clock) -> None:
        super().__init__(now)
        self.written: list[ResourceKey] = []
        self.failures: list[Exception] = []
        self.before_write: Any = None

    async def write(self, edits: Sequence[Edit]) -> tuple[Resource | None, ...]:
        if self.failures:
            await trio.lowlevel.checkpoint()
            raise self.failures.pop(0)
        if self.before_write is not None:
            hook, self.before_write = self.before_write, None
            await hook()
        self.written += [e.key if isinstance(e, Delete) else e.resource.key for e in edits]
        return await super().write(edits)


@pytest.fixture
def now():
    return Clock()


@pytest.fixture
def store(now):
    return WatchedStore(now)


def keeper_of(store, now, cidr="240.0.0.0/4", metrics=None):
    return Keeper(store, REGISTRY, "zone-a", VipSettings(cidr=cidr), now, metrics or CollectorRegistry())


@asynccontextmanager
async def running(store, now, **settings):
    keeper = keeper_of(store, now, **settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: keeper.run(task_status=task_status))
        yield keeper
        nursery.cancel_scope.cancel()


async def put(store, *resources):
    await MemoryStore.write(store, [Put(r) for r in resources])


async def delete(store, *resources):
    await MemoryStore.write(store, [Delete(r.key) for r in resources])


def config(store, name):
    found = store.get(ResourceKey("Config", "", name))
    return None if found is None else json.loads(found.spec.config)


def vip(keeper, service, mesh="default"):
    return str(keeper.views.value[mesh].vips[service].address)


async def test_the_first_views_are_there_when_it_has_started(store, now, autojump_clock):
    resources = [mesh(), dataplane("d", "web"), ingress("b", "zone-b", [available("web", 2)])]
    await put(store, *resources)
    async with running(store, now) as keeper:
        assert keeper.views.value == build_views(
            store.list("Mesh") + store.list("Dataplane") + store.list("ZoneIngress")
        )
        assert config(store, "kuma-default-dns-vips")["0:web"]["address"] == "240.0.0.1"


async def test_a_change_after_a_calm_is_taken_in_at_once_and_a_burst_together(store, now, autojump_clock):
    await put(store, mesh())
    async with running(store, now) as keeper:
        await trio.sleep(1)
        began, seen = trio.current_time(), keeper.views.version
        await put(store, dataplane("d1", "web"))
        version, views = await keeper.views.newer_than(seen)
        assert (trio.current_time() - began, list(views["default"].services)) == (0, ["web"])
        for i in range(2, 12):  # every 10 ms: never 20 ms of quiet, so it waits its 100 ms
            await put(store, dataplane(f"d{i}", f"s{i}"))
            await trio.sleep(0.01)
        version, views = await keeper.views.newer_than(version)
        assert trio.current_time() - began == pytest.approx(0.1, abs=0.011)
        assert version == seen + 2
        await trio.sleep(1)
        assert len(keeper.views.value["default"].services) == 11


async def test_a_short_burst_ends_after_20_ms_of_quiet(store, now, autojump_clock):
    await put(store, mesh())
    async with running(store, now) as keeper:
        await trio.sleep(1)
        await put(store, dataplane("d1", "web"))
        seen, _ = await keeper.views.newer_than(keeper.views.version)
        began = trio.current_time()
        await put(store, dataplane("d2", "db"))
        await keeper.views.newer_than(seen)
        assert trio.current_time() - began == pytest.approx(0.02)


async def test_nothing_is_published_or_written_when_nothing_changed(store, now, autojump_clock):
    await put(store, mesh(), dataplane("d", "web"), ingress("own", ""))
    async with running(store, now) as keeper:
        version, writes = keeper.views.version, len(store.written)
        d = store.get(ResourceKey("Dataplane", "default", "d"))
        await put(store, replace(d, labels={"a": "b"}))
        await trio.sleep(1)
        assert keeper.views.version == version + 1
        await put(store, d)
        await trio.sleep(1)
        await put(store, d)
        await trio.sleep(1)
        assert keeper.views.version == version + 2
        assert len(store.written) == writes


async def test_only_touched_meshes_get_a_new_view(store, now, autojump_clock):
    await put(store, mesh(), mesh("other"), dataplane("d", "web"), dataplane("o", "x", mesh="other"))
    async with running(store, now) as keeper:
        before = keeper.views.value
        await put(store, dataplane("d", "web", address="10.0.0.9"))
        await trio.sleep(1)
        assert keeper.views.value["other"] is before["other"]
        assert keeper.views.value["default"] is not before["default"]


async def test_vips_are_one_allocation_over_all_meshes_and_survive_a_restart(store, now, autojump_clock):
    await put(store, mesh(), mesh("other"), dataplane("d", "web"), dataplane("o", "web", "api", mesh="other"))
    async with running(store, now) as keeper:
        before = {(m, s): vip(keeper, s, m) for m, s in [("default", "web"), ("other", "web"), ("other", "api")]}
        versions = {name: view.version for name, view in keeper.views.value.items()}
        assert len(set(before.values())) == 3
    store.written.clear()
    async with running(store, now) as keeper:
        assert {(m, s): vip(keeper, s, m) for m, s in before} == before
        assert {name: view.version for name, view in keeper.views.value.items()} == versions
    assert store.written == [], "a restart writes nothing"


async def test_a_vip_is_committed_before_a_view_has_it(store, now, autojump_clock):
    await put(store, mesh())
    async with running(store, now) as keeper:

        async def look():
            await trio.sleep(0.05)  # a slow disk
            assert "web" not in keeper.views.value["default"].services

        store.before_write = look
        await put(store, dataplane("d", "web"))
        await trio.sleep(1)
        assert store.before_write is None
        assert vip(keeper, "web") == config(store, "kuma-default-dns-vips")["0:web"]["address"]


async def test_a_dead_name_leaves_a_tombstone_also_with_its_mesh(store, now, autojump_clock):
    await put(store, mesh(), dataplane("a", "a"), dataplane("b", "b"))
    async with running(store, now) as keeper:
        a, b = vip(keeper, "a"), vip(keeper, "b")
        await delete(store, dataplane("a", "a"))
        await trio.sleep(1)
        assert "a" not in keeper.views.value["default"].vips
        await delete(store, dataplane("b", "b"), mesh())
        await trio.sleep(1)
        assert keeper.views.value == {}
        assert config(store, "kuma-default-dns-vips") is None
        assert [(t["name"], t["address"]) for t in config(store, "meshd-dns-vip-tombstones")] == [("a", a), ("b", b)]
    now.time += timedelta(minutes=30)
    await put(store, mesh(), dataplane("b", "b"), dataplane("c", "c"))
    async with running(store, now) as keeper:
        assert vip(keeper, "b") == b
        assert vip(keeper, "c") not in (a, b)


async def test_names_without_a_free_address_are_reported_and_served_when_one_is_free(
    store, now, caplog, autojump_clock
):
    metrics = CollectorRegistry()
    await put(store, mesh(), dataplane("d", "a", "b", "c"))
    async with running(store, now, cidr="10.0.0.0/30", metrics=metrics) as keeper:
        assert sorted(keeper.views.value["default"].vips) == ["a", "b"]
        assert sorted(keeper.views.value["default"].services) == ["a", "b", "c"]
        assert metrics.get_sample_value("meshd_topology_names_without_vip") == 1
        assert "no virtual IP is free in 10.0.0.0/30 for 1 names, the first is 'c' of mesh default" in caplog.text
        await put(store, dataplane("d", "b", "c"))
        await trio.sleep(60)
        assert sorted(keeper.views.value["default"].vips) == ["b"]
        now.time += timedelta(hours=1)
        await trio.sleep(3600)
        assert sorted(keeper.views.value["default"].vips) == ["b", "c"]
        assert metrics.get_sample_value("meshd_topology_names_without_vip") == 0


async def test_while_the_store_is_away_views_go_on_with_the_committed_vips(store, now, caplog, autojump_clock):
    await put(store, mesh(), dataplane("a", "a"))
    async with running(store, now) as keeper:
        store.failures = [UnavailableError("disk full")] * 2
        await put(store, dataplane("b", "b"))
        await trio.sleep(0.5)
        assert sorted(keeper.views.value["default"].services) == ["a", "b"]
        assert sorted(keeper.views.value["default"].vips) == ["a"]
        assert "cannot store VIPs: disk full" in caplog.text
        await trio.sleep(3)
        assert sorted(keeper.views.value["default"].vips) == ["a", "b"]


def offered(store, name):
    services = store.get(ResourceKey("ZoneIngress", "", name)).spec.available_services
    return [(s.mesh, s.tags["kuma.io/service"], s.instances) for s in services]


async def test_available_services_of_local_ingresses_are_kept_true(store, now, autojump_clock):
    remote = ingress("b", "zone-b", [available("x", 1)])
    await put(store, mesh(), dataplane("d", "web"), ingress("own", ""), ingress("own-2", "zone-a"), remote)
    async with running(store, now) as keeper:
        assert offered(store, "own") == offered(store, "own-2") == [("default", "web", 1)]
        await put(store, dataplane("e", "web", address="10.0.0.2"))
        await trio.sleep(1)
        assert offered(store, "own") == [("default", "web", 2)]
        await put(store, ingress("own-3", ""), ingress("own", "", [available("lie", 9)]))
        await trio.sleep(1)
        assert offered(store, "own") == offered(store, "own-3") == [("default", "web", 2)]
        await delete(store, dataplane("d", "web"), dataplane("e", "web"))
        await trio.sleep(1)
        assert offered(store, "own") == []
        assert offered(store, "b") == [("default", "x", 1)], "others' ingresses are theirs"
        assert "x" in keeper.views.value["default"].services


async def test_a_conflict_over_an_ingress_is_looked_at_again(store, now, autojump_clock):
    await put(store, mesh(), dataplane("d", "web"), ingress("own", ""))
    store.failures = []
    async with running(store, now):

        async def meanwhile():
            await put(store, ingress("own", "", [available("stale", 1)], address="new.example"))

        await trio.sleep(1)
        store.before_write = meanwhile
        await put(store, dataplane("e", "web", address="10.0.0.2"))
        await trio.sleep(1)
        own = store.get(ResourceKey("ZoneIngress", "", "own"))
        assert own.spec.networking.advertised_address == "new.example"
        assert offered(store, "own") == [("default", "web", 2)]


async def test_an_ingress_deleted_meanwhile_is_left_alone(store, now, autojump_clock):
    await put(store, mesh(), dataplane("d", "web"), ingress("own", ""))
    async with running(store, now):

        async def meanwhile():
            await delete(store, ingress("own", ""))

        await trio.sleep(1)
        store.before_write = meanwhile
        await put(store, dataplane("e", "web", address="10.0.0.2"))
        await trio.sleep(1)
        assert store.get(ResourceKey("ZoneIngress", "", "own")) is None


async def test_what_cannot_be_used_is_said_once(store, now, caplog, autojump_clock):
    await put(store, mesh(), ingress("b", "zone-b", [available("web", 1)], port=0))
    async with running(store, now):
        await put(store, dataplane("d", "db"))
        await trio.sleep(1)
        await put(store, dataplane("e", "db"))
        await trio.sleep(1)
    assert caplog.text.count("ZoneIngress b of zone zone-b has no advertised address and port; not used") == 1


async def test_it_idles_when_nothing_happens(store, now, autojump_clock):
    await put(store, mesh(), dataplane("d", "web"))
    async with running(store, now) as keeper:
        await wait_all_tasks_blocked()
        version = keeper.views.version
        await trio.sleep(80_000)
        assert keeper.views.version == version


def test_a_cidr_without_addresses_is_refused(store, now):
    with pytest.raises(ValueError, match=r"127\.0\.0\.0/24"):
        keeper_of(store, now, cidr="127.0.0.0/24")


async def test_a_conflict_error_of_the_store_is_not_weather_for_vips(store, now):
    await put(store, mesh(), dataplane("d", "web"))
    store.failures = [ConflictError("bug")]
    with pytest.raises(ConflictError):
        await keeper_of(store, now).run()


async def test_a_restart_over_sqlite_changes_nothing(tmp_path, now):
    path = tmp_path / "zone.db"

    async def run_once(*resources):
        async with SqliteStore.open(path, REGISTRY, now) as store:
            await store.write([Put(r) for r in resources])
            with store.watch() as feed:
                async with running(store, now) as keeper:
                    versions = {name: view.version for name, view in keeper.views.value.items()}
                changed = feed.take_now()
            stored = [(r.key, r.version) for kind in ("Config", "ZoneIngress") for r in store.list(kind)]
            return versions, stored, changed

    first = await run_once(mesh(), dataplane("d", "web", "a_b"), ingress("own", ""), policy("p"))
    assert {key.kind for key in first[2]} == {"Config", "ZoneIngress"}
    now.time += timedelta(minutes=5)
    assert await run_once() == (*first[:2], frozenset())
