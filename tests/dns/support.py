"""Builders and a fake upstream for the resolver's tests."""

import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

import dnslib
import trio

from meshd.dns import wire
from meshd.dns.cookies import Cookies
from meshd.dns.quick import Counted, Quick
from meshd.dns.table import Change, Entry, NameTable
from meshd.dns.wire import name_to_wire
from meshd.model.resource import Resource, ResourceKey, Spec
from meshd.runtime.datagrams import Slots
from meshd.topology.view import MeshView, ServiceView, Vip

BACKEND = IPv4Address("240.0.0.1")
SPLIT = IPv4Address("240.0.0.2")
HOST = IPv4Address("240.0.0.3")
PORTS = ((80, "http"), (8443, "grpc"), (9000, "tcp"))
ZONES = (("zone-a", 2), ("zone-b", 1))


def vip(address: str, *names: str, ports: Mapping[int, str] | None = None) -> Vip:
    return Vip(IPv4Address(address), ports or {80: "service"}, names)


def view(vips: Mapping[str, Vip], mesh: str = "default", services: Mapping[str, ServiceView] | None = None) -> MeshView:
    return MeshView(
        mesh_name=mesh,
        zone="zone-a",
        version=str(sorted(vips)),
        mesh=Resource(ResourceKey("Mesh", "", mesh), Spec()),
        services=services or {},
        egress_services={},
        ingress_services={},
        vips=vips,
        local_dataplanes={},
        policies={},
    )


def table(*, recursive: bool = False, **more: str) -> NameTable:
    """backend.mesh, a_b_c.mesh with its dotted form, the host api.example.com, and more."""
    known = {
        "backend.mesh": BACKEND,
        "a_b_c.mesh": SPLIT,
        "a.b.c.mesh": SPLIT,
        "api.example.com": HOST,
        **{name.replace("__", "."): IPv4Address(address) for name, address in more.items()},
    }
    made = NameTable("mesh", recursive=recursive, cidr=IPv4Network("240.0.0.0/4"))
    made.change(
        Change(
            {name_to_wire(n): Entry(a.packed, PORTS, ZONES) for n, a in known.items()},
            {a.packed: name_to_wire(n) for n, a in known.items()},
        )
    )
    return made


def contents(table: NameTable) -> object:
    """All that a table is, as values."""
    return table.names, table.sections, table.hosts, table.titles, table.count, table.is_known, table._below


SLOTS = Slots(wire.MAX_QUERY_BYTES + 1)


def quickly(message: bytes, table: NameTable, cookies: Cookies, host: bytes) -> tuple[bytes, Counted] | None:
    """The fast road's answer, and what is counted; None for what is left, which is unchanged then.

    What is asked is put between other messages, which must not make a difference.
    """
    counts: Counter[Counted] = Counter()
    SLOTS.fill([b"", message, b"\xff" * 40], host)
    left = Quick(table, cookies).answer(SLOTS, SLOTS.sizes, counts)
    if 1 in left:
        assert left == [0, 1, 2]
        assert not counts
        assert SLOTS.message(1) == message[: SLOTS.max_bytes]
        return None
    assert left == [0, 2]
    ((counted, _),) = counts.items()
    (reply,) = SLOTS.answers()
    return reply, counted


def query(
    name: str,
    qtype: int | str = "A",
    *,
    ident: int = 0x1234,
    edns: int | None = None,
    do: bool = False,
    version: int = 0,
    flags: int = 0x0100,
) -> bytes:
    record = dnslib.DNSRecord(dnslib.DNSHeader(id=ident, bitmap=flags))
    number = qtype if isinstance(qtype, int) else getattr(dnslib.QTYPE, qtype)
    record.add_question(dnslib.DNSQuestion(dnslib.DNSLabel(name), number))
    if edns is not None:
        record.add_ar(dnslib.EDNS0(udp_len=edns, flags="do" if do else "", version=version))
    return bytes(record.pack())


@dataclass
class FakeUpstream:
    """A DNS server on loopback that behaves as ``by_udp`` and ``by_tcp`` say: query bytes -> packets to send back."""

    by_udp: Callable[[bytes], list[bytes]]
    by_tcp: Callable[[bytes], list[bytes]] | None = None
    delay_s: float = 0.0
    seen_udp: list[bytes] = field(default_factory=list)
    seen_tcp: list[bytes] = field(default_factory=list)
    peers: list[tuple[str, int]] = field(default_factory=list)
    port: int = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            await udp.bind(("127.0.0.1", self.port))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, self._tcp, listeners)
                task_status.started()
                while True:
                    message, peer = await udp.recvfrom(65535)
                    self.seen_udp.append(message)
                    self.peers.append(peer)
                    nursery.start_soon(self._answer, udp, message, peer)

    async def _answer(self, udp: trio.socket.SocketType, message: bytes, peer: tuple[str, int]) -> None:
        await trio.sleep(self.delay_s)
        for packet in self.by_udp(message):
            await udp.sendto(packet, peer)

    async def _tcp(self, stream: trio.SocketStream) -> None:
        async with stream:
            data = await stream.receive_some(4096)
            if self.by_tcp is None or not data:
                return
            self.seen_tcp.append(data[2:])
            for packet in self.by_tcp(data[2:]):
                await stream.send_all(len(packet).to_bytes(2) + packet)


def honest(message: bytes, address: str = "192.0.2.7", count: int = 1) -> list[bytes]:
    request = dnslib.DNSRecord.parse(message)
    reply = request.reply(aa=0)
    for i in range(count):
        reply.add_answer(
            dnslib.RR(
                request.q.qname,
                dnslib.QTYPE.A,
                ttl=60,
                rdata=dnslib.A(address if not i else f"192.0.{i // 250}.{i % 250}"),
            )
        )
    return [bytes(reply.pack())]


def failing(rcode: int) -> Callable[[bytes], list[bytes]]:
    def respond(message: bytes) -> list[bytes]:
        reply = dnslib.DNSRecord.parse(message).reply()
        reply.header.rcode = rcode
        return [bytes(reply.pack())]

    return respond


def truncating(message: bytes) -> list[bytes]:
    reply = dnslib.DNSRecord.parse(message).reply()
    reply.header.tc = 1
    return [bytes(reply.pack())]


def with_ttl(ttl_s: int) -> Callable[[bytes], list[bytes]]:
    def respond(message: bytes) -> list[bytes]:
        request = dnslib.DNSRecord.parse(message)
        reply = request.reply(aa=0)
        reply.add_answer(dnslib.RR(request.q.qname, dnslib.QTYPE.A, ttl=ttl_s, rdata=dnslib.A("192.0.2.7")))
        return [bytes(reply.pack())]

    return respond


def folding(address: str = "192.0.2.7") -> Callable[[bytes], list[bytes]]:
    """A server that repeats names in lower case."""

    def respond(message: bytes) -> list[bytes]:
        return honest(message[:12] + message[12:].lower(), address)

    return respond


def without_edns(message: bytes) -> list[bytes]:
    """A server that takes an OPT record for an error."""
    return failing(1)(message) if dnslib.DNSRecord.parse(message).header.ar else honest(message)
