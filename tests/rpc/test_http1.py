"""HTTP/1.1 on a server's port: framing, limits, times, junk, drain."""

import json
import logging
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshd.rpc import DEFAULT_LIMITS, HttpRequest, HttpResponse
from meshd.rpc.http1 import LINGER_S
from tests.rpc.support import Counted, echo, in_memory, make_server, mirror

SMALL = replace(DEFAULT_LIMITS, max_body_bytes=100, max_header_bytes=1000)
GET = b"GET /a?b=c HTTP/1.1\r\nHost: cp:5678\r\n\r\n"


@asynccontextmanager
async def raw(server):
    """A fresh connection to ``server`` as bytes."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_connection, theirs)
        yield ours
        await ours.aclose()


async def until_closed(stream) -> bytes:
    received = b""
    while chunk := await stream.receive_some():
        received += chunk
    return received


async def one_answer(stream) -> tuple[int, dict[str, str], bytes]:
    """The next answer: its status, headers and body, by its Content-Length."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = await stream.receive_some()
        assert chunk, received
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += await stream.receive_some()
    return int(first.split()[1]), headers, body


async def test_a_request_reaches_the_handler_whole_and_its_connection_is_kept(autojump_clock) -> None:
    counted = Counted()
    async with raw(make_server({}, http=mirror, counted=counted)) as stream:
        for _ in range(2):
            await stream.send_all(b"POST /a?b=c HTTP/1.1\r\nHost: cp:5678\r\nContent-Length: 4\r\n\r\n")
            await trio.sleep(1)
            await stream.send_all(b"body")
            status, headers, body = await one_answer(stream)
            assert (status, headers["content-type"]) == (200, "application/json")
            assert json.loads(body) == {
                "method": "POST",
                "path": "/a",
                "query": "b=c",
                "host": "cp:5678",
                "peer": "memory",
                "body": "body",
            }
            await trio.sleep(50)
    assert counted("http_requests_total", code="200") == 2


async def test_pipelined_chunked_and_head_requests(autojump_clock) -> None:
    async with raw(make_server({}, http=mirror)) as stream:
        chunked = b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        await stream.send_all(
            chunked + GET + GET.replace(b"GET", b"HEAD") + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        received = await until_closed(stream)
    assert received.count(b"HTTP/1.1 200 ") == 4
    assert received.count(b'"method": "GET"') == 2
    assert received.count(b'"method": "HEAD"') == 0
    assert b'"body": "abc"' in received


async def test_a_client_that_waits_for_100_continue_is_told_to_go_on(autojump_clock) -> None:
    async with raw(make_server({}, http=mirror)) as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"ok")
        assert (await one_answer(stream))[0] == 200


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        (b"\r\n\r\n\x00\x01 nonsense\r\n\r\n", 400, "protocol"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "protocol"),  # no Host
        (b"GET nowhere HTTP/1.1\r\nHost: h\r\n\r\n", 400, "protocol"),
        (b"PRI * HTTP/2.0\r\n\r\nXX", 505, "protocol"),
        (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 405, "protocol"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 2000, 431, "headers"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n", 413, "protocol"),
        (
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 0x65 + b"\r\n",
            413,
            "protocol",
        ),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 2\r\n\r\n", 400, "protocol"),
        (b"GET / HTTP/1.1\r\nHost: h", 408, "silent"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbo", 408, "silent"),
    ],
)
async def test_what_cannot_be_served_is_refused_and_ends_its_connection(
    autojump_clock, caplog, sent, status, reason
) -> None:
    caplog.set_level(logging.DEBUG, "meshd")
    counted = Counted()
    server = make_server({"/t/echo": echo}, http=mirror, counted=counted, limits=SMALL)
    async with in_memory(server) as (channel, _):
        async with raw(server) as stream:
            await stream.send_all(sent)
            with trio.fail_after(30):
                received = await until_closed(stream)
        assert received.startswith(f"HTTP/1.1 {status} ".encode()), received
        assert b"connection: close" in received.lower()
        assert await channel.unary("/t/echo", b"x") == b"x"
    assert counted("connections_refused_total", reason=reason) == 1
    assert counted("http_requests_total", code=str(status)) == 1
    assert not [r for r in caplog.records if r.levelno > logging.DEBUG]


@pytest.mark.parametrize("sent", [b"", GET])
async def test_a_connection_that_asks_for_nothing_is_closed(autojump_clock, sent) -> None:
    async with raw(make_server({}, http=mirror)) as stream:
        await stream.send_all(sent)
        assert (await until_closed(stream) != b"") is bool(sent)
    assert trio.current_time() == pytest.approx((60 if sent else 2 * 5), abs=2 * LINGER_S)


async def test_a_client_that_does_not_take_its_answer_costs_its_connection(autojump_clock) -> None:
    async def never() -> None:
        await trio.sleep_forever()

    counted = Counted()
    ours, theirs = trio.testing.memory_stream_pair()
    theirs.send_stream.send_all_hook = never
    await ours.send_all(GET)
    await make_server({}, http=mirror, counted=counted).serve_connection(theirs)
    assert trio.current_time() == pytest.approx(30, abs=2 * LINGER_S)
    assert counted("connections_refused_total", reason="silent") == 1


async def test_a_bug_of_the_handler_costs_one_request(autojump_clock, caplog) -> None:
    async def bug(request: HttpRequest) -> HttpResponse:
        raise KeyError("forgotten")

    counted = Counted()
    async with raw(make_server({}, http=bug, counted=counted, raise_bugs=False)) as stream:
        for _ in range(2):
            await stream.send_all(GET)
            status, _, body = await one_answer(stream)
            assert (status, body) == (500, b"Internal Server Error\n")
    assert counted("handler_bugs_total", path="http") == 2
    assert "KeyError: 'forgotten'" in caplog.text


async def test_a_drain_closes_idle_connections_and_lets_requests_end(autojump_clock) -> None:
    async def slow(request: HttpRequest) -> HttpResponse:
        await trio.sleep(float(request.query))
        return HttpResponse(200, b"in time")

    server = make_server({}, http=slow, limits=replace(DEFAULT_LIMITS, drain_s=2.0))
    ends: dict[str, tuple[float, bytes]] = {}

    async def client(name: str, seconds: str, serving: trio.Nursery) -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        serving.start_soon(server.serve_connection, theirs)
        await ours.send_all(f"GET /?{seconds} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        received = await until_closed(ours)
        ends[name] = (trio.current_time(), received)

    async with trio.open_nursery() as nursery, trio.open_nursery() as serving:
        for name, seconds in (("idle", "0"), ("short", "2"), ("long", "9")):
            nursery.start_soon(client, name, seconds, serving)
        await trio.sleep(1)
        serving.cancel_scope.cancel()
    assert {name: round(end) for name, (end, _) in ends.items()} == {"idle": 1, "short": 2, "long": 3}
    assert b"connection: close" in ends["short"][1].lower()
    assert b"in time" in ends["short"][1]
    assert ends["long"][1] == b""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(alphabet="GETPOSH /:*1.0\r\n\t,;a9", max_size=120).map(lambda t: b"GET / HTTP/1.1\r\n" + t.encode()),
        st.lists(
            st.sampled_from([b"Host: h", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Upgrade: h2c", b""]),
            max_size=6,
        ).map(lambda lines: b"POST / HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\nabc"),
    )
)
def test_random_bytes_never_get_past_the_connection(data) -> None:
    async def one() -> None:
        async with raw(make_server({"/t/echo": echo}, http=mirror)) as stream:
            await stream.send_all(data)
            with trio.fail_after(200):
                await until_closed(stream)

    trio.run(one, clock=trio.testing.MockClock(autojump_threshold=0))
