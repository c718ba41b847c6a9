"""Upstreams that are honest, slow, dead, lying and truncating, on loopback."""

from collections.abc import Callable

import pytest
import trio

from meshd.dns import client, wire
from meshd.dns.client import Upstreams
from meshd.dns.metrics import Tally
from meshd.dns.settings import Address
from tests.dns.support import FakeUpstream, failing, honest, query, truncating

pytestmark = pytest.mark.e2e

QUERY = wire.parse_query(query("example.org"))
Behaviour = Callable[[bytes], list[bytes]]


def silent(_: bytes) -> list[bytes]:
    return []


async def ask(*fakes: FakeUpstream, times: int = 1, max_outstanding: int = 10) -> tuple[list[bytes | None], Tally]:
    """Start the fakes, ask ``times`` times in turn; ports of fakes that are None stay closed."""
    tally = Tally(None)
    async with trio.open_nursery() as nursery:
        for fake in fakes:
            await nursery.start(fake.run)
        upstreams = Upstreams([Address("127.0.0.1", f.port) for f in fakes], max_outstanding, tally)
        replies = [await upstreams.ask(QUERY) for _ in range(times)]
        nursery.cancel_scope.cancel()
    return replies, tally


def rcode(reply: bytes | None) -> int | None:
    return None if reply is None else reply[3] & 0xF


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ATTEMPT_S", 0.1)
    monkeypatch.setattr(client, "TCP_ATTEMPT_S", 0.2)


async def test_ids_and_source_ports_are_random() -> None:
    fake = FakeUpstream(honest)
    await ask(fake, times=20)
    assert len({message[:2] for message in fake.seen_udp}) > 15
    assert len({port for _, port in fake.peers}) > 15


@pytest.mark.parametrize("first", [silent, failing(2), failing(5), failing(4)])
async def test_the_next_upstream_is_asked(first: Behaviour) -> None:
    (reply,), _ = await ask(FakeUpstream(first), FakeUpstream(honest))
    assert rcode(reply) == 0


async def test_nxdomain_is_an_answer() -> None:
    second = FakeUpstream(honest)
    (reply,), _ = await ask(FakeUpstream(failing(3)), second)
    assert rcode(reply) == 3
    assert second.seen_udp == []


async def test_an_error_of_all_upstreams_is_passed_on_and_each_asked_once() -> None:
    first, second = FakeUpstream(failing(2)), FakeUpstream(failing(5))
    (reply,), _ = await ask(first, second)
    assert rcode(reply) == 2
    assert (len(first.seen_udp), len(second.seen_udp)) == (1, 1)


async def test_a_lost_packet_is_sent_again() -> None:
    fake = FakeUpstream(lambda message: honest(message) if len(fake.seen_udp) > 1 else [])
    (reply,), _ = await ask(fake)
    assert rcode(reply) == 0


@pytest.mark.parametrize(
    ("name", "lie"),
    [
        ("wrong id", lambda m: bytes((m[0] ^ 1,)) + honest(m)[0][1:]),
        ("wrong question", lambda m: honest(m)[0].replace(b"example", b"exmaple")),
        ("no response", lambda m: m),
        ("junk", lambda _: b"\xff" * 30),
    ],
)
async def test_a_lie_is_ignored_and_the_truth_still_heard(name: str, lie: Callable[[bytes], bytes]) -> None:
    fake = FakeUpstream(lambda message: [lie(message), *honest(message)])
    (reply,), tally = await ask(fake)
    assert reply is not None
    assert reply.endswith(bytes((192, 0, 2, 7)))
    assert tally.upstream[f"127.0.0.1:{fake.port}", "mismatch"] == 1


async def test_a_packet_from_elsewhere_is_never_seen() -> None:
    async with trio.open_nursery() as nursery:
        fake = FakeUpstream(silent)
        await nursery.start(fake.run)
        upstreams = Upstreams([Address("127.0.0.1", fake.port)], 10, tally := Tally(None))
        replies: list[bytes | None] = []

        async def ask_it() -> None:
            replies.append(await upstreams.ask(QUERY))

        nursery.start_soon(ask_it)
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as forger:
            while not fake.peers:
                await trio.sleep(0.005)
            await forger.sendto(honest(fake.seen_udp[0], "203.0.113.1")[0], fake.peers[0])
            await trio.sleep(0.3)
        nursery.cancel_scope.cancel()
    assert replies == [None]
    assert (f"127.0.0.1:{fake.port}", "mismatch") not in tally.upstream


async def test_a_truncated_reply_is_fetched_by_tcp_under_a_new_id() -> None:
    fake = FakeUpstream(truncating, lambda message: honest(message, count=100))
    (reply,), _ = await ask(fake)
    assert reply is not None
    assert len(reply) > 1600
    assert fake.seen_tcp[0][2:] == fake.seen_udp[0][2:]


@pytest.mark.parametrize("by_tcp", [None, lambda m: [b"\0\0" + honest(m)[0][2:]], lambda _: [b"short"]])
async def test_the_truncated_reply_has_to_do_if_tcp_fails(by_tcp: Behaviour | None) -> None:
    (reply,), tally = await ask(fake := FakeUpstream(truncating, by_tcp))
    assert reply is not None
    assert reply[2] & 2
    assert tally.upstream[f"127.0.0.1:{fake.port}", "tcp_failed"] == 1


async def test_when_all_are_down_the_answer_is_immediate_until_one_returns() -> None:
    tally = Tally(None)
    async with trio.open_nursery() as nursery:
        probe = FakeUpstream(honest)
        with trio.socket.socket() as reserved:
            await reserved.bind(("127.0.0.1", 0))
            probe.port = reserved.getsockname()[1]
        upstreams = Upstreams([Address("127.0.0.1", probe.port)], 10, tally)
        for _ in range(2):
            assert await upstreams.ask(QUERY) is None
        began = trio.current_time()
        assert await upstreams.ask(QUERY) is None
        assert trio.current_time() - began < 0.05
        await nursery.start(probe.run)
        with trio.fail_after(3):
            while await upstreams.ask(QUERY) is None:
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()


async def test_one_query_too_many_is_not_sent() -> None:
    fake = FakeUpstream(silent)
    async with trio.open_nursery() as nursery:
        await nursery.start(fake.run)
        upstreams = Upstreams([Address("127.0.0.1", fake.port)], 3, tally := Tally(None))
        async with trio.open_nursery() as asking:
            for _ in range(4):
                asking.start_soon(upstreams.ask, QUERY)
        nursery.cancel_scope.cancel()
    assert len(fake.seen_udp) == 3 * client.ROUNDS
    assert tally.upstream["none", "overload"] == 1
