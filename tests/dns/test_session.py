"""Upstreams that are honest, slow, dead, lying and truncating, on loopback. docs/dns.md has the table of outcomes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import dnslib
import pytest
import trio

from meshd.dns import forward, session, wire
from meshd.dns.metrics import Tally
from meshd.dns.reply import Reply
from meshd.dns.session import Servers
from meshd.dns.settings import Address
from tests.dns.support import FakeUpstream, failing, folding, honest, query, truncating, without_edns

pytestmark = pytest.mark.e2e

QUERY = wire.parse_query(query("example.org"))
LONG = wire.parse_query(query("a" * 60 + ".example.org"))
"""Of so many letters at least one is in upper case in our spelling."""
Behaviour = Callable[[bytes], list[bytes]]


@dataclass
class Seen:
    replies: list[Reply | None]
    tally: Tally
    servers: Servers
    addresses: list[Address] = field(default_factory=list)

    @property
    def rcodes(self) -> list[int | None]:
        return [reply.rcode if reply is not None else None for reply in self.replies]

    def events(self, index: int = 0) -> dict[str, int]:
        return {what: n for (who, what), n in self.tally.upstream.items() if who == str(self.addresses[index])}

    def health(self, index: int = 0) -> forward.Health:
        return self.servers._health[self.addresses[index]]


def silent(_: bytes) -> list[bytes]:
    return []


async def ask(*fakes: FakeUpstream, times: int = 1, asked: wire.Query = QUERY) -> Seen:
    tally = Tally(None)
    async with trio.open_nursery() as nursery:
        for fake in fakes:
            await nursery.start(fake.run)
        addresses = [Address("127.0.0.1", f.port) for f in fakes]
        servers = Servers(addresses, tally, resolv_conf=None, listen=None)
        replies = [await servers.ask(asked, probes=True) for _ in range(times)]
        nursery.cancel_scope.cancel()
    return Seen(replies, tally, servers, addresses)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ATTEMPT_S", 0.4)
    monkeypatch.setattr(session, "TCP_ATTEMPT_S", 0.4)
    monkeypatch.setattr(forward, "PATIENCE_S", 0.15)


async def test_ids_source_ports_and_spellings_are_random() -> None:
    fake = FakeUpstream(honest)
    await ask(fake, times=20)
    assert len({message[:2] for message in fake.seen_udp}) > 15
    assert len({port for _, port in fake.peers}) > 15
    assert len({message[12:25] for message in fake.seen_udp}) > 10


@pytest.mark.parametrize("first", [silent, failing(2), failing(5), failing(4)])
async def test_the_next_upstream_is_asked(first: Behaviour) -> None:
    assert (await ask(FakeUpstream(first), FakeUpstream(honest))).rcodes == [0]


async def test_nxdomain_is_an_answer() -> None:
    second = FakeUpstream(honest)
    assert (await ask(FakeUpstream(failing(3)), second)).rcodes == [3]
    assert second.seen_udp == []


async def test_an_error_of_all_upstreams_is_passed_on_and_each_asked_once() -> None:
    first, second = FakeUpstream(failing(2)), FakeUpstream(failing(5))
    assert (await ask(first, second)).rcodes == [2]
    assert (len(first.seen_udp), len(second.seen_udp)) == (1, 1)


async def test_a_lost_packet_is_sent_again() -> None:
    fake = FakeUpstream(lambda message: honest(message) if len(fake.seen_udp) > 1 else [])
    assert (await ask(fake)).rcodes == [0]


async def test_a_slow_upstream_is_still_heard() -> None:
    seen = await ask(FakeUpstream(honest, delay_s=0.25))
    assert seen.rcodes == [0]
    assert seen.health().is_up


async def test_where_another_is_quicker_a_slow_upstream_is_soon_left_alone() -> None:
    slow = FakeUpstream(honest, delay_s=0.3)
    seen = await ask(slow, FakeUpstream(honest), times=5)
    assert seen.rcodes == [0] * 5
    assert not seen.health(0).is_up
    assert len(slow.seen_udp) == forward.FAILURES_TO_DOWN


@pytest.mark.parametrize(
    ("name", "lie", "event"),
    [
        ("wrong id", lambda m: bytes((m[0] ^ 1,)) + honest(m)[0][1:], "mismatch"),
        ("wrong question", lambda m: honest(m)[0].lower().replace(b"example", b"exmaple"), "mismatch"),
        ("wrong type", lambda m: honest(query("example.org", "AAAA", ident=int.from_bytes(m[:2])))[0], "mismatch"),
        ("no response", lambda m: m, "mismatch"),
        ("garbage", lambda _: b"\xff" * 30, "mismatch"),
        ("empty", lambda _: b"", "mismatch"),
        ("garbage behind a true question", lambda m: honest(m)[0][:-9], "broken"),
        ("more behind the last record", lambda m: honest(m)[0] + b"x", "broken"),
    ],
)
async def test_a_lie_is_ignored_and_the_truth_still_heard(name: str, lie: Callable[[bytes], bytes], event: str) -> None:
    seen = await ask(FakeUpstream(lambda message: [lie(message), *honest(message)]))
    (reply,) = seen.replies
    assert reply is not None
    assert reply.body.endswith(bytes((192, 0, 2, 7)))
    assert seen.events() == {event: 1, "reply": 1}


async def test_one_who_only_lies_is_a_server_that_does_not_answer() -> None:
    seen = await ask(FakeUpstream(lambda m: [bytes((m[0] ^ 1,)) + honest(m)[0][1:]]), FakeUpstream(honest))
    assert seen.rcodes == [0]
    assert "reply" not in seen.events(0)


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
async def test_a_packet_from_another_port_or_address_is_never_seen(nursery: trio.Nursery, source: str) -> None:
    fake = FakeUpstream(silent)
    await nursery.start(fake.run)
    tally = Tally(None)
    servers = Servers([Address("127.0.0.1", fake.port)], tally, resolv_conf=None, listen=None)
    replies: list[Reply | None] = []

    async def ask_it() -> None:
        replies.append(await servers.ask(QUERY, probes=True))

    async with trio.open_nursery() as asking:
        asking.start_soon(ask_it)
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as forger:
            # From another port of its address, or from its port of another address.
            await forger.bind((source, 0 if source == "127.0.0.1" else fake.port))
            while not fake.peers:
                await trio.sleep(0.005)
            await forger.sendto(honest(fake.seen_udp[0], "203.0.113.1")[0], fake.peers[0])
    assert replies == [None]
    assert {what for _, what in tally.upstream} == {"timeout"}


async def test_a_truncated_reply_is_fetched_by_tcp_under_a_new_id() -> None:
    fake = FakeUpstream(truncating, lambda message: honest(message, count=100))
    (reply,) = (await ask(fake)).replies
    assert reply is not None
    assert reply.counts[0] == 100
    assert fake.seen_tcp[0][:2] != fake.seen_udp[0][:2] or fake.seen_tcp[0] != fake.seen_udp[0]
    assert fake.seen_tcp[0][2:].lower() == fake.seen_udp[0][2:].lower()


@pytest.mark.parametrize("by_tcp", [None, lambda m: [b"\0\0" + honest(m)[0][2:]], lambda _: [b"short"]])
async def test_the_truncated_reply_has_to_do_if_tcp_fails(by_tcp: Behaviour | None) -> None:
    seen = await ask(FakeUpstream(truncating, by_tcp))
    (reply,) = seen.replies
    assert reply is not None
    assert reply.is_truncated
    assert seen.events()["tcp_failed"] == 1


async def test_a_reply_in_another_spelling_is_not_believed_before_tcp_confirms_it() -> None:
    forged = FakeUpstream(folding("203.0.113.1"), honest)
    seen = await ask(forged, asked=LONG)
    (reply,) = seen.replies
    assert reply is not None
    assert reply.body.endswith(bytes((192, 0, 2, 7)))
    assert seen.health().keeps_case


async def test_a_server_that_folds_names_is_asked_in_lower_case_from_then_on() -> None:
    fake = FakeUpstream(folding(), folding())
    seen = await ask(fake, times=3, asked=LONG)
    assert seen.rcodes == [0] * 3
    assert not seen.health().keeps_case
    assert len(fake.seen_tcp) == 1
    assert fake.seen_udp[-1][12:] == fake.seen_udp[-1][12:].lower()


async def test_a_server_that_folds_names_and_has_no_tcp_is_asked_again() -> None:
    fake = FakeUpstream(folding())
    seen = await ask(fake, asked=LONG)
    assert seen.rcodes == [0]
    assert fake.seen_udp[-1][12:] == fake.seen_udp[-1][12:].lower()


async def test_a_server_without_edns_is_asked_without() -> None:
    fake = FakeUpstream(without_edns)
    seen = await ask(fake, times=2)
    assert seen.rcodes == [0, 0]
    assert [dnslib.DNSRecord.parse(m).header.ar for m in fake.seen_udp] == [1, 0, 0]


async def test_a_port_where_nobody_listens_is_known_at_once_and_soon_not_asked() -> None:
    with trio.socket.socket() as reserved:
        await reserved.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", reserved.getsockname()[1])
    servers = Servers([address], tally := Tally(None), resolv_conf=None, listen=None)
    for _ in range(4):
        assert await servers.ask(QUERY, probes=False) is None
    assert tally.upstream == {(str(address), "unreachable"): forward.FAILURES_TO_DOWN + 1}
    assert servers.who_is_up() == {str(address): False}


async def test_the_servers_are_those_of_resolv_conf_as_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session, "LOOK_AT_FILE_S", 0)
    path = tmp_path / "resolv.conf"
    servers = Servers([], Tally(None), resolv_conf=path, listen=Address("127.0.0.1", 53))

    def asked_after(text: str | None) -> list[str]:
        if text is None:
            path.unlink()
        else:
            # As those who write it do: a new file in place of the old one.
            (tmp_path / "new").write_text(text)
            (tmp_path / "new").rename(path)
        servers.any_to_ask(probes=True)
        return list(servers.who_is_up())

    assert not servers.any_to_ask(probes=True)
    first = asked_after("search x\nnameserver 192.0.2.1\nnameserver 127.0.0.1\nnameserver 192.0.2.2\n")
    assert first == ["192.0.2.1:53", "192.0.2.2:53"]  # and not this resolver itself
    servers._health[Address("192.0.2.2", 53)] = down = forward.Health(failures=3, down_until=1e9)
    assert asked_after("nameserver 192.0.2.2\nnameserver 2001:db8::1\n") == ["192.0.2.2:53", "[2001:db8::1]:53"]
    assert servers._health[Address("192.0.2.2", 53)] == down  # what is known of one that stays is kept
    for useless in ("# nobody\n", None, "nameserver 127.0.0.1\n"):
        assert asked_after(useless) == ["192.0.2.2:53", "[2001:db8::1]:53"]
    assert "names no server that could be asked; asking 192.0.2.2:53" in caplog.text
    assert asked_after("nameserver 192.0.2.3\n") == ["192.0.2.3:53"]
