import shutil
import socket
import subprocess
from collections.abc import Mapping

import pytest
import trio
from prometheus_client import CollectorRegistry

from meshd.dns.service import Resolver
from meshd.dns.settings import Address, DnsSettings
from meshd.runtime.latest import Latest
from meshd.runtime.listen import ListenError
from meshd.topology.view import BoundVips, MeshView, Vip
from tests.dns.support import FakeUpstream, honest, query, truncating, view, vip

pytestmark = pytest.mark.e2e

VIPS = {
    "backend": vip("240.0.0.1", "backend.mesh"),
    "a_b": vip("240.0.0.2", "a_b.mesh", "a.b.mesh", ports={8080: "a_b"}),
}


class Host:
    """A resolver and the cells it follows."""

    def __init__(
        self, vips: Mapping[str, Vip], bound: BoundVips | None, upstreams: tuple[Address, ...], own_thread: bool
    ) -> None:
        self.views: Latest[Mapping[str, MeshView]] = Latest({"default": view(vips)})
        self.bound_vips: Latest[BoundVips | None] = Latest(bound)
        self.registry = CollectorRegistry()
        settings = DnsSettings(listen=Address("127.0.0.1", 0), upstreams=upstreams, own_thread=own_thread)
        self.resolver = Resolver(settings, self.views, "default", self.bound_vips, self.registry)

    async def dig(self, *arguments: str) -> str:
        command = ["dig", "@127.0.0.1", "-p", str(self.resolver.address.port), "+tries=1", "+time=3", *arguments]
        done = await trio.run_process(command, capture_stdout=True, check=False)
        return done.stdout.decode()


@pytest.fixture(params=[False, True], ids=["in the loop", "own thread"])
def own_thread(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def start(
    nursery: trio.Nursery,
    own_thread: bool,
    upstreams: tuple[Address, ...] = (),
    bound: BoundVips | None = None,
    vips: Mapping[str, Vip] = VIPS,
) -> Host:
    host = Host(vips, bound, upstreams, own_thread)
    await nursery.start(host.resolver.run)
    return host


needs_dig = pytest.mark.skipif(shutil.which("dig") is None, reason="dig is not installed")


@needs_dig
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("backend.mesh +short", "240.0.0.1\n"),
        ("BackEnd.Mesh +short +tcp", "240.0.0.1\n"),
        ("backend.mesh AAAA +short", "::ffff:240.0.0.1\n"),
        ("a.b.mesh +short +noedns", "240.0.0.2\n"),
    ],
)
async def test_dig_finds_addresses(nursery: trio.Nursery, own_thread: bool, arguments: str, expected: str) -> None:
    host = await start(nursery, own_thread)
    assert await host.dig(*arguments.split()) == expected


@needs_dig
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("unknown.mesh", ["status: NXDOMAIN", "flags: qr aa rd;", "mesh.\t\t\t5\tIN\tSOA\tmesh. nobody.invalid."]),
        ("backend.mesh MX", ["status: NOERROR", "ANSWER: 0", "SOA\tmesh."]),
        ("b.mesh", ["status: NOERROR", "ANSWER: 0"]),
        ("example.org", ["status: REFUSED"]),
        ("backend.mesh +edns=1 +noednsneg", ["status: BADVERS"]),
        ("backend.mesh +cookie +dnssec", ["status: NOERROR", "EDNS: version: 0, flags: do; udp: 1232"]),
        ("backend.mesh +opcode=UPDATE", ["status: NOTIMP"]),
        ("mesh NS +tcp +keepopen", ["mesh.\t\t\t30\tIN\tNS\tmesh."]),
    ],
)
async def test_dig_sees(nursery: trio.Nursery, own_thread: bool, arguments: str, expected: list[str]) -> None:
    host = await start(nursery, own_thread)
    output = await host.dig(*arguments.split())
    for part in expected:
        assert part in output
    assert "WARNING: Messag" not in output


@needs_dig
async def test_dig_follows_truncation_to_a_long_foreign_answer(nursery: trio.Nursery, own_thread: bool) -> None:
    fake = FakeUpstream(truncating, lambda message: honest(message, count=100))
    await nursery.start(fake.run)
    host = await start(nursery, own_thread, (Address("127.0.0.1", fake.port),))
    output = await host.dig("example.org")
    assert "Truncated, retrying in TCP mode" in output
    assert "ANSWER: 100" in output
    assert "flags: qr rd" in output  # the upstream's own flags: not authoritative


async def ask_until(host: Host, name: str, expected: str) -> None:
    with trio.fail_after(5):
        while True:
            with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
                await sock.sendto(query(name), ("127.0.0.1", host.resolver.address.port))
                reply, _ = await sock.recvfrom(4096)
            got = socket.inet_ntoa(reply[-4:]) if int.from_bytes(reply[6:8]) else str(reply[3] & 0xF)
            if got == expected:
                return
            await trio.sleep(0.01)


async def test_names_follow_the_view(nursery: trio.Nursery, own_thread: bool) -> None:
    host = await start(nursery, own_thread)
    host.views.publish({"default": view({"new": vip("240.0.0.9", "new.mesh")})})
    await ask_until(host, "new.mesh", "240.0.0.9")
    await ask_until(host, "backend.mesh", "3")
    host.views.publish({})
    await ask_until(host, "new.mesh", "3")


async def test_before_the_first_mesh_nobody_is_told_that_a_name_does_not_exist(
    nursery: trio.Nursery, own_thread: bool
) -> None:
    host = Host({}, None, (), own_thread)
    host.views.publish({})
    await nursery.start(host.resolver.run)
    await ask_until(host, "backend.mesh", "2")
    await ask_until(host, "mesh", "0")
    host.views.publish({"another": view({})})
    await ask_until(host, "backend.mesh", "3")
    host.views.publish({})
    await ask_until(host, "new.mesh", "3")


async def test_a_vip_is_answered_once_its_port_is_bound(nursery: trio.Nursery, own_thread: bool) -> None:
    host = await start(nursery, own_thread, bound=BoundVips())
    await ask_until(host, "a.b.mesh", "3")
    host.bound_vips.publish(BoundVips(frozenset({8080})))
    await ask_until(host, "a.b.mesh", "240.0.0.2")
    await ask_until(host, "backend.mesh", "3")


async def test_a_port_in_use_names_the_setting() -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(type=kind) as taken:
            taken.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                taken.listen()
            settings = DnsSettings(listen=Address("127.0.0.1", taken.getsockname()[1]))
            resolver = Resolver(settings, Latest({}), "default", Latest(None), CollectorRegistry())
            with pytest.raises(ListenError, match=r"dnsServer\.listen: .* is in use"):
                await resolver.run()


async def test_stopping_frees_the_port(own_thread: bool) -> None:
    async with trio.open_nursery() as nursery:
        host = await start(nursery, own_thread)
        nursery.cancel_scope.cancel()
    with socket.socket(type=socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", host.resolver.address.port))


async def test_metrics_say_what_was_asked_and_how_many_names_there_are(nursery: trio.Nursery, own_thread: bool) -> None:
    host = await start(nursery, own_thread)
    await ask_until(host, "backend.mesh", "240.0.0.1")
    value = host.registry.get_sample_value
    assert value("meshd_dns_queries_total", {"type": "A", "rcode": "NOERROR", "path": "fast"}) == 1
    assert value("meshd_dns_names") == 3


def test_dig_is_the_real_one() -> None:
    if shutil.which("dig"):
        assert "DiG" in subprocess.run(["dig", "-v"], capture_output=True, text=True, check=True).stderr


@needs_dig
@pytest.mark.parametrize("host", ["::", "::1"])
async def test_ipv6_and_with_all_addresses_both_families(nursery: trio.Nursery, own_thread: bool, host: str) -> None:
    try:
        with trio.socket.socket(trio.socket.AF_INET6) as sock:
            await sock.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    settings = DnsSettings(listen=Address(host, 0), own_thread=own_thread)
    resolver = Resolver(settings, Latest({"default": view(VIPS)}), "default", Latest(None), CollectorRegistry())
    await nursery.start(resolver.run)
    for server in ("::1", "127.0.0.1") if host == "::" else ("::1",):
        for way in ("+notcp", "+tcp"):
            command = ["dig", f"@{server}", "-p", str(resolver.address.port), "+tries=1", "+short", way, "backend.mesh"]
            done = await trio.run_process(command, capture_stdout=True, check=False)
            assert done.stdout.decode() == "240.0.0.1\n", (server, way)
