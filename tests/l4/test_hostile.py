"""Many peers that do the wrong thing at the wrong time: nothing leaks, and a good one is served among them."""

import os
import random
import socket
from pathlib import Path

import pytest
import trio

from meshd.ca.identity import service_sni
from meshd.l4.session import Limits
from meshd.l4.tls import Tls, mesh_context
from meshd.topology.view import Reach
from tests.l4 import pki
from tests.l4.lab import (
    LOCAL,
    application,
    dataplane,
    echo,
    endpoint,
    ingress,
    running,
    service,
    talk,
    view,
)
from tests.ports import free_port

RESET = b"\1\0\0\0\0\0\0\0"


def hello() -> bytes:
    context = mesh_context(pki.identity("default", "shop"), pki.trust("default"), server_side=False)
    tls = Tls(context, server_side=False, server_name=service_sni("web", "default"))
    tls.handshake()
    return tls.take()


async def misbehave(port: int, rng: random.Random, first: bytes) -> None:
    try:
        stream = await trio.open_tcp_stream(LOCAL, port)
        async with stream:
            start = rng.choice([b"", first, first[: rng.randrange(len(first))], rng.randbytes(300)])
            await stream.send_all(start)
            match rng.randrange(5):
                case 0:
                    await stream.send_all(rng.randbytes(5000))
                case 1:
                    await stream.send_eof()
                case 2:
                    with trio.move_on_after(0.3):
                        await stream.receive_some(1)
                case 3:
                    await trio.sleep(rng.random() / 20)
                case _:
                    pass
            if rng.random() < 0.5:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    except (OSError, trio.BrokenResourceError):
        pass


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
async def test_hostile_peers_leak_nothing_and_harm_nobody():
    out, entry, into = (free_port() for _ in range(3))
    rng, first, limits = random.Random(7), hello(), Limits(hello_s=0.5, drain_s=0.2)
    data = os.urandom(200_000)
    inside = view(ingress=[service("web", endpoint(into))])
    outside = view(service("web", endpoint(entry, zone="b", reach=Reach.INGRESS)))
    async with (
        application(echo) as app,
        running(dataplane("web", inbound=[(into, app.port, "web")]), view(), limits=limits) as inb,
        running(ingress(entry), inside, limits=limits) as middle,
        running(dataplane("shop", gateway="shop", outbound=[(out, "web")]), outside, limits=limits) as near,
    ):
        assert await talk(out, data) == data
        before = descriptors()
        async with trio.open_nursery() as nursery:
            for _ in range(300):
                nursery.start_soon(misbehave, rng.choice([out, entry, into]), rng, first)
            for _ in range(10):
                assert await talk(out, data) == data
        with trio.fail_after(5):
            while near.count("open_connections") + middle.count("open_connections") + inb.count("open_connections"):
                await trio.sleep(0.05)
        await trio.sleep(0.1)
        assert descriptors() <= before
        for engine in (near, middle, inb):
            assert engine.count("connections_total", outcome="failed") == 0
