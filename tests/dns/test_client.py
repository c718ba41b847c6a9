"""What is kept of upstreams' answers, what is told while they are away, and what is fetched in the background."""

from pathlib import Path

import dns.message
import pytest
import trio

from meshd.dns import client, forward, wire
from meshd.dns.client import Upstreams
from meshd.dns.metrics import Tally
from meshd.dns.settings import Address, DnsSettings
from tests.dns.support import FakeUpstream, failing, honest, query, with_ttl

pytestmark = pytest.mark.e2e


class Asker:
    """Upstreams on loopback and one who asks them."""

    def __init__(self, nursery: trio.Nursery, *fakes: FakeUpstream, **more: object) -> None:
        self.nursery = nursery
        self.fakes = fakes
        self.more = more
        self.tally = Tally(None)
        self.how = ""

    async def start(self, *, run: bool = True) -> "Asker":
        for fake in self.fakes:
            await self.nursery.start(fake.run)
        addresses = tuple(Address("127.0.0.1", f.port) for f in self.fakes)
        self.upstreams = Upstreams(DnsSettings(upstreams=addresses, **self.more), self.tally)  # type: ignore[arg-type]
        if run:
            await self.nursery.start(self.upstreams.run)
        return self

    async def ask(self, name: str = "example.org", **more: object) -> dns.message.Message | None:
        told = await self.upstreams.ask(wire.parse_query(query(name, **more)))  # type: ignore[arg-type]
        self.how = told[1] if told is not None else ""
        return dns.message.from_wire(told[0]) if told is not None else None

    async def addresses(self, name: str = "example.org", **more: object) -> list[str]:
        reply = await self.ask(name, **more)
        assert reply is not None
        return [str(record) for records in reply.answer for record in records]

    async def until_counted(self, event: str, count: int = 1) -> None:
        with trio.fail_after(5):
            while self.tally.cache.get(event, 0) < count:
                await trio.sleep(0.005)

    def expire(self) -> None:
        """As if everything had been fetched long ago."""
        for entry in self.upstreams._cache._entries.values():
            entry.since -= entry.reply.ttl_s + 1


def counted(fake: FakeUpstream) -> int:
    return len(fake.seen_udp)


async def test_a_second_question_in_any_spelling_is_answered_from_what_is_kept(nursery: trio.Nursery) -> None:
    asker = await Asker(nursery, fake := FakeUpstream(honest)).start()
    assert await asker.addresses() == ["192.0.2.7"]
    again = await asker.ask("EXAMPLE.org", ident=77, edns=1232)
    assert again is not None
    assert (again.id, str(again.question[0].name), again.edns) == (77, "EXAMPLE.org.", 0)
    assert counted(fake) == 1
    assert asker.tally.cache == {"miss": 1, "hit": 1}


async def test_a_ttl_of_zero_is_not_kept(nursery: trio.Nursery) -> None:
    asker = await Asker(nursery, fake := FakeUpstream(with_ttl(0))).start()
    for _ in range(2):
        await asker.addresses()
    assert counted(fake) == 2


async def test_the_same_question_is_asked_once_for_all(nursery: trio.Nursery) -> None:
    asker = await Asker(nursery, fake := FakeUpstream(honest, delay_s=0.1)).start()
    seen: list[list[str]] = []

    async def ask(ident: int) -> None:
        seen.append(await asker.addresses(ident=ident))

    async with trio.open_nursery() as asking:
        for ident in range(50):
            asking.start_soon(ask, ident)
    assert seen == [["192.0.2.7"]] * 50
    assert counted(fake) == 1


async def test_one_who_leaves_does_not_take_the_answer_from_the_others(nursery: trio.Nursery) -> None:
    asker = await Asker(nursery, FakeUpstream(honest, delay_s=0.2)).start()
    with trio.CancelScope() as leaving:
        async with trio.open_nursery() as first:
            first.start_soon(asker.ask)
            await trio.sleep(0.05)
            nursery.start_soon(asker.ask)
            await trio.sleep(0.02)
            leaving.cancel()
    assert await asker.addresses() == ["192.0.2.7"]


async def test_more_questions_than_may_be_outstanding_are_not_asked(nursery: trio.Nursery) -> None:
    asker = await Asker(nursery, fake := FakeUpstream(honest, delay_s=0.2), max_outstanding=3).start()
    seen: list[bool] = []

    async def ask(i: int) -> None:
        seen.append(await asker.ask(f"name{i}.example") is not None)

    async with trio.open_nursery() as asking:
        for i in range(5):
            asking.start_soon(ask, i)
    assert sorted(seen) == [False, False, True, True, True]
    assert counted(fake) == 3
    assert asker.tally.upstream["none", "overload"] == 2


async def test_a_stale_answer_is_told_at_once_while_all_are_down_and_a_new_one_after(nursery: trio.Nursery) -> None:
    fake = FakeUpstream(honest)
    asker = await Asker(nursery, fake).start()
    await asker.addresses()
    asker.expire()
    address = Address("127.0.0.1", fake.port)
    asker.upstreams._servers._health[address] = forward.Health(failures=3, down_until=trio.current_time() + 0.05)
    stale = await asker.ask(edns=1232)
    assert asker.how == "stale"
    assert stale is not None
    assert [o.to_text() for o in stale.options] == ["EDE 3 (Stale Answer)"]
    assert stale.answer[0].ttl == 30
    assert counted(fake) == 1
    await trio.sleep(0.06)
    await asker.ask()  # told as before, and lets a question find out whether somebody is back
    await asker.until_counted("probe")
    with trio.fail_after(5):
        while asker.upstreams.cached(wire.parse_query(query("example.org"))) is None or counted(fake) < 2:
            await trio.sleep(0.005)
    fresh = await asker.ask(edns=1232)
    assert fresh is not None
    assert not fresh.options


@pytest.mark.parametrize("rcode", [2, 5])
async def test_a_stale_answer_is_better_than_an_error(nursery: trio.Nursery, rcode: int) -> None:
    fake = FakeUpstream(honest)
    asker = await Asker(nursery, fake).start()
    await asker.addresses()
    asker.expire()
    fake.by_udp = failing(rcode)
    for _ in range(3):
        assert await asker.addresses() == ["192.0.2.7"]
    assert counted(fake) == 2  # and the next ones are not held up by asking
    assert asker.tally.cache["stale"] == 3


async def test_a_stale_answer_is_told_to_one_who_has_waited(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "STALE_AFTER_S", 0.05)
    fake = FakeUpstream(honest)
    asker = await Asker(nursery, fake).start()
    await asker.addresses()
    asker.expire()
    fake.by_udp = lambda _: []
    assert await asker.addresses() == ["192.0.2.7"]


async def test_nothing_stale_is_told_where_that_is_not_wanted(nursery: trio.Nursery) -> None:
    fake = FakeUpstream(honest)
    asker = await Asker(nursery, fake, max_stale_s=0.0).start()
    await asker.addresses()
    asker.expire()
    fake.by_udp = failing(2)
    reply = await asker.ask()
    assert reply is not None
    assert (reply.rcode(), reply.answer) == (2, [])


async def test_an_error_is_repeated_for_a_moment_and_not_asked_again(nursery: trio.Nursery) -> None:
    asker = await Asker(nursery, fake := FakeUpstream(failing(2))).start()
    for _ in range(3):
        reply = await asker.ask()
        assert reply is not None
        assert reply.rcode() == 2
    assert counted(fake) == 1


async def test_a_hot_name_is_fetched_before_its_time(nursery: trio.Nursery) -> None:
    fake = FakeUpstream(honest)
    asker = await Asker(nursery, fake).start()
    await asker.addresses()
    for entry in asker.upstreams._cache._entries.values():
        entry.since -= entry.reply.ttl_s * 0.95
    for _ in range(2):
        await asker.addresses()
    assert counted(fake) == 1
    for _ in range(3):
        await asker.addresses()
    await asker.until_counted("prefetch")
    with trio.fail_after(5):
        while (reply := await asker.ask()) is None or reply.answer[0].ttl < 50:
            await trio.sleep(0.005)
    assert counted(fake) == 2


async def test_when_all_are_down_the_answer_is_immediate_until_one_returns(nursery: trio.Nursery) -> None:
    fake = FakeUpstream(honest)
    with trio.socket.socket() as reserved:
        await reserved.bind(("127.0.0.1", 0))
        fake.port = reserved.getsockname()[1]
    asker = Asker(nursery)
    asker.upstreams = Upstreams(DnsSettings(upstreams=(Address("127.0.0.1", fake.port),)), asker.tally)
    await nursery.start(asker.upstreams.run)
    for i in range(2):
        assert await asker.ask(f"name{i}.example") is None
    assert not asker.upstreams._servers.any_to_ask(probes=False)
    assert await asker.ask() is None
    await nursery.start(fake.run)
    with trio.fail_after(8):
        while await asker.ask() is None:
            await trio.sleep(0.02)


async def test_nobody_waits_for_the_question_that_finds_out(nursery: trio.Nursery) -> None:
    asker = await Asker(nursery, FakeUpstream(lambda _: [])).start()
    address = Address("127.0.0.1", asker.fakes[0].port)
    asker.upstreams._servers._health[address] = forward.Health(failures=3)
    assert await asker.ask() is None
    await asker.until_counted("probe")
    assert asker.tally.upstream == {}  # the probe has been sent and is still out


async def test_names_of_the_domain_and_of_vips_never_leave(nursery: trio.Nursery) -> None:
    asker = await Asker(nursery, fake := FakeUpstream(honest), vips=forward.IPv4Network("240.0.0.0/4")).start()
    for name in ("unknown.mesh", "3.2.1.240.in-addr.arpa"):
        reply = await asker.ask(name)
        assert reply is not None
        assert reply.rcode() == 3
    assert counted(fake) == 0


async def test_servers_of_resolv_conf_are_read_again_when_it_changes(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.dns.session.LOOK_AT_FILE_S", 0.0)
    file = tmp_path / "resolv.conf"
    upstreams = Upstreams(DnsSettings(resolv_conf=file, listen=Address("127.0.0.9", 53)), Tally(None))
    servers = upstreams._servers

    def names() -> list[str]:
        servers.any_to_ask(probes=False)
        return [str(a) for a in servers._addresses]

    assert names() == []
    file.write_text("nameserver 10.0.0.2\nnameserver 127.0.0.9\n")
    assert names() == ["10.0.0.2:53"]
    servers._health[servers._addresses[0]] = down = forward.Health(failures=3, down_until=9e9)
    file.write_text("nameserver 10.0.0.3\nnameserver 10.0.0.2\n")
    assert names() == ["10.0.0.3:53", "10.0.0.2:53"]
    assert servers._health[servers._addresses[1]] == down
    for useless in (lambda: file.write_text("search x\n"), file.unlink):
        useless()
        assert names() == ["10.0.0.3:53", "10.0.0.2:53"]


async def test_what_is_configured_bounds_what_is_kept(nursery: trio.Nursery) -> None:
    asker = await Asker(nursery, fake := FakeUpstream(with_ttl(100)), max_ttl_s=10, prefetch=False).start()
    for _ in range(6):
        await asker.ask()
    (entry,) = asker.upstreams._cache._entries.values()
    assert (entry.reply.ttl_s, asker.how, counted(fake)) == (10, "cached", 1)
    entry.since -= 9.5  # its last tenth, and hot
    await asker.ask()
    assert asker.tally.cache == {"miss": 1, "hit": 6}
    entry.since -= 1
    await asker.ask()
    assert (asker.how, counted(fake)) == ("forwarded", 2)
