"""The connection driver over memory streams, in virtual time: flow control, cancels, keepalive, ends."""

from dataclasses import replace

import pytest
import trio
import trio.testing

from meshd.model.errors import UnavailableError
from meshd.rpc import CLIENT_LIMITS, DEFAULT_LIMITS, RpcError, ServerStream, Status, channel_over
from meshd.rpc.guard import PREFACE
from tests.rpc.support import Counted, echo, in_memory, make_server

MIB = 1024 * 1024


async def test_messages_of_all_sizes_and_both_kinds_come_back(autojump_clock) -> None:
    for gzip in (True, False):
        async with in_memory(make_server({"/t/echo": echo}), gzip=gzip) as (channel, _), channel.stream("/t/echo") as s:
            for size in (0, 1, 1023, 1024, 16_383, 65_536, 300_000, 3 * MIB):
                await s.send(b"ab" * (size // 2) + b"c" * (size % 2))
                received = await s.receive()
                assert received == b"ab" * (size // 2) + b"c" * (size % 2)
            await s.end()
            assert await s.receive() is None


async def test_a_reader_that_does_not_read_stops_its_sender_only(autojump_clock) -> None:
    release = trio.Event()
    sent = []

    async def lazy(stream: ServerStream) -> None:
        await release.wait()
        while await stream.receive() is not None:
            pass

    async def flood(stream) -> None:
        for number in range(40):
            await stream.send(bytes(100_000))
            sent.append(number)
        await stream.end()
        assert await stream.receive() is None

    server = make_server({"/t/lazy": lazy, "/t/echo": echo})
    async with in_memory(server, gzip=False) as (channel, _):
        # More stalled streams than the connection's window has room for, if they shared it.
        async with trio.open_nursery() as nursery:
            for _ in range(20):

                async def one() -> None:
                    async with channel.stream("/t/lazy") as stream:
                        await flood(stream)

                nursery.start_soon(one)
            await trio.sleep(1)
            stalled = len(sent)
            assert stalled <= 20 * 6  # 512 KiB of window each
            assert await channel.unary("/t/echo", bytes(MIB)) == bytes(MIB)
            assert len(sent) == stalled
            release.set()
        assert len(sent) == 20 * 40


async def test_a_cancel_in_the_middle_of_a_send_resets_that_stream_only(autojump_clock) -> None:
    ends = []

    async def deaf(stream: ServerStream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ends.append(str(stream.failure))

    server = make_server({"/t/deaf": deaf, "/t/echo": echo})
    async with in_memory(server, gzip=False) as (channel, _), channel.stream("/t/echo") as other:
        async with channel.stream("/t/deaf") as stream:
            with trio.move_on_after(1) as scope:
                await stream.send(bytes(5 * MIB))
            assert scope.cancelled_caught
            with pytest.raises(RpcError, match="cut in the middle"):
                await stream.send(b"more")
            await trio.sleep(1)
            assert ends == ["CANCELLED: the peer reset the call (HTTP/2 error 8)"]
        await other.send(b"still here")
        assert await other.receive() == b"still here"


async def test_a_cancel_before_the_first_byte_leaves_the_stream_whole(autojump_clock) -> None:
    async def late(stream: ServerStream) -> None:
        await trio.sleep(10)
        while (message := await stream.receive()) is not None:
            await stream.send(message[:1])

    async with in_memory(make_server({"/t/late": late}), gzip=False) as (channel, _), channel.stream("/t/late") as s:
        with trio.move_on_after(1) as scope:
            for _ in range(8):
                await s.send(bytes(65536 - 5))  # the window to the byte
            await s.send(b"no room for this")
        assert scope.cancelled_caught
        await s.send(b"last")
        await s.end()
        assert [await s.receive() for _ in range(10)] == [b"\0"] * 8 + [b"l", None]


async def test_concurrent_senders_do_not_mix_their_messages(autojump_clock) -> None:
    got = []

    async def sink(stream: ServerStream) -> None:
        while (message := await stream.receive()) is not None:
            got.append(message)

    async with in_memory(make_server({"/t/sink": sink}), gzip=False) as (channel, _), channel.stream("/t/sink") as s:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(s.send, bytes([number]) * 200_000)
        await s.end()
        assert await s.receive() is None
    assert sorted(got) == [bytes([n]) * 200_000 for n in range(10)]


async def test_pings_are_answered_both_ways(autojump_clock) -> None:
    answers = []

    async def ask(stream: ServerStream) -> None:
        answers.append(await stream.connection.ping(2.0))

    async with in_memory(make_server({"/t/ask": ask})) as (channel, _):
        async with channel.stream("/t/ask") as stream:
            assert await stream.receive() is None
        assert await channel.ping(2.0) is True
    assert answers == [True]
    assert await channel.ping(2.0) is False


async def silence(stream: trio.StapledStream) -> None:
    """Take the wire's bytes away from now on, as a link that drops packets does."""

    async def nothing(_data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    stream.send_all = nothing


async def test_a_silent_peer_is_dead_after_a_ping_unanswered(autojump_clock) -> None:
    async with in_memory(make_server({"/t/echo": echo})) as (channel, wire):
        async with channel.stream("/t/echo") as stream:
            await stream.send(b"x")
            assert await stream.receive() == b"x"
            began = trio.current_time()
            await silence(wire)
            with pytest.raises(UnavailableError, match="answered no ping"):
                await stream.receive()
            assert 34.9 < trio.current_time() - began < 35.1  # 20 s of silence, 15 s for the ping
            assert await channel.ping(1.0) is False
        with pytest.raises(UnavailableError):
            await channel.unary("/t/echo", b"x")


async def test_an_idle_connection_lives_on_keepalive_for_days(autojump_clock) -> None:
    limits = replace(DEFAULT_LIMITS, idle_s=float("inf"))
    async with in_memory(make_server({"/t/echo": echo}, limits=limits)) as (channel, _):
        await trio.sleep(2 * 86400)
        assert await channel.unary("/t/echo", b"x") == b"x"


@pytest.mark.parametrize("send", [b"", b"\0\0\0\4\0\0\0\0\0", b"\0"])
async def test_a_server_that_says_nothing_is_unavailable(autojump_clock, send) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    if send:
        await theirs.send_all(send)
    if send == b"\0\0\0\4\0\0\0\0\0":
        async with channel_over(ours):
            return
    with pytest.raises(UnavailableError, match="no HTTP/2 preface within 10 s"):
        async with channel_over(ours):
            pass


async def test_a_connection_lost_ends_calls_on_both_sides(autojump_clock) -> None:
    ends = []

    async def wait(stream: ServerStream) -> None:
        try:
            await stream.receive()
        finally:
            ends.append(stream.failure)

    async with in_memory(make_server({"/t/wait": wait})) as (channel, wire), channel.stream("/t/wait") as stream:
        await trio.sleep(1)
        wire.send_stream.close()
        wire.receive_stream.close()
        with pytest.raises(UnavailableError):
            await stream.receive()
        with pytest.raises(UnavailableError):
            await stream.send(b"x")
        await trio.sleep(1)
    assert isinstance(ends[0], UnavailableError)


async def test_a_goodbye_lets_running_calls_end_and_no_new_one_begin(autojump_clock) -> None:
    async def close(stream: ServerStream) -> None:
        stream.connection.say_goodbye()

    async with (
        in_memory(make_server({"/t/echo": echo, "/t/close": close})) as (channel, _),
        channel.stream("/t/echo") as stream,
    ):
        async with channel.stream("/t/close") as other:
            assert await other.receive() is None
        await stream.send(b"still")
        assert await stream.receive() == b"still"
        with pytest.raises(UnavailableError, match="going away"):
            await channel.unary("/t/echo", b"x")
        await stream.end()
        assert await stream.receive() is None


async def test_a_close_from_a_handler_names_its_reason_to_the_handlers(autojump_clock) -> None:
    failures = []

    async def wait(stream: ServerStream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            failures.append(str(stream.failure))

    async def close(stream: ServerStream) -> None:
        stream.connection.close("replaced by a newer connection of the zone")
        await trio.sleep_forever()

    async with (
        in_memory(make_server({"/t/wait": wait, "/t/close": close})) as (channel, _),
        channel.stream("/t/wait") as stream,
        channel.stream("/t/close"),
    ):
        with pytest.raises(UnavailableError):
            await stream.receive()
    assert failures == ["memory: replaced by a newer connection of the zone"]


async def test_a_peer_that_does_not_read_our_answers_is_not_read_either(autojump_clock) -> None:
    """PING answers pile up to a bound, then the reader waits; the ping limit is lifted to get there."""
    limits = replace(DEFAULT_LIMITS, idle_frames_burst=10**9, send_buffer_bytes=1000)
    server = make_server({}, limits=limits)
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_connection, theirs)
        await ours.send_all(PREFACE + b"\0\0\0\4\0\0\0\0\0")
        sent = 0
        with trio.move_on_after(5):
            for _ in range(1000):
                await ours.send_all(b"\0\0\x08\6\0\0\0\0\0" + bytes(8))
                sent += 1
        assert sent < 300
        (connection,) = server.connections
        assert connection._out.queued_bytes < 3000 + 17 * 64
        nursery.cancel_scope.cancel()


async def test_calls_above_the_peers_limit_wait_their_turn(autojump_clock) -> None:
    running = 0
    most = 0

    async def slow(stream: ServerStream) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        await stream.send(b"done")

    server = make_server({"/t/slow": slow}, limits=replace(DEFAULT_LIMITS, max_streams=4))
    async with in_memory(server) as (channel, _):
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(channel.unary, "/t/slow", b"")
        assert most == 4
        assert trio.current_time() < 5
        assert not channel.connection.streams


async def test_messages_over_the_limit_are_refused_at_both_ends(autojump_clock) -> None:
    small = replace(CLIENT_LIMITS, max_message_bytes=1000)

    async def big(stream: ServerStream) -> None:
        await stream.send(bytes(1001))

    counted = Counted()
    async with in_memory(make_server({"/t/echo": echo, "/t/big": big}, counted=counted), limits=small) as (channel, _):
        with pytest.raises(RpcError, match="1001") as caught:
            await channel.unary("/t/echo", bytes(1001))
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        with pytest.raises(RpcError, match="1001"):
            await channel.unary("/t/big", b"")
        assert await channel.unary("/t/echo", bytes(1000)) == bytes(1000)
