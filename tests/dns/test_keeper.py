import os
import signal
from pathlib import Path

import pytest
import trio
from prometheus_client import CollectorRegistry

from meshd.dns import keeper
from meshd.dns.service import Resolver
from meshd.dns.settings import Address, DnsSettings, QueryLog
from meshd.runtime.latest import Latest
from tests.dns.support import query, view, vip

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


class Host:
    """A resolver with worker processes."""

    def __init__(self, workers: int, **more: object) -> None:
        self.views = Latest({"default": view({"backend": vip("240.0.0.1", "backend.mesh")})})
        self.registry = CollectorRegistry()
        settings = DnsSettings(listen=Address("127.0.0.1", 0), workers=workers, **more)  # type: ignore[arg-type]
        self.resolver = Resolver(settings, self.views, "default", Latest(None), self.registry)

    def pids(self) -> list[int]:
        return [worker.pid for worker in self.resolver._workers]

    async def until_all_work(self, without: int = 0) -> None:
        with trio.fail_after(30):
            while not all(self.pids()) or without in self.pids():
                await trio.sleep(0.02)

    async def ask(self, name: str) -> bytes:
        """From a port of its own, so that it may come to any worker."""
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
            await sock.connect(("127.0.0.1", self.resolver.address.port))
            await sock.send(query(name))
            with trio.fail_after(5):
                return await sock.recv(512)

    def answered(self) -> float:
        found = self.registry.get_sample_value(
            "meshd_dns_queries_total", {"type": "A", "rcode": "NOERROR", "path": "fast"}
        )
        return found or 0.0


async def test_workers_answer_follow_the_view_and_are_counted(nursery: trio.Nursery) -> None:
    host = Host(2)
    await nursery.start(host.resolver.run)
    assert (await host.ask("backend.mesh"))[-4:] == b"\xf0\0\0\1"  # at once, by whomever
    await host.until_all_work()
    for _ in range(20):
        assert (await host.ask("backend.mesh"))[-4:] == b"\xf0\0\0\1"
    host.views.publish({"default": view({"new": vip("240.0.0.2", "new.mesh")})})
    with trio.fail_after(5):
        while {(await host.ask("new.mesh"))[-4:] for _ in range(20)} != {b"\xf0\0\0\2"}:
            await trio.sleep(0.02)
        assert {(await host.ask("backend.mesh"))[3] & 0xF for _ in range(20)} == {3}
        while host.answered() < 41:
            await trio.sleep(0.05)
    async with await trio.open_tcp_stream("127.0.0.1", host.resolver.address.port) as stream:
        message = query("new.mesh")
        await stream.send_all(len(message).to_bytes(2) + message)
        with trio.fail_after(5):
            assert (await stream.receive_some(512))[-4:] == b"\xf0\0\0\2"


async def test_a_worker_that_ends_is_replaced_and_no_query_is_lost(nursery: trio.Nursery) -> None:
    host = Host(1)
    await nursery.start(host.resolver.run)
    await host.until_all_work()
    (pid,) = host.pids()
    os.kill(pid, signal.SIGKILL)
    for _ in range(50):
        assert (await host.ask("backend.mesh"))[-4:] == b"\xf0\0\0\1"
    await host.until_all_work(without=pid)
    assert host.registry.get_sample_value("meshd_dns_workers_total", {"event": "started"}) == 2
    assert host.registry.get_sample_value("meshd_dns_workers_total", {"event": "ended"}) == 1


async def test_a_worker_that_hangs_is_replaced(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SILENT_S", 2.5)  # longer than the second between two reports
    monkeypatch.setattr(keeper, "STOP_S", 0.1)
    host = Host(2)
    await nursery.start(host.resolver.run)
    await host.until_all_work()
    hung, other = host.pids()
    os.kill(hung, signal.SIGSTOP)
    await host.until_all_work(without=hung)
    assert host.pids()[1] == other
    for _ in range(20):
        assert (await host.ask("backend.mesh"))[-4:] == b"\xf0\0\0\1"


async def test_workers_end_with_the_resolver() -> None:
    host = Host(1)
    async with trio.open_nursery() as nursery:
        await nursery.start(host.resolver.run)
        await host.until_all_work()
        (pid,) = host.pids()
        nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_workers_log_queries_and_tell_what_is_asked_most(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Both write into one file, and find a new one when it is renamed; the top names are those of both."""
    path = tmp_path / "q.log"
    host = Host(2, query_log=QueryLog(path), top_names=5)
    await nursery.start(host.resolver.run)
    await host.until_all_work()
    path.rename(tmp_path / "q.log.1")
    for _ in range(40):
        await host.ask("backend.mesh")
    value = host.registry.get_sample_value
    with trio.fail_after(10):
        while value("meshd_dns_query_log_lines_total", {"event": "written"}) != 40:
            await trio.sleep(0.02)
        while host.resolver.status()["topNames"] != [{"name": "backend.mesh", "rcode": "NOERROR", "queries": 40}]:
            await trio.sleep(0.02)
    lines = path.read_text().splitlines()
    assert {line.split()[2:7] == ["udp", "backend.mesh", "A", "NOERROR", "fast"] for line in lines} == {True}
    assert len(lines) == 40
    assert value("meshd_dns_top_name_queries", {"name": "backend.mesh"}) == 40
