"""Risk 2 of the whole path: the built-in engine and real Envoys speak to each other, in every role (ADR 003)."""

import os

import pytest
import trio

from tests.l4 import envoy, pki
from tests.l4.lab import (
    LOCAL,
    Allow,
    application,
    dataplane,
    echo,
    endpoint,
    ingress,
    is_cut,
    running,
    service,
    talk,
    view,
)
from tests.ports import free_port

pytestmark = pytest.mark.e2e

MESH = "default"
DATA = os.urandom(2_000_000)
TRUST = pki.trust(MESH)


class Envoy:
    """``envoy.envoy`` without blocking the loop that the peers run on."""

    def __init__(self, directory, *parts):
        listeners, clusters = [p[0] for p in parts], []
        for _, made in parts:
            clusters += made if isinstance(made, list) else [made]
        self._manager = envoy.envoy(directory, listeners, clusters)

    async def __aenter__(self) -> envoy.Running:
        return await trio.to_thread.run_sync(self._manager.__enter__)

    async def __aexit__(self, *error) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._manager.__exit__, None, None, None)


async def half_close_and_bulk(port: int) -> None:
    assert await talk(port, DATA) == DATA
    for size in (0, 1, 70_000):
        assert await talk(port, DATA[:size]) == DATA[:size]


async def server_ends_first(port: int) -> None:
    """The application says bye and ends; what the client sends afterwards still arrives."""
    with trio.fail_after(5):
        async with await trio.open_tcp_stream(LOCAL, port) as stream:
            await stream.send_all(b"end")
            assert await stream.receive_some() == b"bye"
            assert await stream.receive_some() == b""
            await stream.send_all(b"after")
            await stream.send_eof()


def bye(got: list[bytes]):
    async def handler(stream):
        await stream.receive_some()
        await stream.send_all(b"bye")
        await stream.send_eof()
        got.append(b"".join([part async for part in stream]))

    return handler


async def test_envoy_outbound_through_built_in_ingress_to_envoy_inbound(tmp_path):
    out, entry, into = free_port(), free_port(), free_port()
    target = view(ingress=[service("web", endpoint(into))])
    async with (
        application(echo) as app,
        Envoy(tmp_path, envoy.inbound(into, app.port, pki.identity(MESH, "web"), TRUST)) as server,
        running(ingress(entry), target) as middle,
        Envoy(tmp_path, envoy.outbound(out, entry, pki.identity(MESH, "shop"), TRUST, "web")),
    ):
        await half_close_and_bulk(out)
        assert middle.count("upstream_attempts_total", service="web", outcome="ok") == 4
        count = await trio.to_thread.run_sync(envoy.stat, server, f"listener.127.0.0.1_{into}.ssl.handshake")
        assert count == 4


async def test_built_in_outbound_to_envoy_inbound(tmp_path):
    out, into = free_port(), free_port()
    async with (
        application(echo) as app,
        Envoy(tmp_path, envoy.inbound(into, app.port, pki.identity(MESH, "web"), TRUST)) as server,
        running(dataplane("shop", gateway="shop", outbound=[(out, "web")]), view(service("web", endpoint(into)))) as us,
    ):
        await half_close_and_bulk(out)
        assert us.count("connections_total", outcome="done") == 4
        count = await trio.to_thread.run_sync(envoy.stat, server, f"listener.127.0.0.1_{into}.ssl.handshake")
        assert count == 4


async def test_envoy_outbound_to_built_in_inbound(tmp_path):
    out, into = free_port(), free_port()
    async with (
        application(echo) as app,
        running(dataplane("web", inbound=[(into, app.port, "web")]), view(), permit=Allow(frozenset({"shop"}))) as us,
        Envoy(tmp_path, envoy.outbound(out, into, pki.identity(MESH, "shop"), TRUST, "web")),
    ):
        await half_close_and_bulk(out)
        assert us.count("connections_total", outcome="done") == 4
        us.allow(Allow(frozenset()))
        await trio.sleep(0.05)
        assert await is_cut(talk(out, b"denied now"))


async def test_built_in_outbound_through_envoy_ingress_to_built_in_inbound(tmp_path):
    out, entry, into = free_port(), free_port(), free_port()
    async with (
        application(echo) as app,
        running(dataplane("web", inbound=[(into, app.port, "web")]), view()),
        Envoy(tmp_path, envoy.passthrough(entry, {"web{mesh=default}": into})),
        running(dataplane("shop", gateway="shop", outbound=[(out, "web")]), view(service("web", endpoint(entry)))),
    ):
        await half_close_and_bulk(out)


@pytest.mark.parametrize("ours", ["inbound", "outbound"])
async def test_server_may_end_first_across_engines(tmp_path, ours):
    out, into, got = free_port(), free_port(), []
    async with application(bye(got)) as app:
        if ours == "inbound":
            one = running(dataplane("web", inbound=[(into, app.port, "web")]), view())
            other = Envoy(tmp_path, envoy.outbound(out, into, pki.identity(MESH, "shop"), TRUST, "web"))
        else:
            one = Envoy(tmp_path, envoy.inbound(into, app.port, pki.identity(MESH, "web"), TRUST))
            other = running(
                dataplane("shop", gateway="shop", outbound=[(out, "web")]), view(service("web", endpoint(into)))
            )
        async with one, other:
            await server_ends_first(out)
            with trio.move_on_after(2):
                while not got:
                    await trio.sleep(0.01)
    assert got == [b"after"]


async def test_envoy_refuses_our_inbound_under_another_name_and_we_refuse_its(tmp_path):
    theirs, ours, into_ours, into_theirs = (free_port() for _ in range(4))
    async with (
        application(echo) as app,
        running(dataplane("db", inbound=[(into_ours, app.port, "db")]), view()),
        Envoy(
            tmp_path,
            envoy.outbound(theirs, into_ours, pki.identity(MESH, "shop"), TRUST, "web"),
            envoy.inbound(into_theirs, app.port, pki.identity(MESH, "db"), TRUST),
        ),
        running(
            dataplane("shop", gateway="shop", outbound=[(ours, "web")]), view(service("web", endpoint(into_theirs)))
        ) as us,
    ):
        assert await is_cut(talk(theirs, b"secret"))
        assert await is_cut(talk(ours, b"secret"))
        assert us.count("upstream_attempts_total", outcome="tls") == 1


async def test_envoy_inbound_refuses_a_client_of_another_ca(tmp_path):
    """Envoy connects to the application before the handshake, so it sees a connection, but no byte."""
    out, into, got = free_port(), free_port(), []

    async def listen(stream):
        got.extend([part async for part in stream])

    async with (
        application(listen) as app,
        Envoy(tmp_path, envoy.inbound(into, app.port, pki.identity(MESH, "web"), TRUST)),
        running(dataplane("shop", gateway="shop", outbound=[(out, "web")]), view(service("web", endpoint(into)))) as us,
    ):
        for key, cell in us.cells.items():
            foreign = pki.credentials(key[0], "shop", generation=1)
            cell.publish(type(foreign)(foreign.identity, TRUST))
        assert await is_cut(talk(out, b"x"))
        assert got == []
