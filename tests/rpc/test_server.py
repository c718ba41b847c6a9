"""The server: statuses, deadlines, bugs, drain, hostile bytes, TLS."""

import logging
import socket
import ssl
from dataclasses import replace

import h2.config
import h2.connection
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshd.model.errors import DeniedError, UnavailableError
from meshd.rpc import DEFAULT_LIMITS, RpcError, ServerStream, Status, channel_over, open_channel
from meshd.rpc.guard import PREFACE
from tests.rpc.support import Counted, echo, in_memory, make_certificate, make_server, on_loopback


async def test_a_handler_sees_path_peer_connection_and_repeated_metadata(autojump_clock) -> None:
    seen = []

    async def look(stream: ServerStream) -> None:
        seen.append((stream.path, stream.peer, stream.metadata, stream.connection.id))
        await stream.send(b"")

    async with in_memory(make_server({"/t/look": look})) as (channel, _):
        metadata = [("client-id", "zone-1"), ("features", "a"), ("features", "b")]
        await channel.unary("/t/look", b"", metadata)
        await channel.unary("/t/look", b"", metadata)
    assert seen[0] == seen[1]
    assert seen[0][:3] == ("/t/look", "memory", tuple(metadata))


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RpcError(Status.ABORTED, "50% — nein\n"), Status.ABORTED, "50% — nein\n"),
        (DeniedError("zone 'b' has no token"), Status.PERMISSION_DENIED, "zone 'b' has no token"),
    ],
)
async def test_errors_end_calls_with_their_status(autojump_clock, error, status, message, before) -> None:
    async def fail(stream: ServerStream) -> None:
        for _ in range(before):
            await stream.send(b"x")
        raise error

    counted = Counted()
    async with (
        in_memory(make_server({"/t/fail": fail}, counted=counted)) as (channel, _),
        channel.stream("/t/fail") as stream,
    ):
        assert [await stream.receive() for _ in range(before)] == [b"x"] * before
        with pytest.raises(RpcError) as caught:
            await stream.receive()
        assert (caught.value.status, caught.value.message) == (status, message)
        with pytest.raises(RpcError):
            await stream.send(b"to nobody")
    assert counted("calls_total", path="/t/fail", status=status.name) == 1


async def test_an_unknown_method_is_unimplemented(autojump_clock) -> None:
    counted = Counted()
    async with in_memory(make_server({}, counted=counted)) as (channel, _):
        with pytest.raises(RpcError) as caught:
            await channel.unary("/t/none", b"x")
    assert caught.value.status is Status.UNIMPLEMENTED
    assert counted("calls_total", path="other", status="UNIMPLEMENTED") == 1


async def test_a_bug_costs_one_call_and_is_logged_with_its_traceback(autojump_clock, caplog) -> None:
    async def bug(stream: ServerStream) -> None:
        raise KeyError("forgotten")

    counted = Counted()
    server = make_server({"/t/bug": bug, "/t/echo": echo}, counted=counted, raise_bugs=False)
    async with in_memory(server) as (channel, _):
        with pytest.raises(RpcError) as caught:
            await channel.unary("/t/bug", b"")
        assert caught.value.status is Status.INTERNAL
        assert "forgotten" not in caught.value.message
        assert await channel.unary("/t/echo", b"x") == b"x"
    assert counted("handler_bugs_total", path="/t/bug") == 1
    assert "KeyError: 'forgotten'" in caplog.text


async def test_raise_bugs_lets_a_bug_through(autojump_clock) -> None:
    async def bug(stream: ServerStream) -> None:
        raise KeyError("forgotten")

    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with in_memory(make_server({"/t/bug": bug}, raise_bugs=True)) as (channel, _):
            with pytest.raises((RpcError, UnavailableError)):
                await channel.unary("/t/bug", b"")
            await trio.sleep(1)
    assert caught.group_contains(KeyError)


async def failing_when_cancelled(error: Exception) -> None:
    """A nursery of which one task is cancelled and another fails at that: a group of both comes out."""

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        nursery.start_soon(trio.sleep_forever)
        await trio.sleep_forever()


@pytest.mark.parametrize(("error", "bugs"), [(UnavailableError("flush failed"), 0), (KeyError("forgotten"), 1)])
@pytest.mark.parametrize("end", ["deadline", "reset", "connection", "drain"])
async def test_a_handler_that_fails_while_it_is_cancelled_costs_one_call(autojump_clock, error, bugs, end) -> None:
    async def handler(stream: ServerStream) -> None:
        await failing_when_cancelled(error)

    counted = Counted()
    server = make_server({"/t/fail": handler, "/t/echo": echo}, counted=counted, raise_bugs=False)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        serving = trio.CancelScope()

        async def serve() -> None:
            with serving:
                await server.serve_connection(theirs)

        nursery.start_soon(serve)
        async with channel_over(ours) as channel:
            stream = channel.stream("/t/fail", timeout_s=1.0 if end == "deadline" else None)
            async with stream as call:
                await trio.sleep(0.5)
                match end:
                    case "deadline":
                        with pytest.raises(RpcError) as caught:
                            await call.receive()
                        assert caught.value.status is (Status.INTERNAL if bugs else Status.DEADLINE_EXCEEDED)
                    case "drain":
                        serving.cancel()
                        with pytest.raises(RpcError) as caught:
                            await call.receive()
                        assert caught.value.status is (Status.INTERNAL if bugs else Status.UNAVAILABLE)
                    case "connection":
                        await ours.aclose()
                        await trio.sleep(1)
            if end in ("deadline", "reset"):
                assert await channel.unary("/t/echo", b"x") == b"x"
        await trio.sleep(1)
    assert counted("handler_bugs_total", path="/t/fail") == bugs
    assert not server.connections


async def test_a_connection_without_calls_is_not_kept(autojump_clock) -> None:
    async with in_memory(make_server({"/t/echo": echo})) as (channel, _):
        async with channel.stream("/t/echo") as stream:
            await trio.sleep(3600)
            await stream.send(b"x")
            assert await stream.receive() == b"x"
        await trio.sleep(59)
        assert await channel.unary("/t/echo", b"x") == b"x"
        await trio.sleep(59)
        assert not channel.ended
        await trio.sleep(2)
        assert channel.ended


async def test_the_callers_deadline_cancels_the_handler(autojump_clock) -> None:
    ended = []

    async def slow(stream: ServerStream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    counted = Counted()
    async with in_memory(make_server({"/t/slow": slow}, counted=counted)) as (channel, _):
        with pytest.raises(RpcError) as caught:
            await channel.unary("/t/slow", b"", timeout_s=3.0)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        await trio.sleep(1)
        async with channel.stream("/t/slow", timeout_s=2.0) as stream:  # nobody here but the server to end it
            with pytest.raises(RpcError) as caught:
                await stream.receive()
        assert caught.value.status is Status.DEADLINE_EXCEEDED
    assert ended == [pytest.approx(3.0, abs=0.01), pytest.approx(6.0, abs=0.01)]


async def test_a_drain_gives_calls_time_then_ends_them_with_unavailable(autojump_clock) -> None:
    async def wait(stream: ServerStream) -> None:
        await trio.sleep(float(await stream.receive() or b""))
        await stream.send(b"in time")

    server = make_server({"/t/wait": wait})
    results = {}
    ours, theirs = trio.testing.memory_stream_pair()
    scope = trio.CancelScope()

    async def serve() -> None:
        with scope:
            await server.serve_connection(theirs)

    async with trio.open_nursery() as serving:
        serving.start_soon(serve)
        async with channel_over(ours) as channel, trio.open_nursery() as calls:

            async def call(seconds: bytes) -> None:
                try:
                    results[seconds] = await channel.unary("/t/wait", seconds)
                except RpcError as error:
                    results[seconds] = (error.status, trio.current_time())

            calls.start_soon(call, b"2")
            calls.start_soon(call, b"9")
            await trio.sleep(1)
            scope.cancel()
    assert results == {b"2": b"in time", b"9": (Status.UNAVAILABLE, pytest.approx(3.0, abs=0.1))}


async def talk(server, data: bytes) -> bytes:
    """Send raw bytes on a fresh connection, then end; what came back until the server closed."""
    ours, theirs = trio.testing.memory_stream_pair()
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_connection, theirs)
        await ours.send_all(data)
        with trio.fail_after(60):
            while chunk := await ours.receive_some():
                received += chunk
        await ours.aclose()
    return received


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "protocol"),
        (bytes(range(256)) * 40, "protocol"),
        (PREFACE + b"\xff" * 100, "protocol"),
        (PREFACE + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\4\x01\4\0\0\0\1\xff\xff\xff\xff", "protocol"),
        (PREFACE + b"\0\0\0\4\0\0\0\0\0" * 2000, "flood"),
        (b"PRI", "silent"),
        (b"", "silent"),
        (PREFACE, "silent"),
    ],
)
async def test_wrong_bytes_close_that_connection_and_are_counted(autojump_clock, caplog, data, reason) -> None:
    caplog.set_level(logging.DEBUG, "meshd")
    counted = Counted()
    server = make_server({"/t/echo": echo}, counted=counted)
    async with in_memory(server) as (channel, _):
        await talk(server, data)
        assert await channel.unary("/t/echo", b"x") == b"x"
    assert counted("connections_refused_total", reason=reason) == 1
    assert [r.levelname for r in caplog.records if "refused" in r.message] == ["DEBUG"]
    assert not [r for r in caplog.records if r.levelno > logging.DEBUG]


def preface_of_a_client() -> bytes:
    machine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    machine.initiate_connection()
    return machine.data_to_send()


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    payload = draw(st.binary(max_size=40))
    return (
        len(payload).to_bytes(3, "big")
        + bytes([draw(st.integers(0, 11)), draw(st.integers(0, 255))])
        + draw(st.sampled_from([0, 1, 1, 3, 2, 2**31])).to_bytes(4, "big")
        + payload
    )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=400), st.lists(frames(), max_size=8).map(lambda f: preface_of_a_client() + b"".join(f))
    )
)
def test_random_frames_never_get_past_the_connection(data) -> None:
    async def one() -> None:
        await talk(make_server({"/t/echo": echo}), data)

    trio.run(one, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_rapid_resets_end_the_connection(autojump_clock) -> None:
    started = 0

    async def work(stream: ServerStream) -> None:
        nonlocal started
        started += 1
        await trio.sleep_forever()

    machine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    machine.initiate_connection()
    headers = [(":method", "POST"), (":scheme", "http"), (":path", "/t/work"), (":authority", "x")]
    for number in range(1, 4001, 2):
        machine.send_headers(number, [*headers, ("content-type", "application/grpc")])
        machine.reset_stream(number)
    counted = Counted()
    await talk(make_server({"/t/work": work}, counted=counted), machine.data_to_send())
    assert counted("connections_refused_total", reason="flood") == 1
    assert started <= DEFAULT_LIMITS.resets_burst + 1


async def test_calls_refused_that_were_reset_in_the_same_read_do_no_harm(autojump_clock) -> None:
    machine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    machine.initiate_connection()
    headers = [(":method", "POST"), (":scheme", "http"), (":path", "/t/wait"), (":authority", "x")]
    for number in range(1, 20, 2):
        machine.send_headers(number, [*headers, ("content-type", "application/grpc")])
        machine.reset_stream(number)
    counted = Counted()
    server = make_server({"/t/wait": echo}, counted=counted, limits=replace(DEFAULT_LIMITS, max_streams=2))
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_connection, theirs)
        await ours.send_all(machine.data_to_send())
        await trio.sleep(1)
        assert len(server.connections) == 1
        await ours.aclose()
    assert counted("calls_total", path="/t/wait", status="CANCELLED") == 2


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        ([("content-type", "text/html")], Status.INTERNAL),
        ([("content-type", "application/grpc"), ("grpc-encoding", "br")], Status.UNIMPLEMENTED),
        ([("content-type", "application/grpc"), ("grpc-timeout", "soon")], Status.INVALID_ARGUMENT),
    ],
)
async def test_requests_that_are_no_good_grpc_get_a_status(autojump_clock, extra, status) -> None:
    machine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    machine.initiate_connection()
    headers = [(":method", "POST"), (":scheme", "http"), (":path", "/t/echo"), (":authority", "x")]
    machine.send_headers(1, headers + extra, end_stream=True)
    counted = Counted()
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_server({"/t/echo": echo}, counted=counted).serve_connection, theirs)
        await ours.send_all(machine.data_to_send())
        await trio.sleep(1)
        events = machine.receive_data(await ours.receive_some())
        await ours.aclose()
    answers = [dict(e.headers) for e in events if hasattr(e, "headers")]
    assert [a["grpc-status"] for a in answers] == [str(int(status))]
    assert answers[0]["content-type"] == "application/grpc"


async def test_connections_over_the_limit_are_closed_at_once() -> None:
    counted = Counted()
    server = make_server({"/t/echo": echo}, counted=counted, limits=replace(DEFAULT_LIMITS, max_connections=1))
    async with on_loopback(server) as port, open_channel("127.0.0.1", port, None) as first:
        with pytest.raises(UnavailableError):
            async with open_channel("127.0.0.1", port, None):
                pass
        assert await first.unary("/t/echo", b"x") == b"x"
    assert counted("connections_refused_total", reason="limit") == 1


async def test_tls_with_alpn_and_without(tmp_path) -> None:
    certificate, key = make_certificate()
    (tmp_path / "c.pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem")
    trust = ssl.create_default_context(cadata=certificate.decode())
    counted = Counted()
    server = make_server(
        {"/t/echo": echo}, counted=counted, tls=context, limits=replace(DEFAULT_LIMITS, handshake_s=0.3)
    )
    async with on_loopback(server) as port:
        async with open_channel("127.0.0.1", port, trust, "localhost") as channel:
            assert await channel.unary("/t/echo", bytes(1_000_000)) == bytes(1_000_000)
        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            async with open_channel("127.0.0.1", port, ssl.create_default_context(), "localhost"):
                pass
        with pytest.raises(UnavailableError):  # clear text to a TLS port
            async with open_channel("127.0.0.1", port, None):
                pass
        no_alpn = ssl.create_default_context(cadata=certificate.decode())
        async with await trio.open_ssl_over_tcp_stream(
            "localhost", port, ssl_context=no_alpn, https_compatible=True
        ) as s:
            assert await s.receive_some() == b""
        with socket.create_connection(("127.0.0.1", port)) as silent:
            silent.settimeout(5)
            assert await trio.to_thread.run_sync(silent.recv, 10) == b""
    assert counted("connections_refused_total", reason="tls") == 4
