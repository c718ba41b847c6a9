import socket
import struct
from ipaddress import IPv4Network
from pathlib import Path

import dns.message
import dns.rcode
import pytest
import trio

from meshd.dns.cookies import Cookies
from meshd.dns.metrics import Tally
from meshd.dns.server import Server, split
from meshd.dns.service import bind
from meshd.dns.settings import Address, DnsSettings, QueryLog
from meshd.dns.table import Change, Entry
from meshd.dns.wire import name_to_wire
from meshd.runtime.datagrams import BATCH
from tests.dns.support import BACKEND, FakeUpstream, honest, query, table, truncating
from tests.ports import free_port

pytestmark = pytest.mark.e2e


class Running:
    """A server on loopback with some clients' verbs."""

    def __init__(self, nursery: trio.Nursery, upstreams: tuple[Address, ...] = (), **more: object) -> None:
        self._nursery = nursery
        self.settings = DnsSettings(upstreams=upstreams, **more)  # type: ignore[arg-type]
        self.table = table(recursive=bool(upstreams))
        self.tally = Tally(None)
        self.port = 0

    async def start(self) -> "Running":
        (udp,), listeners = await bind(Address("127.0.0.1", 0))
        self.port = udp.getsockname()[1]

        async def run(task_status: trio.TaskStatus[None]) -> None:
            with udp, listeners[0].socket:
                self.server = Server(udp, listeners, self.table, self.settings, self.tally, Cookies(b"secret"))
                await self.server.run(task_status=task_status)

        await self._nursery.start(run)
        return self

    async def udp(self, *messages: bytes, expect: int | None = None) -> list[bytes]:
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
            await sock.connect(("127.0.0.1", self.port))
            for message in messages:
                await sock.send(message)
            with trio.fail_after(5):
                return [await sock.recv(65535) for _ in range(len(messages) if expect is None else expect)]

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("!H", len(m)) + m for m in messages)


async def receive(stream: trio.SocketStream, count: int) -> list[bytes]:
    data, messages = b"", []
    with trio.fail_after(5):
        while len(messages) < count:
            more = await stream.receive_some(65536)
            assert more, f"connection ended after {len(messages)} of {count} messages"
            whole, data = split(data + more)
            messages += whole
    return messages


def test_split_takes_whole_messages_and_keeps_the_rest() -> None:
    assert split(framed(b"ab", b"", b"c") + b"\0\x05xy") == ([b"ab", b"", b"c"], b"\0\x05xy")
    assert split(b"\0") == ([], b"\0")


async def test_more_than_a_batch_is_answered(nursery: trio.Nursery) -> None:
    server = await Running(nursery).start()
    replies = await server.udp(*(query("backend.mesh", ident=i) for i in range(3 * BATCH)))
    assert sorted(int.from_bytes(r[:2]) for r in replies) == list(range(3 * BATCH))
    assert server.tally.answered() == {("A", "NOERROR", "fast"): 3 * BATCH}


async def test_junk_between_queries_costs_nothing_but_itself(nursery: trio.Nursery) -> None:
    server = await Running(nursery).start()
    junk = [b"", b"x", b"\xff" * 500, query("a.mesh", flags=0x8000), query("backend.mesh")[:-1]]
    replies = await server.udp(*junk, query("backend.mesh", "AAAA", ident=9), expect=2)
    assert [r[3] & 0xF for r in replies] == [1, 0]
    assert server.tally.dropped == {"short": 2, "response": 2}


async def test_a_new_table_is_answered_from_at_once(nursery: trio.Nursery) -> None:
    server = await Running(nursery).start()
    assert (await server.udp(query("new.mesh")))[0][3] & 0xF == 3
    server.table.change(Change({name_to_wire("new.mesh"): Entry(BACKEND.packed)}))
    assert (await server.udp(query("new.mesh")))[0].endswith(BACKEND.packed)


async def test_pipelined_tcp_queries_split_at_every_byte(nursery: trio.Nursery) -> None:
    server = await Running(nursery).start()
    async with await server.connect() as stream:
        await stream.send_all(framed(*(query("backend.mesh", ident=i) for i in range(300))))
        assert [int.from_bytes(m[:2]) for m in await receive(stream, 300)] == list(range(300))
        for byte in framed(query("unknown.mesh", ident=5)):
            await stream.send_all(bytes((byte,)))
        assert (await receive(stream, 1))[0][3] & 0xF == 3


async def test_half_closed_tcp_client_still_gets_its_forwarded_answer(nursery: trio.Nursery) -> None:
    fake = FakeUpstream(honest)
    await nursery.start(fake.run)
    server = await Running(nursery, (Address("127.0.0.1", fake.port),)).start()
    async with await server.connect() as stream:
        await stream.send_all(framed(query("example.org")))
        await stream.send_eof()
        (reply,) = await receive(stream, 1)
    assert str(dns.message.from_wire(reply).answer[0]) == "example.org. 60 IN A 192.0.2.7"


async def test_forwarded_answers_carry_the_cookie_too(nursery: trio.Nursery) -> None:
    fake = FakeUpstream(honest)
    await nursery.start(fake.run)
    server = await Running(nursery, (Address("127.0.0.1", fake.port),)).start()
    message = query("example.org", edns=1232)
    option = b"\0\x0a\0\x08clientid"
    message = message[:-2] + len(option).to_bytes(2) + option
    for _ in range(2):  # asked, and from the cache
        (reply,) = await server.udp(message)
        parsed = dns.message.from_wire(reply)
        assert str(parsed.answer[0]).startswith("example.org.")
        assert [len(o.to_wire()) for o in parsed.options] == [24]


async def test_that_nobody_answers_is_said_with_the_cookie_too(nursery: trio.Nursery) -> None:
    server = await Running(nursery, (Address("127.0.0.1", free_port()),)).start()
    option = b"\0\x0a\0\x08clientid"
    message = query("example.org", edns=1232)[:-2] + len(option).to_bytes(2) + option
    (reply,) = await server.udp(message)
    parsed = dns.message.from_wire(reply)
    assert parsed.rcode() == dns.rcode.SERVFAIL
    assert [len(o.to_wire()) for o in parsed.options] == [24]


async def test_local_answers_overtake_forwarded_ones(nursery: trio.Nursery) -> None:
    fake = FakeUpstream(lambda _: [])
    await nursery.start(fake.run)
    server = await Running(nursery, (Address("127.0.0.1", fake.port),)).start()
    async with await server.connect() as stream:
        await stream.send_all(framed(query("example.org", ident=1), query("backend.mesh", ident=2)))
        assert (await receive(stream, 1))[0][:2] == b"\0\x02"


async def test_idle_and_dripping_connections_are_closed(nursery: trio.Nursery) -> None:
    server = await Running(nursery, tcp_idle_s=0.2).start()
    async with await server.connect() as idle, await server.connect() as dripping:
        with trio.fail_after(3):
            nursery.start_soon(drip, dripping)
            assert await idle.receive_some(1) == b""
            while server.tally.tcp.get("idle") != 2:
                await trio.sleep(0.01)


async def drip(stream: trio.SocketStream) -> None:
    try:
        while True:
            await stream.send_all(b"\x01")
            await trio.sleep(0.03)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def test_over_the_limit_the_connection_that_has_not_asked_for_the_longest_goes(nursery: trio.Nursery) -> None:
    server = await Running(nursery, max_tcp_connections=2).start()
    async with await server.connect() as first, await server.connect() as silent:
        await first.send_all(framed(query("backend.mesh")))
        await receive(first, 1)
        async with await server.connect() as third:
            with trio.fail_after(2):
                assert await silent.receive_some(1) == b""
            for stream in (third, first):
                await stream.send_all(framed(query("backend.mesh")))
                await receive(stream, 1)
    assert server.tally.tcp == {"accepted": 3, "displaced": 1}


async def test_who_holds_many_connections_keeps_nobody_out(nursery: trio.Nursery) -> None:
    server = await Running(nursery, max_tcp_connections=5).start()
    held = [await server.connect() for _ in range(200)]
    async with await server.connect() as good:
        await good.send_all(framed(query("backend.mesh")))
        await receive(good, 1)
    assert len(server.server._connections) <= 5
    for stream in held:
        await stream.aclose()


async def test_who_opens_many_connections_displaces_only_their_own(nursery: trio.Nursery) -> None:
    server = await Running(nursery, max_tcp_connections=3).start()
    waiting = trio.socket.socket()
    await waiting.bind(("127.0.0.2", 0))
    await waiting.connect(("127.0.0.1", server.port))
    async with trio.SocketStream(waiting) as patient:
        held = [await server.connect() for _ in range(20)]
        await patient.send_all(framed(query("backend.mesh")))
        await receive(patient, 1)
        for stream in held:
            await stream.aclose()


async def test_a_reset_or_nonsense_on_one_connection_leaves_the_others_alone(nursery: trio.Nursery) -> None:
    server = await Running(nursery).start()
    async with await server.connect() as good:
        reset = await server.connect()
        reset.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
        await reset.send_all(framed(query("backend.mesh")))
        await reset.aclose()
        async with await server.connect() as bad:
            await bad.send_all(framed(b"no dns"))
            with trio.fail_after(2):
                assert await bad.receive_some(1) == b""
        await good.send_all(framed(query("backend.mesh")))
        await receive(good, 1)
    assert "failed" not in server.tally.tcp


async def test_long_forwarded_answer_is_truncated_by_udp_and_whole_by_tcp(nursery: trio.Nursery) -> None:
    fake = FakeUpstream(truncating, lambda message: honest(message, count=100))
    await nursery.start(fake.run)
    server = await Running(nursery, (Address("127.0.0.1", fake.port),)).start()
    (cut,) = await server.udp(query("example.org", edns=4096))
    assert cut[2] & 2
    assert len(cut) < 60
    async with await server.connect() as stream:
        await stream.send_all(framed(query("example.org", edns=4096)))
        assert len(dns.message.from_wire((await receive(stream, 1))[0]).answer[0]) == 100


async def test_names_under_the_domain_do_not_reach_the_upstream(nursery: trio.Nursery) -> None:
    fake = FakeUpstream(honest)
    await nursery.start(fake.run)
    server = await Running(nursery, (Address("127.0.0.1", fake.port),)).start()
    await server.udp(query("unknown.mesh"), query("Backend.Mesh", "MX"), query("example.org"))
    assert len(fake.seen_udp) == 1


async def test_more_queries_than_may_be_outstanding_fail_at_once(nursery: trio.Nursery) -> None:
    fake = FakeUpstream(lambda _: [])
    await nursery.start(fake.run)
    server = await Running(nursery, (Address("127.0.0.1", fake.port),), max_outstanding=2).start()
    replies = await server.udp(*(query(f"name{i}.example", ident=i) for i in range(5)), expect=3)
    assert {r[3] & 0xF for r in replies} == {2}


def own_address() -> str:
    """An address of this host that is not loopback, if it has one."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 53))  # sends nothing
        except OSError:
            pytest.skip("this host has no address but loopback")
        return str(sock.getsockname()[0])


async def from_outside(server: Running, address: str, count: int, options: bytes = b"") -> list[bytes]:
    """The answers to a client of another address, and last one that this host has in any case."""
    replies = []
    message = query("backend.mesh", edns=1232)
    message = message[:-2] + len(options).to_bytes(2) + options
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
        await sock.bind((address, 0))
        for _ in range(count):
            await sock.sendto(message, ("127.0.0.1", server.port))
            await server.udp(query("backend.mesh"))
        with trio.move_on_after(0.2):
            while True:
                replies.append(await sock.recv(512))
    return replies


async def test_who_is_not_allowed_is_refused_by_udp_and_cut_off_by_tcp(nursery: trio.Nursery) -> None:
    address = own_address()
    server = await Running(nursery, listen=Address("0.0.0.0", 0)).start()
    assert [reply[3] & 0xF for reply in await from_outside(server, address, 1)] == [5]
    assert server.tally.dropped == {"not_allowed": 1}
    async with await trio.open_tcp_stream("127.0.0.1", server.port, local_address=address) as stream:
        assert await stream.receive_some(1) == b""
    assert server.tally.tcp["forbidden"] == 1


async def test_over_the_limit_clients_are_sent_to_tcp_unless_they_show_a_cookie(nursery: trio.Nursery) -> None:
    address = own_address()
    allow = (IPv4Network(f"{address}/32"),)
    server = await Running(nursery, listen=Address("0.0.0.0", 0), allow=allow, rate_limit=1).start()
    replies = await from_outside(server, address, 7, b"\0\x0a\0\x08clientid")
    assert replies[0][-16:-12] == b"\xf0\0\0\0"  # a server's cookie
    assert any(reply[2] & 2 for reply in replies)  # TC
    assert len(replies) < 7
    assert server.tally.dropped["rate_limited"] >= 1
    cookie = b"\0\x0a\0\x18" + replies[0][-24:]
    assert [reply[2] & 2 for reply in await from_outside(server, address, 7, cookie)] == [0] * 7
    async with await trio.open_tcp_stream("127.0.0.1", server.port, local_address=address) as stream:
        await stream.send_all(framed(query("backend.mesh")))
        assert (await receive(stream, 1))[0].endswith(BACKEND.packed)


async def test_every_answer_is_a_line_of_the_query_log(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = tmp_path / "q.log"
    fake = FakeUpstream(honest)
    await nursery.start(fake.run)
    upstreams = (Address("127.0.0.1", fake.port),)
    server = await Running(nursery, upstreams, query_log=QueryLog(path), top_names=2).start()
    for message in (
        query("Backend.mesh"),
        query("_tcp.backend.mesh", "SRV"),
        query("no\nbody.mesh", "AAAA", edns=1232),
        query("backend.mesh")[:-1],
        query("example.org"),
        query("example.org"),
    ):
        await server.udp(message)
    async with await server.connect() as stream:
        await stream.send_all(framed(query("backend.mesh"), query("www.example.org")))
        await receive(stream, 2)
    await server.udp(b"\0" * 5, query("a.mesh", flags=0x8000), expect=0)  # not answered, and so not logged
    with trio.fail_after(5):
        while server.tally.log.get("written", 0) < 8:
            await trio.sleep(0.01)
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    assert [line[1:7] for line in lines] == [
        ["127.0.0.1", *words.split()]
        for words in (
            "udp Backend.mesh A NOERROR fast",
            "udp _tcp.backend.mesh SRV NOERROR slow",
            "udp no\\010body.mesh AAAA NXDOMAIN fast",
            "udp - - FORMERR slow",
            "udp example.org A NOERROR forwarded",
            "udp example.org A NOERROR cached",
            "tcp backend.mesh A NOERROR fast",
            "tcp www.example.org A NOERROR forwarded",
        )
    ]
    assert all(int(line[7]) >= 0 and line[0].endswith("Z") for line in lines)
    assert server.server.state().top == [
        ("backend.mesh", "NOERROR", 2),
        ("example.org", "NOERROR", 2),
    ]
    assert server.tally.states.keys() == {server.server}
