"""Going through endpoints in virtual time, with attempts that are scripted instead of made."""

import errno
import socket
from collections import Counter
from ipaddress import IPv4Network

import pytest
import trio

from meshd.l4 import client
from meshd.l4.choose import Balancer
from meshd.l4.client import Resolver, first_that_works
from meshd.l4.table import Cluster, Timeouts
from meshd.l4.tls import TlsError
from meshd.model.errors import UnavailableError
from meshd.topology.view import Endpoint, Reach


class World:
    """What each endpoint does: an exception, "silent" or "ok"; and what was tried with which patience."""

    def __init__(self, **behaviour):
        self.behaviour = behaviour
        self.balancer = Balancer(lambda: 0)
        self.tried: list[tuple[str, float]] = []
        self.told: Counter[str] = Counter()
        endpoints = tuple(Endpoint(n, 1, "z", 1, 0, Reach.INSTANCE, {}) for n in behaviour)
        self.cluster = Cluster("default", "web", endpoints, timeouts=Timeouts(1, 2, 10))

    async def attempt(self, endpoint, _, answer_s):
        self.tried.append((endpoint.address, answer_s))
        does = self.behaviour[endpoint.address]
        if does == "silent":
            with trio.fail_after(answer_s):
                await trio.sleep_forever()
        if isinstance(does, BaseException):
            raise does
        return endpoint.address

    async def go(self):
        leg, _ = await first_that_works(
            self.cluster, "l", self.balancer, self.attempt, lambda _, outcome: self.told.update([outcome])
        )
        return leg


async def test_silent_endpoint_costs_its_timeout_once_and_is_tried_again_when_due(autojump_clock):
    world = World(a="silent", b="ok")
    assert await world.go() == "b"
    assert trio.current_time() == pytest.approx(2)
    for _ in range(10):
        assert await world.go() == "b"
    assert trio.current_time() == pytest.approx(2)
    await trio.sleep(1.1)
    began = trio.current_time()
    assert {await world.go() for _ in range(2)} == {"b"}
    assert trio.current_time() - began == pytest.approx(2)
    world.behaviour["a"] = "ok"
    await trio.sleep(2.1)
    assert Counter([await world.go() for _ in range(10)]) == {"a": 5, "b": 5}


async def test_only_one_connection_probes_an_endpoint_that_is_due(autojump_clock):
    world = World(a="silent", b="ok")
    await world.go()
    await trio.sleep(1.1)
    world.tried.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(world.go)
    assert Counter(a for a, _ in world.tried) == {"a": 1, "b": 20}


async def test_cancelled_probe_leaves_the_endpoint_due(autojump_clock):
    world = World(a="silent", b="ok")
    await world.go()
    await trio.sleep(1.1)
    world.tried.clear()
    for _ in range(2):
        with trio.move_on_after(0.5):
            for _ in range(2):  # one of two turns is the probe's
                await world.go()
    assert [a for a, _ in world.tried].count("a") == 2


async def test_last_endpoint_gets_all_the_patience(autojump_clock):
    world = World(a="silent", b="silent", c="silent")
    with pytest.raises(UnavailableError, match=r"'web': a:1 \(z\): timed out; b:1 .*; c:1"):
        await world.go()
    assert world.tried == [("a", 2), ("b", 2), ("c", 10)]
    assert trio.current_time() == pytest.approx(14)


async def test_every_outcome_is_told_by_its_name(autojump_clock):
    world = World(
        a=ConnectionRefusedError(), b=TlsError("x"), c=ConnectionResetError(), d=OSError("x"), e="silent", f="ok"
    )
    assert await world.go() == "f"
    assert world.told == {"refused": 1, "tls": 1, "eof": 1, "error": 1, "timeout": 1, "ok": 1}


async def test_lack_of_descriptors_blames_nobody():
    world = World(a=OSError(errno.EMFILE, "too many open files"), b="ok")
    with pytest.raises(UnavailableError, match="out of capacity"):
        await world.go()
    assert world.balancer.ejections == {}
    assert len(world.tried) == 1


async def test_no_endpoints_and_refused_clusters_say_so():
    world = World()
    with pytest.raises(UnavailableError, match="no endpoints"):
        await world.go()
    world.cluster = Cluster("default", "web", (), refused="secret 'x' is missing")
    with pytest.raises(UnavailableError, match="secret 'x' is missing"):
        await world.go()


async def test_what_left_the_table_is_forgotten():
    world = World(a=ConnectionRefusedError(), b="ok")
    await world.go()
    assert world.balancer.ejections
    world.balancer.keep((), ())
    assert world.balancer.ejections == {}
    assert world.balancer._wheels == {}


async def test_names_are_kept_for_a_while_and_beyond_a_failing_resolver(mock_clock, monkeypatch):
    calls = []

    def lookup(host, *_, **__):
        calls.append(host)
        if len(calls) > 1:
            raise socket.gaierror("down")
        return [(0, 0, 0, "", ("192.0.2.1", 0)), (0, 0, 0, "", ("192.0.2.2", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    resolver = Resolver()
    assert await resolver.addresses("10.0.0.1") == ("10.0.0.1",)
    for _ in range(3):
        assert await resolver.addresses("api.example") == ("192.0.2.1", "192.0.2.2")
    assert calls == ["api.example"]
    mock_clock.jump(31)
    assert await resolver.addresses("api.example") == ("192.0.2.1", "192.0.2.2")
    assert len(calls) == 2
    with pytest.raises(OSError, match="down"):
        await resolver.addresses("other.example")


async def test_a_name_that_has_only_virtual_ips_here_is_asked_about_elsewhere_and_never_leads_back(monkeypatch):
    """An external service's host has a VIP in the host's own resolver: connecting to that would never end."""
    answers = {"api.example": ["240.0.0.7", "::ffff:240.0.0.7"], "mixed.example": ["240.0.0.7", "2001:db8::1"]}
    monkeypatch.setattr(client, "look_up", lambda host: [(0, 0, 0, "", (a, 0)) for a in answers[host]])
    pool = IPv4Network("240.0.0.0/4")

    async def ask(host):
        assert host == "api.example"
        return ("240.0.0.9", "192.0.2.1")

    assert await Resolver(pool, ask).addresses("api.example") == ("192.0.2.1",)
    assert await Resolver(pool, ask).addresses("mixed.example") == ("2001:db8::1",)
    assert await Resolver().addresses("api.example") == ("240.0.0.7", "::ffff:240.0.0.7")
    with pytest.raises(OSError, match=r"'api\.example' has only virtual IPs here.*dnsServer\.upstreams"):
        await Resolver(pool).addresses("api.example")
