"""The wire as other people speak it: grpcio (C core) and grpclib, as client and as server, over loopback."""

import concurrent.futures
import ssl
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager

import grpc
import grpclib.client
import grpclib.const
import grpclib.exceptions
import grpclib.server
import pytest
import trio
import trio_asyncio
from grpclib.encoding.base import CodecBase

from meshd.rpc import RpcError, ServerStream, Status, open_channel
from tests.rpc.support import Counted, echo, make_certificate, make_server, on_loopback

pytestmark = pytest.mark.slow
MIB = 1024 * 1024
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Raw(CodecBase):
    """grpclib with bytes for messages."""

    __content_subtype__ = "proto"

    def encode(self, message, message_type) -> bytes:  # noqa: ARG002
        return message

    def decode(self, data, message_type) -> bytes:  # noqa: ARG002
        return data


# ------------------------------------------------------------------ grpcio as client


async def look(stream: ServerStream) -> None:
    """Answers with the caller's metadata as text."""
    await stream.receive()
    await stream.send(repr([kv for kv in stream.metadata if kv[0] != "user-agent"]).encode())


async def fail(stream: ServerStream) -> None:
    await stream.receive()
    raise RpcError(Status.FAILED_PRECONDITION, "größer als 100%")


async def forever(stream: ServerStream) -> None:
    await trio.sleep_forever()


async def early(stream: ServerStream) -> None:
    """Ends while the caller is still sending."""
    await stream.receive()
    await stream.send(b"enough")


HANDLERS = {"/t/echo": echo, "/t/look": look, "/t/fail": fail, "/t/forever": forever, "/t/early": early}


def call_everything(port: int, compression: grpc.Compression) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}", compression=compression, options=UNLIMITED) as channel:
        unary = channel.unary_unary("/t/echo")
        for size in (0, 1, 5000, 100_000, 8 * MIB):
            assert unary(b"ab" * (size // 2), timeout=20) == b"ab" * (size // 2)
        bidi = channel.stream_stream("/t/echo")
        messages = [bytes([n]) * n * 1000 for n in range(100)]
        assert list(bidi(iter(messages), timeout=20)) == messages
        told = channel.unary_unary("/t/look")(b"", metadata=(("features", "a"), ("client-id", "z"), ("features", "b")))
        assert told == b"[('features', 'a'), ('client-id', 'z'), ('features', 'b')]"
        assert list(channel.stream_stream("/t/early")(iter([b"x" * 100_000] * 50), timeout=20)) == [b"enough"]
        for path, code, details in [
            ("/t/fail", grpc.StatusCode.FAILED_PRECONDITION, "größer als 100%"),
            ("/t/none", grpc.StatusCode.UNIMPLEMENTED, "no method '/t/none' here"),
        ]:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(path)(b"")
            assert (caught.value.code(), caught.value.details()) == (code, details)
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/t/forever")(b"", timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(grpc.RpcError) as caught:
            unary(bytes(11 * MIB))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_grpcio_calls_us(compression) -> None:
    counted = Counted()
    async with on_loopback(make_server(HANDLERS, counted=counted)) as port:
        await trio.to_thread.run_sync(call_everything, port, compression)
    assert counted("calls_total", path="/t/echo", status="OK") == 6
    assert counted("open_connections") == 0


async def test_grpcio_calls_us_over_tls(tmp_path) -> None:
    certificate, key = make_certificate()
    (tmp_path / "c.pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem")

    def call(port: int) -> bytes:
        with grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(certificate)) as channel:
            return channel.unary_unary("/t/echo")(bytes(300_000), timeout=10)

    async with on_loopback(make_server(HANDLERS, tls=context)) as port:
        assert await trio.to_thread.run_sync(call, port) == bytes(300_000)


async def test_a_grpcio_client_that_pings_often_is_not_cut_off() -> None:
    counted = Counted()
    options = [
        ("grpc.keepalive_time_ms", 1000),  # the least that grpcio allows
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]

    def idle_then_call(port: int) -> bytes:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            channel.unary_unary("/t/echo")(b"x", timeout=5)
            threading.Event().wait(3.5)
            return channel.unary_unary("/t/echo")(b"y", timeout=5)

    async with on_loopback(make_server(HANDLERS, counted=counted)) as port:
        assert await trio.to_thread.run_sync(idle_then_call, port) == b"y"
    assert counted("connections_total") == 1


async def test_a_grpcio_client_that_reads_slowly_holds_up_no_other_call() -> None:
    async def pour(stream: ServerStream) -> None:
        for _ in range(50):
            await stream.send(bytes(MIB))

    def read_slowly(port: int) -> int:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=UNLIMITED) as channel:
            pouring = channel.stream_stream("/t/pour")(iter([]))
            total = len(next(pouring))
            for number in range(50):  # while that stream stands still
                assert channel.unary_unary("/t/echo")(b"%d" % number, timeout=5) == b"%d" % number
            return total + sum(len(message) for message in pouring)

    async with on_loopback(make_server({**HANDLERS, "/t/pour": pour})) as port:
        assert await trio.to_thread.run_sync(read_slowly, port) == 50 * MIB


async def test_a_grpcio_client_that_cancels_cancels_the_handler() -> None:
    ended = trio.Event()

    async def wait(stream: ServerStream) -> None:
        try:
            await stream.receive()
            await stream.send(b"begun")
            await stream.receive()
        finally:
            ended.set()

    def call(port: int) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            hold = threading.Event()

            def requests() -> Iterator[bytes]:
                yield b""
                hold.wait(5)

            running = channel.stream_stream("/t/wait")(requests())
            next(running)
            running.cancel()
            hold.set()
            assert channel.unary_unary("/t/echo")(b"x", timeout=5) == b"x"

    async with on_loopback(make_server({**HANDLERS, "/t/wait": wait})) as port:
        await trio.to_thread.run_sync(call, port)
        with trio.fail_after(5):
            await ended.wait()


# ------------------------------------------------------------------ grpcio as server


class Generic(grpc.GenericRpcHandler):
    """A few methods over bytes."""

    def service(self, details):
        match details.method:
            case "/t/echo":
                return grpc.stream_stream_rpc_method_handler(lambda requests, _: requests)
            case "/t/look":
                return grpc.unary_unary_rpc_method_handler(
                    lambda _, context: repr(
                        [(k, v) for k, v in context.invocation_metadata() if k in ("features", "client-id")]
                    ).encode()
                )
            case "/t/fail":
                return grpc.unary_unary_rpc_method_handler(
                    lambda _, context: context.abort(grpc.StatusCode.FAILED_PRECONDITION, "größer als 100%")
                )
            case "/t/forever":
                return grpc.unary_unary_rpc_method_handler(lambda *_: threading.Event().wait(1.0) and b"")
            case "/t/early":
                return grpc.stream_unary_rpc_method_handler(lambda requests, _: next(requests))
        return None


@contextmanager
def grpcio_server(compression: grpc.Compression) -> Iterator[int]:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, handlers=(Generic(),), options=UNLIMITED, compression=compression)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield port
        server.stop(None).wait()


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
@pytest.mark.parametrize("gzip", [False, True])
async def test_we_call_grpcio(compression, gzip) -> None:
    with grpcio_server(compression) as port:
        async with open_channel("127.0.0.1", port, None, gzip=gzip) as channel:
            for size in (0, 1, 5000, 100_000, 8 * MIB):
                async with channel.stream("/t/echo") as stream:
                    await stream.send(b"ab" * (size // 2))
                    assert await stream.receive() == b"ab" * (size // 2)
                    await stream.end()
                    assert await stream.receive() is None
            metadata = [("features", "a"), ("client-id", "z"), ("features", "b")]
            assert eval(await channel.unary("/t/look", b"", metadata)) == metadata
            for path, status, message in [
                ("/t/fail", Status.FAILED_PRECONDITION, "größer als 100%"),
                ("/t/none", Status.UNIMPLEMENTED, "Method not found!"),
            ]:
                with pytest.raises(RpcError) as caught:
                    await channel.unary(path, b"")
                assert (caught.value.status, caught.value.message) == (status, message)
            with pytest.raises(RpcError) as caught:
                await channel.unary("/t/forever", b"", timeout_s=0.2)
            assert caught.value.status is Status.DEADLINE_EXCEEDED
            async with channel.stream("/t/early") as stream:
                with pytest.raises(RpcError, match="ended the call"):  # noqa: PT012
                    while True:
                        await stream.send(bytes(100_000))
                assert await stream.receive() == bytes(100_000)
                assert await stream.receive() is None
            assert await channel.ping(5.0)


async def test_many_calls_at_once_to_grpcio() -> None:
    with grpcio_server(grpc.Compression.NoCompression) as port:
        async with open_channel("127.0.0.1", port, None) as channel, trio.open_nursery() as nursery:

            async def one(number: int) -> None:
                assert eval(await channel.unary("/t/look", b"", [("client-id", str(number))])) == [
                    ("client-id", str(number))
                ]

            for number in range(300):
                nursery.start_soon(one, number)


# ------------------------------------------------------------------ grpclib, behind trio-asyncio


class GrpclibService:
    """An echo by grpclib's own kind of service definition."""

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        return {"/t/echo": grpclib.const.Handler(self.echo, grpclib.const.Cardinality.STREAM_STREAM, bytes, bytes)}

    async def echo(self, stream) -> None:
        while (message := await stream.recv_message()) is not None:
            await stream.send_message(message)


@asynccontextmanager
async def grpclib_server():
    server = grpclib.server.Server([GrpclibService()], codec=Raw())
    await trio_asyncio.aio_as_trio(server.start)("127.0.0.1", 0)
    yield server._server.sockets[0].getsockname()[1]
    server.close()
    await trio_asyncio.aio_as_trio(server.wait_closed)()


async def test_we_call_grpclib_and_grpclib_calls_us() -> None:
    async def they_call(port: int) -> list[bytes]:
        channel = grpclib.client.Channel("127.0.0.1", port, codec=Raw())
        method = grpclib.client.StreamStreamMethod(channel, "/t/echo", bytes, bytes)
        answers = await method([b"a" * 200_000, b"b"])
        with pytest.raises(grpclib.exceptions.GRPCError) as caught:
            await grpclib.client.UnaryUnaryMethod(channel, "/t/fail", bytes, bytes)(b"")
        assert caught.value.message == "größer als 100%"
        channel.close()
        return answers

    async with trio_asyncio.open_loop():
        async with (
            grpclib_server() as port,
            open_channel("127.0.0.1", port, None, gzip=False) as channel,
            channel.stream("/t/echo") as stream,
        ):
            for message in (b"a" * 200_000, b"", b"c"):
                await stream.send(message)
                assert await stream.receive() == message
            await stream.end()
            assert await stream.receive() is None
        async with on_loopback(make_server(HANDLERS)) as port:
            assert await trio_asyncio.aio_as_trio(they_call)(port) == [b"a" * 200_000, b"b"]
