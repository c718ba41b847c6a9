"""A real Envoy with a static configuration under the supervision of meshd, and under traffic."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import trio

from meshd.envoy.binary import wheel_binary
from meshd.envoy.client import Admin, AtSocket
from meshd.envoy.command import Options
from tests.e2e.lab import eventually
from tests.envoy.support import WEB, World, mode, said, until, with_admin
from tests.l4 import envoy as static
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


class RealWorld(World):
    """A world of real Envoys that carry connections from ``port`` to an echoing server."""

    def __init__(self, tmp_path, state_dir=None):
        pytest.importorskip("envoy")
        super().__init__(tmp_path, state_dir)
        self.port, self.upstream = free_port(), free_port()
        self.options = Options(wheel_binary(), drain_s=3, concurrency=1)
        self.static = {}

    def document(self):
        filters = [{"filters": [static.tcp_proxy("echo")]}]
        listener = {"name": "in", "address": static.address(self.port), "filter_chains": filters}
        clusters = [static.cluster("echo", self.upstream)]
        return {"static_resources": {"listeners": [listener], "clusters": clusters}} | self.static

    async def bootstrap(self, surroundings):
        self.surroundings = surroundings
        return with_admin(self.document(), surroundings)


@pytest.fixture
def world(tmp_path, caplog):
    caplog.set_level("INFO")
    world = RealWorld(tmp_path)
    with echo_server(world.upstream):
        yield world
    world.end_all()


@contextmanager
def echo_server(port):
    def serve(connection):
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=[connection], daemon=True).start()

    with socket.create_server(("127.0.0.1", port)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)


def echoes(stream, text=b"hello"):
    stream.sendall(text)
    return stream.recv(100) == text


def connect(port):
    return socket.create_connection(("127.0.0.1", port), 5)


class Traffic:
    """New connections, one after the other, until it is stopped; counts those that failed."""

    def __init__(self, port):
        self.port, self.done, self.failed, self.is_over = port, 0, [], False
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.is_over:
            try:
                with connect(self.port) as stream:
                    assert echoes(stream)
                self.done += 1
            except (OSError, AssertionError) as error:
                self.failed.append(repr(error))
            time.sleep(0.002)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over = True
        self.thread.join()


async def test_it_serves_is_killed_serves_again_and_drains(world, caplog):
    world.kept = False
    async with world.running() as process:
        first = world.pid()
        at = world.at()
        assert mode(at.admin_socket) == 0o600
        assert world.surroundings.version.text.startswith("1.")
        with connect(world.port) as stream:
            assert echoes(stream)
        os.kill(first, signal.SIGKILL)
        await until(lambda: not process.ready.value)
        await until(lambda: process.ready.value)
        assert world.pid() != first
        assert world.metric("restarts_total") == 1
        lasting = connect(world.port)
        assert echoes(lasting)
        threading.Timer(1, lasting.close).start()
        began = trio.current_time()
    assert 0.8 < trio.current_time() - began < 2.8  # as long as the connection, not as the drain may last
    assert world.pid() is None
    with pytest.raises(OSError):
        connect(world.port)
    assert not [m for m in caplog.messages if "has not ended" in m or "cannot be drained" in m]


async def test_while_it_drains_what_is_open_goes_on_and_nothing_new_is_taken(world):
    world.kept = False
    with_connection = {}

    async def watch():
        await until(lambda: Refused.of(world.port))
        with_connection["echoes"] = echoes(lasting)

    async with trio.open_nursery() as nursery, world.running():
        lasting = connect(world.port)
        assert echoes(lasting)
        nursery.start_soon(watch)
        began = trio.current_time()
    assert with_connection == {"echoes": True}
    assert 2.8 < trio.current_time() - began < 4.5
    assert not lasting.recv(1)
    lasting.close()


async def test_a_proxy_that_is_removed_and_back_at_once_loses_no_connection(world):
    async with trio.open_nursery() as nursery:
        async with world.running() as process:
            first = world.pid()
            lasting = connect(world.port)
            traffic = Traffic(world.port)
            process.retire()
            again = world.fleet.process(WEB, world.options)
            nursery.start_soon(again.run)
            await trio.testing.wait_all_tasks_blocked()
            traffic.thread.start()
        await until(lambda: again.ready.value and traffic.done > 100)
        traffic.is_over = True
        await trio.to_thread.run_sync(traffic.thread.join)
        assert not traffic.failed
        assert echoes(lasting)
        assert world.pid() == first
        lasting.close()
        nursery.cancel_scope.cancel()


class Refused:
    @staticmethod
    def of(port):
        try:
            connect(port).close()
        except ConnectionRefusedError:
            return True
        return False


async def test_a_configuration_that_it_refuses_is_told_with_its_own_words(world, caplog):
    world.static = {"static_resources": {"listeners": [{"name": "x", "adress": 1}]}}
    async with world.running(ready=False) as process:
        await until(lambda: process.trouble.value)
        assert "failed with exit code 1 before it was ready: " in process.trouble.value
        assert "adress" in process.trouble.value
    assert any("adress" in m for m in said(caplog))


async def test_a_crash_is_told_with_what_happened(world):
    async with world.running() as process:
        os.kill(world.pid(), signal.SIGSEGV)
        await until(lambda: process.trouble.value)
        assert "was ended by SIGSEGV after it was ready for" in process.trouble.value
        assert "Caught Segmentation fault" in process.trouble.value


async def test_its_log_level_changes_without_a_new_one(world, caplog):
    async with world.running():
        first = world.pid()
    world.options = Options(wheel_binary(), 3, "debug", concurrency=1)
    world.new_run()
    caplog.set_level("DEBUG")
    async with world.running():
        assert world.pid() == first
        await Admin(AtSocket(world.at().admin_socket)).server_info()
        await until(lambda: any(": http: " in m or "conn_handler: " in m for m in said(caplog, 0)))


async def test_it_says_what_people_ask(world):
    world.static = {"node": {"id": "default.web-1", "cluster": "web"}}
    async with world.running():
        admin = Admin(AtSocket(world.at().admin_socket))
        assert await admin.node_id() == "default.web-1"
        dump = json.loads(await admin.config_dump(include_eds=True))
        assert dump["configs"][0]["bootstrap"]["node"]["id"] == "default.web-1"
        assert b"echo::default_priority::max_connections" in await admin.clusters(as_json=False)
        assert json.loads(await admin.clusters(as_json=True))["cluster_statuses"][0]["name"] == "echo"
        used = await admin.stats(as_json=False, used_only=True)
        assert len(used) < len(await admin.stats(as_json=False, used_only=False))
        assert "stats" in json.loads(await admin.stats(as_json=True, used_only=True))


async def test_a_deep_state_directory(world, tmp_path):
    deep = tmp_path / ("d" * 100)
    world.state = deep
    world.new_run()
    async with world.running() as process:
        with connect(world.port) as stream:
            assert echoes(stream)
        assert mode(world.at().admin_socket) == 0o600
        assert not world.at().admin_socket.is_relative_to(deep)
        process.retire()
    assert not world.at().sockets.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_no_connection_fails_while_meshd_is_killed_or_stopped_and_started_again(world, tmp_path, number):
    document = tmp_path / "document.json"
    document.write_text(json.dumps(world.document()))
    command = [sys.executable, "-m", "tests.envoy.one_run", str(world.state), str(document)]

    def run():
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def serves():
        with connect(world.port) as stream:
            return echoes(stream)

    meshd = run()
    try:
        await trio.to_thread.run_sync(eventually, serves)
        first = world.pid()
        lasting = connect(world.port)
        with Traffic(world.port) as traffic:
            await until(lambda: traffic.done > 10)
            meshd.send_signal(number)
            await trio.to_thread.run_sync(meshd.communicate)
            seen = traffic.done
            await until(lambda: traffic.done > seen + 50)  # with no meshd at all
            meshd = run()
            line = await trio.to_thread.run_sync(meshd.stderr.readline)
            assert f"goes on, pid={first}" in line, line
            seen = traffic.done
            await until(lambda: traffic.done > seen + 50)
        assert traffic.failed == []
        assert echoes(lasting)
        lasting.close()
        assert world.pid() == first
    finally:
        meshd.kill()
        meshd.communicate()
    world.options = Options(wheel_binary(), 2, concurrency=1)
    world.kept = False
    async with world.running():
        assert world.pid() == first
    assert world.pid() is None
