"""The host of the proxies, over a memory store and engines that only pretend, in virtual time."""

import random
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from meshd.app.carriers import Carrier, Selection, Wanted
from meshd.app.service import Ignored, ProxyHost, SecretWatch
from meshd.config.tree import ProxyEntry
from meshd.insight.proxies import Report
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.mesh import Mesh
from meshd.kinds.secret import Secret
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.l4.render import check, fixed_listeners
from meshd.model.resource import Resource, ResourceKey
from meshd.policies import discover
from meshd.policies.ignored import REASON, ignored, without_engine
from meshd.policies.mesh_retry import MeshRetry
from meshd.runtime.latest import Latest
from meshd.runtime.listen import ListenError
from meshd.store.memory import MemoryStore
from meshd.store.store import Delete, Put
from meshd.topology.view import BoundVips
from tests.rest.support import NOW

DRAIN_S = 5
INGRESS = ResourceKey("ZoneIngress", "", "in")
VM = ResourceKey("Dataplane", "default", "vm")
WEB = ResourceKey("Dataplane", "default", "web-1")


def dataplane(key, *protocols, **networking):
    inbounds = [
        {"port": 80 + at, "servicePort": 8080, "tags": {"kuma.io/service": "web", "kuma.io/protocol": protocol}}
        for at, protocol in enumerate(protocols)
    ]
    return Resource(
        key, Dataplane.model_validate({"networking": {"address": "10.0.0.1", "inbound": inbounds, **networking}})
    )


class FakeEngine:
    """Runs until cancelled and then drains; ``busy`` addresses refuse it."""

    def __init__(self, world, cell, entry):
        self.world, self.cell, self.entry = world, cell, entry
        self.name = f"engine of {cell.value.key}"
        self.ready = Latest(value=False)
        self.trouble = Latest("")
        self.bound_vips = Latest(BoundVips())
        self.served_views = Latest({})

    async def run(self, *, task_status=trio.TASK_STATUS_IGNORED):
        name = self.cell.value.key.name
        if name in self.world.busy:
            raise ListenError(f"{name}: the address is in use")
        self.world.log.append(f"{name} up")
        self.ready.publish(True)
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(DRAIN_S)
            self.world.log.append(f"{name} down")

    def note(self, what):
        return lambda: self.world.log.append(f"{self.cell.value.key.name} {what}")

    def carrier(self):
        is_envoy = self.entry.engine == "envoy"
        return Carrier(
            self,
            self.ready,
            self.trouble,
            self.bound_vips,
            self.served_views,
            refused=(lambda _: ()) if is_envoy else check,
            carries=lambda resource: bool(fixed_listeners(resource)),
            retire=self.note("retired"),
            forget=self.note("forgotten"),
            has_stream=is_envoy,
        )


class World:
    def __init__(self):
        self.store = MemoryStore(lambda: NOW)
        self.registry = CollectorRegistry()
        self.busy, self.log, self.engines, self.cleanings = set(), [], {}, 0

    def carrier(self, cell, entry):
        engine = self.engines[cell.value.key.name] = FakeEngine(self, cell, entry)
        return engine.carrier()

    async def clean(self):
        self.cleanings += 1

    async def release(self, mesh, name):
        self.log.append(f"{mesh}/{name} released")

    def host(self, own=(), vip_owner=None, names="web-*", engine="builtin", ignored=None):
        def entry(**also):
            return ProxyEntry.model_validate({"engine": engine, **also})

        wanted = Wanted(
            {key: entry(vips=key == vip_owner) for key in own},
            (Selection("default", names, entry()), Selection("default", "web-*", entry(vips=True))),
        )
        rng = random.Random(1)
        return ProxyHost(self.store, wanted, self.carrier, self.release, self.clean, rng, self.registry, ignored)

    async def put(self, *resources):
        await self.store.write([Put(r) for r in resources])
        await trio.testing.wait_all_tasks_blocked()

    async def delete(self, key):
        await self.store.write([Delete(key)])
        await trio.testing.wait_all_tasks_blocked()

    def refused_parts(self, name):
        return self.registry.get_sample_value("meshd_proxies_refused_parts", {"mesh": "default", "name": name})


@pytest.fixture
def world():
    return World()


@asynccontextmanager
async def running(host):
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        yield host
        nursery.cancel_scope.cancel()


async def test_proxies_of_the_file_are_up_when_it_has_started(world, autojump_clock):
    await world.put(Resource(INGRESS, ZoneIngress()), dataplane(VM, "tcp"))
    host = world.host([INGRESS, VM], vip_owner=VM)
    assert not host.ready()
    async with running(host):
        assert world.log == ["in up", "vm up"]
        assert (world.engines["in"].entry.vips, world.engines["vm"].entry.vips) == (False, True)
        assert host.ready()
        assert host.reports.value == {INGRESS: Report(), VM: Report()}


async def test_the_owner_of_the_vips_starts_last_so_that_it_takes_no_port_of_the_others(world, autojump_clock):
    await world.put(Resource(INGRESS, ZoneIngress()), dataplane(VM, "tcp"))
    async with running(world.host([VM, INGRESS], vip_owner=VM)):
        assert world.log == ["in up", "vm up"]


async def test_vips_are_answered_where_their_owner_listens_and_all_if_there_is_none(world, autojump_clock):
    await world.put(dataplane(VM, "tcp"))
    host = world.host([VM], vip_owner=VM)
    assert host.bound_vips.value == BoundVips()  # nowhere, until it runs
    async with running(host):
        bound = BoundVips(single=frozenset({("127.1.0.1", 80)}))
        world.engines["vm"].bound_vips.publish(bound)
        await trio.testing.wait_all_tasks_blocked()
        assert host.bound_vips.value == bound
    assert World().host([VM]).bound_vips.value is None


async def test_an_address_of_the_file_that_is_taken_ends_all(world, autojump_clock):
    await world.put(dataplane(VM, "tcp"))
    world.busy.add("vm")
    with pytest.raises(BaseExceptionGroup) as ended:
        async with running(world.host([VM])):
            pass
    assert ended.group_contains(ListenError, match="vm: the address is in use")


async def test_selected_dataplanes_come_change_and_go(world, autojump_clock):
    await world.put(dataplane(WEB, "tcp"))
    host = world.host()
    async with running(host):
        await trio.testing.wait_all_tasks_blocked()
        assert host.reports.value == {WEB: Report()}
        await world.put(dataplane(ResourceKey("Dataplane", "default", "db-1"), "tcp"))
        assert set(host.reports.value) == {WEB}
        changed = dataplane(WEB, "tcp", "tcp")
        await world.put(changed)
        assert world.engines["web-1"].cell.value.spec == changed.spec
        assert not world.engines["web-1"].entry.vips  # the first selection that has it
        await world.delete(WEB)
        assert host.reports.value == {}
        assert world.log == ["web-1 up", "web-1 retired"]
        await trio.sleep(DRAIN_S + 1)
        assert world.log == ["web-1 up", "web-1 retired", "web-1 down", "web-1 forgotten", "default/web-1 released"]


async def test_a_dataplane_that_is_back_before_its_connections_have_drained_keeps_its_identity(world, autojump_clock):
    await world.put(dataplane(WEB, "tcp"))
    host = world.host()
    async with running(host):
        await world.delete(WEB)
        await world.put(dataplane(WEB, "tcp"))
        await trio.sleep(DRAIN_S + 1)
        assert sorted(world.log) == ["web-1 down", "web-1 retired", "web-1 up", "web-1 up"]
        assert host.reports.value == {WEB: Report()}


async def test_a_shutdown_releases_nothing(world, autojump_clock):
    await world.put(dataplane(WEB, "tcp"))
    async with running(world.host()):
        await trio.testing.wait_all_tasks_blocked()
    assert world.log == ["web-1 up", "web-1 down"]


async def test_an_address_of_a_selected_one_that_is_taken_is_reported_and_tried_again(world, autojump_clock):
    world.busy.add("web-1")
    await world.put(dataplane(WEB, "tcp"))
    host = world.host()
    async with running(host):
        await trio.testing.wait_all_tasks_blocked()
        report = host.reports.value[WEB]
        assert not report.is_carried
        assert [str(v) for v in report.refused] == ["networking: web-1: the address is in use"]
        world.busy.clear()
        await trio.sleep(60)
        assert host.reports.value == {WEB: Report()}


async def test_what_the_engine_does_not_carry_is_said_once_counted_and_reported(world, caplog, autojump_clock):
    await world.put(dataplane(WEB, "http"))
    host = world.host()
    async with running(host):
        await trio.testing.wait_all_tasks_blocked()
        report = host.reports.value[WEB]
        assert not report.is_carried
        assert [v.field for v in report.refused] == ["networking.inbound[0]"]
        assert world.refused_parts("web-1") == 1
        await world.put(dataplane(WEB, "http", "tcp"))
        assert host.reports.value[WEB].is_carried
        assert len(host.reports.value[WEB].refused) == 1
        assert len([r for r in caplog.records if "not carried" in r.message]) == 1
        await world.put(dataplane(WEB, "tcp"))
        assert host.reports.value == {WEB: Report()}
        assert world.refused_parts("web-1") is None
        await world.put(dataplane(WEB, "http"))
        await world.delete(WEB)
        assert world.refused_parts("web-1") is None
        assert len([r for r in caplog.records if "not carried" in r.message]) == 2


async def test_what_an_earlier_run_left_is_cleared_away_once_the_proxies_are_there(world, autojump_clock):
    await world.put(dataplane(WEB, "tcp"))
    async with running(world.host()):
        await trio.testing.wait_all_tasks_blocked()
        assert (list(world.engines), world.cleanings) == (["web-1"], 1)
        await world.put(dataplane(WEB, "tcp", "tcp"))
        assert world.cleanings == 1


# ---- Envoys


@pytest.mark.parametrize("key", [VM, WEB], ids=["file", "selected"])
async def test_an_envoy_says_itself_that_it_is_online_and_is_reported_with_its_trouble(world, key, autojump_clock):
    await world.put(dataplane(key, "http"))
    host = world.host([VM] if key == VM else [], engine="envoy")
    async with running(host):
        await trio.testing.wait_all_tasks_blocked()
        assert host.reports.value == {key: Report(has_stream=True)}  # http is nothing that it refuses
        envoy = world.engines[key.name]
        envoy.trouble.publish("was ended by SIGKILL")
        await trio.testing.wait_all_tasks_blocked()
        assert [str(v) for v in host.reports.value[key].refused] == ["envoy: was ended by SIGKILL"]
        envoy.trouble.publish("")
        await trio.testing.wait_all_tasks_blocked()
        assert host.reports.value == {key: Report(has_stream=True)}
        envoy.ready.publish(False)
        assert host.ready() is (key == WEB)


async def test_the_vips_of_an_envoy_are_those_that_it_has_acknowledged_while_it_lives(world, autojump_clock):
    await world.put(dataplane(VM, "tcp"))
    host = world.host([VM], vip_owner=VM, engine="envoy")
    async with running(host):
        envoy, bound = world.engines["vm"], BoundVips(single=frozenset({("127.1.0.1", 80)}))
        for now in (bound, BoundVips(), bound):
            envoy.bound_vips.publish(now)
            envoy.served_views.publish({"default": now})
            await trio.testing.wait_all_tasks_blocked()
            assert host.bound_vips.value == now
            assert host.served_views.value == {"default": now}
        for is_ready, now in ((False, BoundVips()), (True, bound)):
            envoy.ready.publish(is_ready)
            await trio.testing.wait_all_tasks_blocked()
            assert host.bound_vips.value == now


async def test_a_written_or_removed_secret_is_told_and_nothing_else():
    store = MemoryStore(lambda: NOW)
    watch = SecretWatch(store)
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.run)
        await store.write([Put(Resource(ResourceKey("Mesh", "", "default"), Mesh()))])
        await trio.testing.wait_all_tasks_blocked()
        assert watch.changes.value == 0
        key = ResourceKey("Secret", "default", "ca")
        for number, edit in enumerate((Put(Resource(key, Secret(data=b"x"))), Delete(key)), 1):
            await store.write([edit])
            await trio.testing.wait_all_tasks_blocked()
            assert watch.changes.value == number
        nursery.cancel_scope.cancel()


async def test_policies_that_an_engine_does_not_follow_are_reported_while_they_are_there(world, caplog, autojump_clock):
    policies = discover()
    unheard = Ignored(without_engine(policies), partial(ignored, policies, world.store.list))
    retry = Resource(ResourceKey("MeshRetry", "default", "often"), MeshRetry())
    host = world.host(ignored=unheard)
    await world.put(Resource(ResourceKey("Mesh", "", "default"), Mesh()), dataplane(WEB, "tcp"))
    async with running(host):
        await trio.testing.wait_all_tasks_blocked()
        assert host.reports.value == {WEB: Report(True)}
        await world.put(retry)
        [violation] = host.reports.value[WEB].refused
        assert violation.field == "MeshRetry often"
        await world.delete(retry.key)
        assert host.reports.value == {WEB: Report(True)}
    assert [r.message for r in caplog.records if "MeshRetry" in r.message] == [
        f"Dataplane default/web-1: MeshRetry often: {REASON}"
    ]
