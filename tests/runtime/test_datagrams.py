import socket
from collections.abc import Callable, Iterator

import pytest

from meshd.runtime import datagrams
from meshd.runtime.datagrams import BATCH, Batched, Datagrams, Plain, Slots

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["127.0.0.1", "::1"])
def ours(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.bind((request.param, 0))
        except OSError:
            pytest.skip(f"no {request.param} here")
        yield sock


@pytest.fixture
def theirs(ours: socket.socket) -> Iterator[socket.socket]:
    with socket.socket(ours.family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect(ours.getsockname())
        yield sock


@pytest.mark.parametrize("make", [Plain, Batched])
def test_batches_come_and_go(
    make: Callable[[socket.socket, int], Datagrams], ours: socket.socket, theirs: socket.socket
) -> None:
    batch = make(ours, 512)
    assert batch.receive() == 0
    for round_ in range(3):  # the slots are used again
        sent = [bytes((round_, i)) * (i + 1) for i in range(BATCH)]
        for message in [*sent, b"one more"]:
            theirs.send(message)
        assert batch.receive() == BATCH
        assert [batch.message(i) for i in range(BATCH)] == sent
        assert {batch.peer(i) for i in range(BATCH)} == {theirs.getsockname()}
        answered = range(BATCH - 1, -1, -1 - round_)
        for i in answered:
            batch.answer(i, sent[i][::-1])
        assert batch.flush() == 0
        assert sorted(theirs.recv(512) for _ in answered) == sorted(sent[i][::-1] for i in answered)
        assert batch.receive() == 1
        assert batch.message(0) == b"one more"
        assert batch.flush() == 0
    assert batch.receive() == 0


@pytest.mark.parametrize("make", [Plain, Batched])
def test_messages_become_their_answers(
    make: Callable[[socket.socket, int], Datagrams], ours: socket.socket, theirs: socket.socket
) -> None:
    batch = make(ours, 32)
    for message in (b"id23456789abkept:gone", b"", b"no", b"it23456789abalso"):
        theirs.send(message)
    assert batch.receive() == 4
    assert batch.sizes == [21, 0, 2, 16]
    peeked = batch.peek(12)
    assert bytes((peeked[0], peeked[3])) == b"ka"
    for slot in (0, 3):
        batch.memory[batch.heads[slot]] = b"HEADHEADHE"
    batch.answered([16, 0, 0, 14], [1, 2])
    assert batch.host(3) == socket.inet_pton(ours.family, theirs.getsockname()[0])
    batch.answer(2, b"yes")
    assert batch.flush() == 0
    assert sorted(theirs.recv(64) for _ in range(3)) == [b"idHEADHEADHEkept", b"itHEADHEADHEal", b"yes"]


def test_slots_are_filled_and_read_without_a_socket() -> None:
    slots = Slots(16)
    for messages in ([b"x" * 17, b"", b"third"], [b"one"]):  # what was there before is gone
        slots.fill(messages, b"\x7f\0\0\1")
        assert [slots.message(i) for i in range(len(slots.sizes))] == [message[:16] for message in messages]
        assert {slots.host(i) for i in range(len(slots.sizes))} == {b"\x7f\0\0\1"}
        assert slots.answers() == []
        slots.answered([2, *(0 for _ in messages[1:])], list(range(1, len(messages))))
        assert slots.answers() == [messages[0][:2]]
        slots.answer(0, b"later")
        assert slots.answers()[-1] == b"later"


@pytest.mark.parametrize("make", [Plain, Batched])
def test_each_sender_gets_its_own_answer_and_long_messages_are_cut(
    make: Callable[[socket.socket, int], Datagrams], ours: socket.socket, theirs: socket.socket
) -> None:
    batch = make(ours, 16)
    with socket.socket(ours.family, socket.SOCK_DGRAM) as other:
        other.settimeout(2)
        other.connect(ours.getsockname())
        theirs.send(b"x" * 100)
        other.send(b"")
        assert batch.receive() == 2
        assert [batch.message(0), batch.message(1)] == [b"x" * 16, b""]
        batch.answer(1, b"other")
        batch.answer(0, b"theirs")
        batch.flush()
        assert (theirs.recv(64), other.recv(64)) == (b"theirs", b"other")


@pytest.mark.parametrize("make", [Plain, Batched])
def test_an_answer_that_cannot_be_sent_does_not_take_the_others_along(
    make: Callable[[socket.socket, int], Datagrams],
) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        ours.bind(("127.0.0.1", 0))
        theirs.settimeout(2)
        theirs.connect(ours.getsockname())
        batch = make(ours, 70_000)
        for message in (b"a", b"b", b"c"):
            theirs.send(message)
        assert batch.receive() == 3
        batch.answer(0, b"first")
        batch.answer(1, b"x" * 66_000)  # EMSGSIZE
        batch.answer(2, b"last")
        assert batch.flush() == 1
        assert (theirs.recv(64), theirs.recv(64)) == (b"first", b"last")


def test_where_the_layout_is_not_as_expected_plain_calls_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        assert isinstance(datagrams.datagrams(sock, 512), Batched)
        monkeypatch.setattr(datagrams.Batched, "message", lambda *_: b"garbled")
        assert isinstance(datagrams.datagrams(sock, 512), Plain)
