"""The client against servers that answer oddly, byte for byte, in memory."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
import trio
import trio.testing
from hyperframe.frame import GoAwayFrame

from meshd.model.errors import InvalidError, UnavailableError
from meshd.rpc import Channel, RpcError, Status, channel_over, open_channel
from meshd.rpc.framing import frame

Answer = Callable[[h2.connection.H2Connection, int], bytes | None]
OPEN = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]


@asynccontextmanager
async def answered_by(answer: Answer) -> AsyncIterator[Channel]:
    """A channel whose peer answers each call's headers by ``answer``; bytes it returns are sent after its frames."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def serve() -> None:
        machine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        machine.initiate_connection()
        await theirs.send_all(machine.data_to_send())
        while data := await theirs.receive_some():
            try:
                events = machine.receive_data(data)
            except h2.exceptions.ProtocolError:
                return
            more = b""
            for event in events:
                if isinstance(event, h2.events.RequestReceived):
                    more += answer(machine, event.stream_id) or b""
            await theirs.send_all(machine.data_to_send() + more)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with channel_over(ours) as channel:
            yield channel
        nursery.cancel_scope.cancel()


def page(machine, number) -> None:
    machine.send_headers(number, [(":status", "502"), ("content-type", "text/html")])
    machine.send_data(number, b"<html>no gRPC here</html>", end_stream=True)


def bare_end(machine, number) -> None:
    machine.send_headers(number, OPEN)
    machine.send_data(number, frame(b"x"), end_stream=True)


def half_message(machine, number) -> None:
    machine.send_headers(number, OPEN)
    machine.send_data(number, frame(b"whole")[:-1])
    machine.send_headers(number, OK, end_stream=True)


def unknown_encoding(machine, number) -> None:
    machine.send_headers(number, [*OPEN, ("grpc-encoding", "br")], end_stream=True)


def no_message(machine, number) -> None:
    machine.send_headers(number, [*OPEN, *OK], end_stream=True)


def two_messages(machine, number) -> None:
    machine.send_headers(number, OPEN)
    machine.send_data(number, frame(b"1") + frame(b"2"))
    machine.send_headers(number, OK, end_stream=True)


def reset_with(code: int) -> Answer:
    return lambda machine, number: machine.reset_stream(number, code)


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        (page, Status.UNAVAILABLE, "HTTP 502"),
        (bare_end, Status.INTERNAL, "without a status"),
        (half_message, Status.INTERNAL, "inside a message"),
        (unknown_encoding, Status.UNIMPLEMENTED, "'br'"),
        (no_message, Status.INTERNAL, "exactly one message"),
        (two_messages, Status.INTERNAL, "exactly one message"),
        (reset_with(7), Status.UNAVAILABLE, "error 7"),
        (reset_with(8), Status.CANCELLED, "error 8"),
        (reset_with(11), Status.RESOURCE_EXHAUSTED, "error 11"),
        (reset_with(2), Status.INTERNAL, "error 2"),
    ],
)
async def test_odd_answers_are_named(autojump_clock, answer, status, says) -> None:
    async with answered_by(answer) as channel:
        for _ in range(2):  # and the connection goes on
            with pytest.raises(RpcError, match=says) as caught, trio.fail_after(5):
                await channel.unary("/t/any", b"x")
            assert caught.value.status is status
        assert not channel.connection.streams


async def test_calls_that_a_leaving_server_has_not_seen_are_unavailable(autojump_clock) -> None:
    def answer(machine, number) -> bytes | None:
        if number == 1:
            machine.send_headers(1, OPEN)
            machine.send_data(1, frame(b"before"))
            return None
        if number == 3:
            return GoAwayFrame(0, last_stream_id=1, error_code=0, additional_data=b"maintenance").serialize()
        raise AssertionError("no call begins after the goodbye")

    async with answered_by(answer) as channel, channel.stream("/t/any") as first:
        assert await first.receive() == b"before"
        with pytest.raises(UnavailableError, match="maintenance"):
            await channel.unary("/t/any", b"x")
        with pytest.raises(UnavailableError, match="going away"):
            await channel.unary("/t/any", b"x")
        assert first.failure is None
        assert await channel.ping(1.0)


async def test_errors_of_the_body_come_out_as_they_are(autojump_clock) -> None:
    with pytest.raises(KeyError):
        async with answered_by_no_nursery():
            raise KeyError("mine")


@asynccontextmanager
async def answered_by_no_nursery() -> AsyncIterator[Channel]:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"\0\0\0\4\0\0\0\0\0")
    async with channel_over(ours) as channel:
        yield channel


async def test_metadata_that_cannot_be_sent_opens_no_call(autojump_clock) -> None:
    async with answered_by(no_message) as channel:
        with pytest.raises(InvalidError, match="Client-Id"):
            await channel.unary("/t/any", b"", [("Client-Id", "x")])
        assert not channel.connection.streams


async def test_a_port_nobody_listens_on_is_unavailable() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(UnavailableError, match=f"^127.0.0.1:{port}: Connection refused$"):
        async with open_channel("127.0.0.1", port, None):
            pass


async def test_a_host_nobody_knows_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match=r"^name\.invalid:1: .*(known|resol|fail)"):
        async with open_channel("name.invalid", 1, None):
            pass
