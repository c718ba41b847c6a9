"""What the world says of a name, past our own table."""

import dnslib
import pytest
import trio

from meshd.dns import wire
from meshd.dns.lookup import RealAddresses, addresses_in, query_of
from meshd.dns.settings import Address, DnsSettings
from tests.dns.support import FakeUpstream, failing, honest


async def look(fake: FakeUpstream, host: str) -> tuple[str, ...]:
    async with trio.open_nursery() as nursery:
        await nursery.start(fake.run)
        found = await RealAddresses(DnsSettings(upstreams=(Address("127.0.0.1", fake.port),)))(host)
        nursery.cancel_scope.cancel()
    return found


@pytest.mark.e2e
async def test_the_upstream_is_asked() -> None:
    fake = FakeUpstream(honest)
    assert await look(fake, "API.example") == ("192.0.2.7",)
    assert dnslib.DNSRecord.parse(fake.seen_udp[0]).header.rd


@pytest.mark.e2e
async def test_aaaa_is_asked_where_there_is_no_a() -> None:
    def six(message: bytes) -> list[bytes]:
        request = dnslib.DNSRecord.parse(message)
        reply = request.reply()
        if request.q.qtype == wire.AAAA:
            reply.add_answer(dnslib.RR(request.q.qname, wire.AAAA, ttl=1, rdata=dnslib.AAAA("2001:db8::1")))
        return [bytes(reply.pack())]

    assert await look(FakeUpstream(six), "six.example") == ("2001:db8::1",)


@pytest.mark.e2e
async def test_nobody_knows_it() -> None:
    assert await look(FakeUpstream(failing(wire.NXDOMAIN)), "gone.example") == ()


def test_what_is_no_name_is_an_os_error() -> None:
    with pytest.raises(OSError, match="longer than 63"):
        query_of("x" * 64 + ".example", wire.A)


def test_aliases_are_followed_and_broken_replies_are_empty() -> None:
    request = dnslib.DNSRecord.question("www.example")
    reply = request.reply()
    reply.add_answer(*dnslib.RR.fromZone("www.example 60 CNAME real.example\nreal.example 60 A 192.0.2.8"))
    packed = bytes(reply.pack())
    assert addresses_in(packed, wire.A) == ("192.0.2.8",)
    for cut in range(wire.HEADER_BYTES, len(packed)):
        assert addresses_in(packed[:cut], wire.A) == ()
