import logging
import random
from dataclasses import replace
from datetime import timedelta

import pytest
import trio

from meshd.ca.identity import Credentials, Identity, TrustBundle, no_credentials
from meshd.insight.proxies import MAX_SUBSCRIPTIONS, Report, Run, connected, insight_key
from meshd.insight.service import ProxyInsights
from meshd.kinds.mesh import CertificateAuthorityBackend, Mesh, Mtls
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model.errors import Violation
from meshd.model.resource import Resource, ResourceKey
from meshd.runtime.latest import Latest
from meshd.store.memory import MemoryStore
from meshd.store.store import Delete, Put, Update
from tests.insight.test_computed import dataplane
from tests.rest.support import NOW

WEB = ResourceKey("Dataplane", "default", "a")
INGRESS = ResourceKey("ZoneIngress", "", "in")
BACKEND = CertificateAuthorityBackend(name="ca-1", type="builtin")
MESH = Resource(ResourceKey("Mesh", "", "default"), Mesh(mtls=Mtls(enabled_backend="ca-1", backends=(BACKEND,))))


def shown(hours):
    identity = Identity("default", ("spiffe://default/x",), b"", b"", NOW, NOW + timedelta(hours=hours))
    return Credentials(identity, TrustBundle("default", b"x"))


def reports(*keys, refused=(), is_carried=True):
    return {key: Report(is_carried, tuple(refused)) for key in keys}


class Bench:
    def __init__(self):
        self.store = MemoryStore(lambda: NOW)
        self.running = Latest(reports(WEB, INGRESS))
        self.credentials = Latest(no_credentials("default"))
        self.cells = {WEB: self.credentials}
        self.runs = 0

    def service(self):
        self.runs += 1
        return ProxyInsights(
            self.store,
            self.running,
            self.cells.get,
            f"run-{self.runs}",
            lambda: NOW + timedelta(seconds=self.runs),
            random.Random(self.runs),
        )

    async def add_proxies(self):
        ingress = Resource(INGRESS, ZoneIngress())
        await self.store.write([Put(MESH), Put(dataplane("a", "x")), Put(ingress)])

    def insight(self, key=WEB):
        return self.store.get(insight_key(key)).spec


@pytest.fixture
async def bench():
    bench = Bench()
    await bench.add_proxies()
    return bench


async def test_a_proxy_is_online_while_the_process_runs_and_offline_after(bench, autojump_clock):
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.service().run)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.insight().is_online
        assert bench.insight(INGRESS).is_online
        (opened,) = bench.insight().subscriptions
        assert (opened.control_plane_instance_id, opened.version.dependencies) == ("run-1", {"engine": "builtin"})
        assert bench.store.get(insight_key(WEB)).owner == WEB
        nursery.cancel_scope.cancel()
    assert not bench.insight().is_online
    assert not bench.insight(INGRESS).is_online


async def test_what_a_crash_left_open_is_ended_by_the_next_run(bench, autojump_clock):
    gone = ResourceKey("ZoneIngress", "", "gone")
    await bench.store.write([Put(Resource(gone, ZoneIngress()))])
    bench.running.publish(reports(WEB, gone))
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.service().run)
        await trio.testing.wait_all_tasks_blocked()
        crashed = bench.store.get(insight_key(WEB)), bench.store.get(insight_key(gone))
        nursery.cancel_scope.cancel()
    await bench.store.write([Put(r) for r in crashed])  # as if nobody had said goodbye
    bench.running.publish(reports(WEB))
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.service().run)
        await trio.testing.wait_all_tasks_blocked()
        first, second = bench.insight().subscriptions
        assert (first.is_open, second.is_open) == (False, True)
        assert not bench.insight(gone).is_online
        nursery.cancel_scope.cancel()


async def test_only_the_last_runs_are_remembered(bench, autojump_clock):
    for _ in range(MAX_SUBSCRIPTIONS + 3):
        async with trio.open_nursery() as nursery:
            await nursery.start(bench.service().run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert len(bench.insight().subscriptions) == MAX_SUBSCRIPTIONS


async def test_the_certificate_is_reported_and_each_renewal_counted(bench, autojump_clock, nursery):
    await nursery.start(bench.service().run)
    await trio.testing.wait_all_tasks_blocked()
    assert bench.insight().mtls is None
    for hours in (1, 2):
        bench.credentials.publish(shown(hours))
        await trio.testing.wait_all_tasks_blocked()
    mtls = bench.insight().mtls
    assert mtls.certificate_expiration_time == NOW + timedelta(hours=2)
    assert (mtls.certificate_regenerations, mtls.issued_backend, mtls.supported_backends) == (2, "ca-1", ("ca-1",))
    version = bench.store.get(insight_key(WEB)).version
    bench.credentials.publish(shown(2))
    await trio.testing.wait_all_tasks_blocked()
    assert bench.store.get(insight_key(WEB)).version == version
    bench.credentials.publish(no_credentials("default"))
    await trio.testing.wait_all_tasks_blocked()
    assert bench.insight().mtls is None


async def test_proxies_that_come_and_go_are_followed(bench, autojump_clock, nursery):
    await bench.store.write([Delete(WEB)])
    await nursery.start(bench.service().run)
    await trio.testing.wait_all_tasks_blocked()
    assert bench.store.get(insight_key(WEB)) is None
    await bench.store.write([Put(dataplane("a", "x"))])
    await trio.testing.wait_all_tasks_blocked()
    assert bench.insight().is_online
    bench.running.publish(reports(INGRESS))
    await trio.testing.wait_all_tasks_blocked()
    assert not bench.insight().is_online
    bench.running.publish(reports(WEB, INGRESS))
    await trio.testing.wait_all_tasks_blocked()
    assert bench.insight().is_online


async def test_certificates_of_proxies_that_come_and_go_are_followed(bench, autojump_clock, nursery):
    late = ResourceKey("Dataplane", "default", "late")
    cell = Latest(shown(3))
    bench.cells[late] = cell
    await nursery.start(bench.service().run)
    await bench.store.write([Put(dataplane("late", "x"))])
    bench.running.publish(reports(WEB, INGRESS, late))
    await trio.testing.wait_all_tasks_blocked()
    assert bench.insight(late).mtls.certificate_expiration_time == NOW + timedelta(hours=3)
    bench.running.publish(reports(WEB, INGRESS))
    await trio.testing.wait_all_tasks_blocked()
    cell.publish(shown(4))
    await trio.testing.wait_all_tasks_blocked()
    assert bench.insight(late).mtls.certificate_regenerations == 1
    bench.cells[late] = Latest(shown(5))  # released meanwhile, and asked for anew
    bench.running.publish(reports(WEB, INGRESS, late))
    await trio.testing.wait_all_tasks_blocked()
    assert bench.insight(late).mtls.certificate_expiration_time == NOW + timedelta(hours=5)


async def test_what_is_not_carried_is_offline_and_says_why(bench, autojump_clock, nursery):
    wrong = Violation("networking.inbound[0]", "protocol 'http'")
    bench.running.publish(reports(WEB, refused=[wrong], is_carried=False))
    await nursery.start(bench.service().run)
    await trio.testing.wait_all_tasks_blocked()
    assert not bench.insight().is_online
    assert bench.insight().metadata == {"refused": {"networking.inbound[0]": "protocol 'http'"}}
    assert bench.store.get(insight_key(WEB)).owner == WEB
    bench.running.publish(reports(WEB, refused=[wrong]))  # another inbound came
    await trio.testing.wait_all_tasks_blocked()
    assert bench.insight().is_online
    assert "refused" in bench.insight().metadata
    bench.running.publish(reports(WEB))
    await trio.testing.wait_all_tasks_blocked()
    assert bench.insight().is_online
    assert bench.insight().metadata is None
    bench.running.publish(reports(WEB, refused=[wrong], is_carried=False))
    await trio.testing.wait_all_tasks_blocked()
    assert not bench.insight().is_online


async def test_of_a_proxy_with_a_stream_only_its_trouble_is_said(bench, autojump_clock):
    trouble = Violation("envoy", "was ended by SIGKILL")
    bench.running.publish({WEB: Report(has_stream=True)})
    bench.credentials.publish(shown(hours=24))
    async with trio.open_nursery() as running:
        await running.start(bench.service().run)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.store.get(insight_key(WEB)) is None
        bench.running.publish({WEB: Report(refused=(trouble,), has_stream=True)})
        await trio.testing.wait_all_tasks_blocked()
        assert bench.insight().subscriptions == ()
        assert bench.insight().metadata == {"refused": {"envoy": "was ended by SIGKILL"}}
        online = connected(WEB, bench.store.get(insight_key(WEB)), Run("run-1", "stream"), NOW)
        await bench.store.write([Put(online)])  # as whoever serves its stream does
        bench.running.publish({WEB: Report(has_stream=True)})
        await trio.testing.wait_all_tasks_blocked()
        assert bench.insight().is_online
        assert bench.insight().metadata is None
        assert bench.insight().mtls is None
        running.cancel_scope.cancel()
    assert bench.insight().is_online  # its stream may not even have ended


class Contended(MemoryStore):
    """A store in which somebody else writes an insight just before each of the first ``left`` updates of it."""

    left = 0

    async def write(self, edits):
        for edit in edits:
            if isinstance(edit, Update) and edit.resource.key == insight_key(WEB) and self.left:
                self.left -= 1
                stored = self.get(edit.resource.key)
                labels = {**stored.labels, "seen": str(self.left)}
                await super().write([Put(replace(stored, labels=labels))])
        return await super().write(edits)


@pytest.mark.parametrize(("times", "warnings"), [(3, 0), (12, 1)])
async def test_who_comes_second_reads_again_and_warns_only_if_it_goes_on(autojump_clock, caplog, times, warnings):
    bench = Bench()
    bench.store = Contended(lambda: NOW)
    await bench.add_proxies()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.service().run)
        await trio.testing.wait_all_tasks_blocked()
        bench.store.left = times
        bench.credentials.publish(shown(1))
        await trio.sleep(60)
        assert bench.store.left == 0
        assert bench.insight().mtls.certificate_regenerations == 1
        assert bench.store.get(insight_key(WEB)).labels == {"seen": "0"}, "what the other wrote is kept"
        assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == warnings
        nursery.cancel_scope.cancel()


async def test_a_proxy_that_is_deleted_while_its_insight_is_written_is_no_trouble(autojump_clock, caplog):
    class Deleting(MemoryStore):
        async def write(self, edits):
            if any(isinstance(e, Update) and e.resource.key == insight_key(WEB) for e in edits):
                await super().write([Delete(WEB)])
            return await super().write(edits)

    bench = Bench()
    bench.store = Deleting(lambda: NOW)
    await bench.add_proxies()
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.service().run)
        await trio.testing.wait_all_tasks_blocked()
        bench.credentials.publish(shown(1))
        await trio.sleep(60)
        assert bench.store.get(insight_key(WEB)) is None
        nursery.cancel_scope.cancel()
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
