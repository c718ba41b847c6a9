import errno
from functools import partial

import pytest
import trio

from meshd.runtime.listen import ListenError, accept_loop, open_listeners


async def test_a_port_in_use_names_the_setting_and_the_address():
    (first,) = await open_listeners("127.0.0.1", 0, "x")
    async with first:
        port = first.socket.getsockname()[1]
        with pytest.raises(ListenError, match=rf"apiServer\.http\.port: 127\.0\.0\.1:{port} is in use"):
            await open_listeners("127.0.0.1", port, "apiServer.http.port")


async def test_a_foreign_address_is_explained():
    with pytest.raises(ListenError, match="is not an address of this host"):
        await open_listeners("192.0.2.1", 0, "dnsServer.listen")


async def test_all_addresses_of_ipv6_are_those_of_ipv4_too():
    try:
        (listener,) = await open_listeners("::", 0, "x")
    except ListenError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    async with listener:
        for host in ("127.0.0.1", "::1"):
            async with await trio.open_tcp_stream(host, listener.socket.getsockname()[1]):
                await (await listener.accept()).aclose()


async def test_a_failing_connection_costs_only_itself(caplog):
    events = []

    async def handler(stream):
        data = await stream.receive_some(10)
        if data == b"bug":
            raise KeyError("bug")
        await stream.send_all(data)

    (listener,) = await open_listeners("127.0.0.1", 0, "x")
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        loop = partial(accept_loop, name="t", limit=10, on_event=events.append)
        nursery.start_soon(loop, listener, handler, nursery)
        for payload, answer in ((b"bug", b""), (b"fine", b"fine")):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                await stream.send_all(payload)
                assert await stream.receive_some(10) == answer
        nursery.cancel_scope.cancel()
    assert events == ["accepted", "failed", "accepted"]
    assert "a connection failed" in caplog.text
    await listener.aclose()


async def test_connections_above_the_limit_are_closed():
    events = []
    (listener,) = await open_listeners("127.0.0.1", 0, "x")
    port = listener.socket.getsockname()[1]

    async def handler(stream):
        await stream.send_all(b"in")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        loop = partial(accept_loop, name="t", limit=1, on_event=events.append)
        nursery.start_soon(loop, listener, handler, nursery)
        first = await trio.open_tcp_stream("127.0.0.1", port)
        assert await first.receive_some(2) == b"in"
        second = await trio.open_tcp_stream("127.0.0.1", port)
        assert await second.receive_some(2) == b""
        await first.aclose()
        await second.aclose()
        nursery.cancel_scope.cancel()
    assert events == ["accepted", "refused"]
    await listener.aclose()


async def test_out_of_descriptors_is_waited_out(autojump_clock):
    class Exhausted:
        calls = 0

        async def accept(self):
            self.calls += 1
            if self.calls < 4:
                raise OSError(errno.EMFILE, "too many open files")
            await trio.sleep_forever()

    listener = Exhausted()
    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            await accept_loop(listener, None, nursery, name="t", limit=1, on_event=print)
    assert listener.calls == 4
