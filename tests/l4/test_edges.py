"""Traps of a proxy on real loopback sockets: what must not look like a clean end, what must not be let through."""

import contextlib
import socket
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from meshd.l4 import client, session
from meshd.l4.client import Dialer, Resolver, look_up
from meshd.l4.relay import Buffers
from meshd.l4.render import Settings
from meshd.l4.session import Limits, is_here
from meshd.l4.tls import mesh_context
from tests.l4 import pki
from tests.l4.lab import (
    LOCAL,
    application,
    dataplane,
    echo,
    endpoint,
    is_cut,
    running,
    says,
    service,
    talk,
    view,
    vip,
)
from tests.ports import free_port


async def endless(stream):
    """Read to the end, then answer without one."""
    async for _ in stream:
        pass
    while True:
        await stream.send_all(bytes(1000))
        await trio.sleep(0.01)


async def read_to_the_end(stream):
    while await stream.receive_some():
        pass


@pytest.mark.parametrize("mode", [None, "STRICT"])
async def test_an_answer_that_the_drain_cuts_off_does_not_end_like_a_whole_one(mode):
    port, inbound_port = free_port(), free_port()
    both = view(service("web", endpoint(inbound_port)), mode=mode)
    async with (
        application(endless) as app,
        running(dataplane("web", inbound=[(inbound_port, app.port, "web")]), both),
        running(dataplane("shop", gateway="shop", outbound=[(port, "web")]), both, limits=Limits(drain_s=0.1)) as out,
        await trio.open_tcp_stream(LOCAL, port) as stream,
    ):
        await stream.send_all(b"question")
        await stream.send_eof()
        assert await stream.receive_some()
        out.proxy.publish(dataplane("shop", gateway="shop"))
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(3):
            await read_to_the_end(stream)
        await wait_all_tasks_blocked(0.01)
        assert out.count("connections_total", outcome="drained") == 1


async def test_nor_does_one_that_ends_with_the_engine():
    port = free_port()
    async with application(endless) as app:
        target = view(service("web", endpoint(app.port)), mode=None)
        async with (
            running(
                dataplane("shop", gateway="shop", outbound=[(port, "web")]), target, limits=Limits(drain_s=0.1)
            ) as out,
        ):
            stream = await trio.open_tcp_stream(LOCAL, port)
            await stream.send_eof()
            assert await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(3):
            await read_to_the_end(stream)
        await stream.aclose()
        assert out.count("connections_total", outcome="drained") == 1


class Slow(trio.abc.Stream):
    """Sends its first message in two halves."""

    def __init__(self, inner):
        self.inner, self.was_slow = inner, False

    async def send_all(self, data):
        if not self.was_slow:
            self.was_slow = True
            await self.inner.send_all(data[:7])
            await trio.sleep(0.8)
            data = data[7:]
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self):
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes=None):
        return await self.inner.receive_some(max_bytes)

    async def aclose(self):
        await self.inner.aclose()


async def test_a_permissive_inbound_waits_for_the_rest_of_a_slow_client_hello():
    """Longer than for a client that says nothing at all: it must not go to the application as plaintext."""
    inbound_port = free_port()
    limits = Limits(silence_s=0.4, hello_s=3.0, drain_s=0.1)
    async with (
        application(echo) as app,
        running(dataplane("web", inbound=[(inbound_port, app.port, "web")]), view(mode="PERMISSIVE"), limits=limits),
    ):
        context = mesh_context(pki.identity("default", "shop"), pki.trust("default"), server_side=False)
        plain = await trio.open_tcp_stream(LOCAL, inbound_port)
        stream = trio.SSLStream(Slow(plain), context, server_hostname="x", https_compatible=True)
        with trio.fail_after(3):
            await stream.send_all(b"mesh")
            assert await stream.receive_some() == b"mesh"
        await stream.transport_stream.aclose()


async def test_a_client_that_was_silent_while_the_inbound_became_strict_is_not_let_in():
    inbound_port = free_port()
    proxy = dataplane("web", inbound=[(inbound_port, (hidden := free_port()), "web")])
    async with (
        application(says(b"220 ready"), hidden) as app,
        running(proxy, view(mode="PERMISSIVE"), limits=Limits(silence_s=0.3, drain_s=0.1)) as inb,
        await trio.open_tcp_stream(LOCAL, inbound_port) as stream,
    ):
        await trio.sleep(0.05)
        inb.views.publish({"default": view(mode="STRICT")})
        await trio.sleep(0.05)
        with contextlib.suppress(trio.BrokenResourceError), trio.fail_after(2):
            assert await stream.receive_some() == b""
        assert app.hits == []
        assert inb.count("connections_total", outcome="denied") == 1


def test_addresses_of_this_host_and_others():
    assert is_here("127.0.0.1")
    assert is_here("127.9.9.9")
    assert not is_here("192.0.2.1")


async def test_vips_serve_this_host_only(monkeypatch):
    port, inbound_port = free_port(), free_port()
    target = view(service("web", endpoint(inbound_port)), vips={"web": vip("127.9.0.1", web=port)}, mode=None)
    async with (
        application(says(b"in"), inbound_port),
        running(dataplane("host", gateway="host"), target, settings=Settings(owns_vips=True)) as out,
    ):
        assert await talk(port, address="127.9.0.1") == b"in"
        monkeypatch.setattr(session, "is_here", lambda address: address != LOCAL)
        assert await is_cut(talk(port, address="127.9.0.1"))
        assert out.count("connections_total", outcome="denied") == 1


async def test_a_silent_first_address_of_a_name_leaves_time_for_the_second(monkeypatch):
    """A socket whose backlog is full is as silent as a black hole."""
    with contextlib.ExitStack() as stack:
        hole = stack.enter_context(socket.create_server(("127.0.0.2", 0), backlog=0))
        port = hole.getsockname()[1]
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(hole.getsockname())
        with pytest.raises(TimeoutError):
            socket.create_connection(hole.getsockname(), 0.1)
        found = [(0, 0, 0, "", ("127.0.0.2", 0)), (0, 0, 0, "", (LOCAL, 0))]
        monkeypatch.setattr(client, "look_up", lambda _: found)
        async with application(echo, port):
            sock = await Dialer(Buffers(), Resolver()).tcp("two.example", port, 0.6)
            assert sock.getpeername()[0] == LOCAL
            sock.close()


async def test_lookups_that_hang_hold_one_thread_a_name_and_none_of_the_process(monkeypatch):
    release, inside = threading.Event(), []

    def hang(host, *_, **__):
        inside.append(host)
        release.wait(5)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    resolver = Resolver()
    free = trio.to_thread.current_default_thread_limiter().available_tokens
    for _ in range(5):
        with trio.move_on_after(0.02):
            await resolver.addresses("slow.example")
    assert inside == ["slow.example"]
    assert trio.to_thread.current_default_thread_limiter().available_tokens == free
    release.set()
    with pytest.raises(OSError, match="no answer"):
        await resolver.addresses("slow.example")


def test_a_name_that_does_not_exist_is_an_os_error():
    with pytest.raises(OSError):
        look_up("no-such-host.invalid")
