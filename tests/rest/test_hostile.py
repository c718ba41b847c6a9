"""What a client without any rights can send, over real sockets: nothing of it is a 500, a traceback or a standstill."""

import json
import logging
from contextlib import asynccontextmanager

import pytest
import trio
from prometheus_client import CollectorRegistry

from meshd.rest.body import LONG_BYTES, MAX_YAML_BYTES
from meshd.rest.server import HttpMetrics, api_server
from tests.rest.support import STANDALONE, Plane

pytestmark = pytest.mark.e2e

REQUEST_LINE_OF_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@asynccontextmanager
async def serving(tmp_path):
    """A standalone zone's API; gives a function that sends bytes and returns all that comes back."""
    config = STANDALONE | {"apiServer": {"http": {"port": 0}}}
    server = api_server(Plane(tmp_path, config).api, CollectorRegistry(), HttpMetrics(CollectorRegistry()))

    async def send(data):
        received = b""
        with trio.fail_after(30):
            async with await trio.open_tcp_stream(*server.addresses[0]) as stream:
                await stream.send_all(data)
                async for part in stream:
                    received += part
        return received

    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        yield send
        nursery.cancel_scope.cancel()


def request(method, path, body=b"", *headers):
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: x",
        *([] if any("connection:" in h for h in headers) else ["connection: close"]),
        *headers,
        *([f"content-length: {len(body)}"] if body else []),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def test_http2_from_the_first_byte_is_refused(tmp_path):
    async with serving(tmp_path) as send:
        answer = await send(REQUEST_LINE_OF_HTTP2 + SETTINGS)
    assert answer.startswith(b"HTTP/1.1 505 ")
    assert SETTINGS[3:5] not in answer


async def test_an_upgrade_to_http2_is_ignored(tmp_path):
    async with serving(tmp_path) as send:
        upgrade = ("connection: Upgrade, HTTP2-Settings, close", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")
        answer = await send(request("GET", "/meshes", b"", *upgrade))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"101" not in answer.split(b"\r\n", 1)[0]
    assert b'"items"' in answer


HALF = '"\\ud800"'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/meshes/a", f'{{"type": "Mesh", "name": "a", "labels": {{"x": {HALF}}}}}'),
        ("/meshes/a", f'{{"type": "Mesh", "name": {HALF}}}'),
        ("/meshes/a", f'{{"type": "Mesh", "name": "a", {HALF}: 1}}'),
        ("/meshes/a", HALF),
        ("/meshes/%ED%A0%80", '{"type": "Mesh", "name": "a"}'),
        ("/meshes/%ED%A0%80", HALF),
    ],
)
async def test_half_a_character_is_400_and_no_traceback(tmp_path, caplog, path, body):
    caplog.set_level(logging.INFO)
    async with serving(tmp_path) as send:
        head, _, said = (await send(request("PUT", path, body.encode()))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(said)["status"] == 400
    assert [r.getMessage() for r in caplog.records if r.exc_info or r.levelno >= logging.WARNING] == []


async def test_half_a_character_in_a_url_names_nothing(tmp_path):
    async with serving(tmp_path) as send:
        assert (await send(request("GET", "/meshes/%ED%A0%80"))).startswith(b"HTTP/1.1 404 ")


async def test_a_long_body_does_not_stop_everybody_else(tmp_path):
    body = b"[" + b"[],[],{}," * (MAX_YAML_BYTES // 9 - 1) + b"1]"
    assert LONG_BYTES < len(body) < MAX_YAML_BYTES
    longest, start = 0.0, trio.current_time()
    async with serving(tmp_path) as send, trio.open_nursery() as nursery:

        async def put():
            answer = await send(request("PUT", "/meshes/a", body, "content-type: application/yaml"))
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"must be an object" in answer
            nursery.cancel_scope.cancel()

        nursery.start_soon(put)
        while True:
            began = trio.current_time()
            await trio.sleep(0.005)
            longest = max(longest, trio.current_time() - began)
    assert longest < (trio.current_time() - start) / 2


async def test_yaml_that_takes_seconds_is_not_read_at_all(tmp_path):
    async with serving(tmp_path) as send:
        long = request("PUT", "/meshes/a", b"[" * (MAX_YAML_BYTES + 1), "content-type: text/yaml; charset=utf-8")
        assert (await send(long)).startswith(b"HTTP/1.1 413 ")
