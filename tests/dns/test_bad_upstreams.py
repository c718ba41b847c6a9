"""What a client sees when an upstream misbehaves, alone and with an honest one behind it: the table of docs/dns.md."""

from collections.abc import Callable

import dns.message
import dns.rcode
import pytest
import trio

from meshd.dns import forward, session
from meshd.dns.settings import Address
from tests.dns.support import FakeUpstream, failing, folding, honest, query, truncating, without_edns
from tests.dns.test_server import Running

pytestmark = pytest.mark.e2e

TRUE, FORGED = "192.0.2.7", "203.0.113.1"
Behaviour = Callable[[bytes], list[bytes]]


def wrong_id(message: bytes) -> list[bytes]:
    return [bytes((message[0] ^ 1,)) + honest(message, FORGED)[0][1:]]


def wrong_question(message: bytes) -> list[bytes]:
    return honest(message[:13] + b"x" + message[14:], FORGED)


def from_elsewhere(host: str, port: int | None) -> Callable[[FakeUpstream], Behaviour]:
    """Answers come from another port, or another address."""

    def made(fake: FakeUpstream) -> Behaviour:
        def answer(message: bytes) -> list[bytes]:
            with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sock:
                stdlib = sock._sock  # type: ignore[attr-defined]
                stdlib.bind((host, fake.port if port is None else port))
                stdlib.sendto(honest(message, FORGED)[0], fake.peers[-1])
            return []

        return answer

    return made


CASES: dict[str, tuple[Behaviour | Callable[[FakeUpstream], Behaviour], str, str]] = {
    # name: behaviour, what is seen of it alone, and with an honest one behind it
    "honest": (honest, TRUE, TRUE),
    "silent": (lambda _: [], "SERVFAIL", TRUE),
    "SERVFAIL": (failing(2), "SERVFAIL", TRUE),
    "REFUSED": (failing(5), "REFUSED", TRUE),
    "NXDOMAIN": (failing(3), "NXDOMAIN", "NXDOMAIN"),
    "wrong id": (wrong_id, "SERVFAIL", TRUE),
    "wrong question": (wrong_question, "SERVFAIL", TRUE),
    "wrong port": (from_elsewhere("127.0.0.1", 0), "SERVFAIL", TRUE),
    "wrong address": (from_elsewhere("127.0.0.2", None), "SERVFAIL", TRUE),
    "empty": (lambda _: [b""], "SERVFAIL", TRUE),
    "garbage": (lambda _: [b"\xff" * 40], "SERVFAIL", TRUE),
    "its header alone is true": (lambda m: [honest(m)[0][:-9]], "SERVFAIL", TRUE),
    "a lie, then the truth": (lambda m: [*wrong_id(m), *wrong_question(m), *honest(m)], TRUE, TRUE),
    "truncated, TCP refused": (truncating, "TC", TRUE),
    "another spelling": (folding(), TRUE, TRUE),
    "no EDNS": (without_edns, TRUE, TRUE),
}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ATTEMPT_S", 0.3)
    monkeypatch.setattr(forward, "PATIENCE_S", 0.1)


async def seen(nursery: trio.Nursery, *fakes: FakeUpstream) -> str:
    """What a client is told: an address, TC, or an error's name."""
    for fake in fakes:
        await nursery.start(fake.run)
    server = await Running(nursery, tuple(Address("127.0.0.1", fake.port) for fake in fakes)).start()
    (reply,) = await server.udp(query("a-name-of-some-length.example.org"))
    message = dns.message.from_wire(reply, ignore_trailing=False)
    if message.flags & dns.flags.TC:
        return "TC"
    if message.answer:
        return str(message.answer[0][0])
    return dns.rcode.to_text(message.rcode())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("has_second", [False, True], ids=["alone", "with another"])
async def test_what_a_client_sees(nursery: trio.Nursery, name: str, has_second: bool) -> None:
    behaviour, alone, with_another = CASES[name]
    fake = FakeUpstream(honest)
    if name in ("wrong port", "wrong address"):
        fake.by_udp = behaviour(fake)  # type: ignore[assignment,arg-type]
    else:
        fake.by_udp = behaviour  # type: ignore[assignment]
    fakes = [fake, FakeUpstream(honest)] if has_second else [fake]
    assert await seen(nursery, *fakes) == (with_another if has_second else alone)


async def test_one_that_is_killed_is_replaced_at_once(nursery: trio.Nursery) -> None:
    gone = FakeUpstream(honest)
    with trio.socket.socket() as reserved:
        await reserved.bind(("127.0.0.1", 0))
        gone.port = reserved.getsockname()[1]
    second = FakeUpstream(honest)
    await nursery.start(second.run)
    server = await Running(nursery, (Address("127.0.0.1", gone.port), Address("127.0.0.1", second.port))).start()
    for i in range(5):
        (reply,) = await server.udp(query(f"name{i}.example"))
        assert reply[3] & 0xF == 0
    assert server.tally.upstream[f"127.0.0.1:{gone.port}", "unreachable"] == forward.FAILURES_TO_DOWN
