"""Plain HTTP beside gRPC on one connection: HTTP/2 requests, ALPN, the first bytes."""

import json
import ssl
from dataclasses import replace

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import trio
import trio.testing

from meshd.rpc import DEFAULT_LIMITS, HttpRequest, HttpResponse, open_channel
from tests.rpc.support import Counted, echo, in_memory, make_certificate, make_server, mirror, on_loopback

POST = ((":method", "POST"), (":scheme", "https"), (":path", "/a?b"), (":authority", "cp:5678"))


class Client:
    """An HTTP/2 client that knows no gRPC, over memory."""

    def __init__(self, stream) -> None:
        self.stream = stream
        self.machine = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.machine.initiate_connection()
        self.headers: list[dict[str, str]] = []
        self.body = b""
        self.reset: int | None = None
        self.ended = False
        self.takes = True

    async def flush(self) -> None:
        await self.stream.send_all(self.machine.data_to_send())

    async def read(self) -> None:
        """Take what the server sends next."""
        for event in self.machine.receive_data(await self.stream.receive_some()):
            match event:
                case h2.events.ResponseReceived() | h2.events.InformationalResponseReceived():
                    self.headers.append(dict(event.headers))
                case h2.events.DataReceived():
                    self.body += event.data
                    if self.takes:
                        self.machine.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamReset():
                    self.reset = event.error_code
                case h2.events.StreamEnded():
                    self.ended = True
        await self.flush()

    async def answer(self) -> tuple[str, bytes]:
        while not self.ended:
            await self.read()
        return self.headers[-1][":status"], self.body


async def with_client(server, use) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_connection, theirs)
        await use(Client(ours))
        await ours.aclose()


async def test_a_request_of_http2_reaches_the_handler(autojump_clock) -> None:
    counted = Counted()

    async def use(client: Client) -> None:
        client.machine.send_headers(1, [*POST, ("content-type", "application/json")])
        client.machine.send_data(1, b"bo")
        await client.flush()
        await trio.sleep(1)
        client.machine.send_data(1, b"dy", end_stream=True)
        await client.flush()
        status, body = await client.answer()
        assert (status, json.loads(body)["path"], json.loads(body)["body"]) == ("200", "/a", "body")
        assert json.loads(body)["host"] == "cp:5678"
        assert "grpc-status" not in client.headers[0]

    await with_client(make_server({"/t/echo": echo}, http=mirror, counted=counted), use)
    assert counted("http_requests_total", code="200") == 1


async def test_grpc_goes_to_its_handlers_all_the_same(autojump_clock) -> None:
    async with in_memory(make_server({"/t/echo": echo}, http=mirror)) as (channel, _):
        assert await channel.unary("/t/echo", b"x") == b"x"


async def test_a_large_answer_fits_through_the_window_and_head_has_none(autojump_clock) -> None:
    async def large(request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, b"x" * 300_000)

    async def use(client: Client) -> None:
        client.machine.send_headers(1, [(":method", "HEAD"), *POST[1:]], end_stream=True)
        await client.flush()
        assert await client.answer() == ("200", b"")
        client.ended = False
        client.machine.send_headers(3, [(":method", "GET"), *POST[1:]], end_stream=True)
        await client.flush()
        assert await client.answer() == ("200", b"x" * 300_000)
        assert client.headers[0]["content-length"] == client.headers[1]["content-length"] == "300000"

    await with_client(make_server({}, http=large), use)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (POST, b"x" * 101, "413"),
        (POST, b"", "408"),
        (((":method", "POST"), (":scheme", "https"), (":path", "nowhere"), (":authority", "h")), None, "400"),
        (((":method", "CONNECT"), (":authority", "h")), b"", "405"),
    ],
)
async def test_what_cannot_be_served_is_refused_and_costs_one_stream(autojump_clock, headers, body, status) -> None:
    async def use(client: Client) -> None:
        client.machine.send_headers(1, headers, end_stream=body is None)
        if body:
            client.machine.send_data(1, body)
        await client.flush()
        assert (await client.answer())[0] == status
        if body is not None:
            while client.reset is None:
                await client.read()
            assert client.reset == 0
        client.ended = False
        client.machine.send_headers(3, POST, end_stream=True)
        await client.flush()
        assert (await client.answer())[0] == "200"

    await with_client(make_server({}, http=mirror, limits=replace(DEFAULT_LIMITS, max_body_bytes=100)), use)


async def test_a_client_that_waits_for_100_continue_is_told_to_go_on(autojump_clock) -> None:
    async def use(client: Client) -> None:
        client.machine.send_headers(1, [*POST, ("expect", "100-continue")])
        await client.flush()
        while not client.headers:
            await client.read()
        assert client.headers[0][":status"] == "100"
        client.machine.send_data(1, b"ok", end_stream=True)
        await client.flush()
        assert (await client.answer())[0] == "200"

    await with_client(make_server({}, http=mirror), use)


async def test_a_client_that_resets_cancels_the_handler(autojump_clock) -> None:
    ended = trio.Event()

    async def forever(request: HttpRequest) -> HttpResponse:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        return HttpResponse()

    async def use(client: Client) -> None:
        client.machine.send_headers(1, POST, end_stream=True)
        await client.flush()
        await trio.sleep(1)
        client.machine.reset_stream(1)
        await client.flush()
        with trio.fail_after(1):
            await ended.wait()

    counted = Counted()
    await with_client(make_server({}, http=forever, counted=counted), use)
    assert counted("http_requests_total", code="none") == 1


async def test_an_answer_that_is_not_taken_is_given_up(autojump_clock) -> None:
    async def large(request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, b"x" * 300_000)

    async def use(client: Client) -> None:
        client.machine.send_headers(1, POST, end_stream=True)
        client.takes = False
        await client.flush()
        while client.reset is None:
            await client.read()
        assert client.reset == 8
        assert trio.current_time() == pytest.approx(30, abs=0.1)

    await with_client(make_server({}, http=large), use)


async def test_alpn_or_the_first_bytes_say_what_a_connection_is(tmp_path) -> None:
    certificate, key = make_certificate()
    (tmp_path / "c.pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem")

    def trust() -> ssl.SSLContext:
        return ssl.create_default_context(cadata=certificate.decode())

    counted = Counted()
    async with on_loopback(make_server({"/t/echo": echo}, http=mirror, tls=context, counted=counted)) as port:
        url = f"https://localhost:{port}/a"
        async with open_channel("127.0.0.1", port, trust(), "localhost") as channel:
            assert await channel.unary("/t/echo", b"x") == b"x"
        for is_http2, version in ((False, "HTTP/1.1"), (True, "HTTP/2")):
            async with httpx.AsyncClient(verify=trust(), http1=not is_http2, http2=is_http2) as client:
                for _ in range(2):
                    answer = await client.post(url, content=b"x" * 100_000)
                    assert (answer.http_version, len(answer.json()["body"])) == (version, 100_000)
                    assert answer.json()["host"] == f"localhost:{port}"
        no_alpn = trust()
        async with await trio.open_ssl_over_tcp_stream(
            "localhost", port, ssl_context=no_alpn, https_compatible=True
        ) as stream:
            await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
    assert counted("http_requests_total", code="200") == 5
    assert counted("connections_refused_total", reason="tls") == 0


async def test_clear_text_is_told_apart_by_its_first_bytes() -> None:
    async with on_loopback(make_server({"/t/echo": echo}, http=mirror)) as port:
        async with open_channel("127.0.0.1", port, None) as channel:
            assert await channel.unary("/t/echo", b"x") == b"x"
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/a")).json()["path"] == "/a"


async def test_a_preface_in_pieces_is_a_preface(autojump_clock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_server({}, http=mirror).serve_connection, theirs)
        client = Client(ours)
        client.machine.send_headers(1, POST, end_stream=True)
        for byte in client.machine.data_to_send():
            await ours.send_all(bytes([byte]))
            await trio.sleep(0.01)
        assert (await client.answer())[0] == "200"
        await ours.aclose()
