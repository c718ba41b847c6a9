"""The server over real loopback sockets: what clients and attackers see."""

import logging
import random
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse

from meshd.rest.body import MAX_BYTES
from meshd.rest.server import (
    Binding,
    HttpMetrics,
    HttpServer,
    api_server,
    diagnostics_server,
    hypercorn_config,
)
from meshd.runtime.listen import ListenError
from meshd.runtime.tls_files import TlsFilesError
from tests.rest.support import STANDALONE, Plane

pytestmark = pytest.mark.e2e


@asynccontextmanager
async def serving(server):
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        host, port = server.addresses[0]
        yield f"http://{host}:{port}"
        nursery.cancel_scope.cancel()


def server_of(app, metrics=None, **options):
    binding = options.pop("binding", Binding("127.0.0.1", 0, "apiServer.http"))
    options.setdefault("drain_s", 1)
    return HttpServer("test", app, [binding], metrics or HttpMetrics(CollectorRegistry()), **options)


async def hello(scope, receive, send):
    await PlainTextResponse("hello")(scope, receive, send)


async def test_the_api_answers_over_a_socket_without_naming_its_server(tmp_path):
    config = STANDALONE | {"apiServer": {"http": {"port": 0}}}
    server = api_server(Plane(tmp_path, config).api, CollectorRegistry(), HttpMetrics(CollectorRegistry()))
    async with serving(server) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.put("/meshes/default", json={"type": "Mesh", "name": "default"})
        assert answer.status_code == 201, answer.text
        answer = await client.get("/meshes?size=1")
        assert answer.json()["items"][0]["name"] == "default"
        assert "server" not in answer.headers
        assert (await client.get("/secrets")).status_code == 200  # a direct request from loopback: an administrator
        assert (await client.get("/secrets", headers={"X-Forwarded-For": "10.0.0.1"})).status_code == 403


async def test_diagnostics_say_healthy_ready_and_metrics(tmp_path):
    registry = CollectorRegistry()
    missing = ["store"]
    plane = Plane(tmp_path, STANDALONE | {"diagnostics": {"serverPort": 0}})
    server = diagnostics_server(plane.config, registry, lambda: ", ".join(missing), HttpMetrics(registry))
    async with serving(server) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/healthy")).status_code == 200
        answer = await client.get("/ready")
        assert (answer.status_code, answer.text) == (503, "not ready: store\n")
        missing.clear()
        assert (await client.get("/ready")).status_code == 200
        text = (await client.get("/metrics")).text
        assert 'meshd_http_connections_total{event="accepted",server="diagnostics"} 1.0' in text


@pytest.mark.parametrize("seed", range(3))
async def test_random_bytes_cost_one_connection_and_no_traceback(seed, caplog):
    rng = random.Random(seed)
    junk = [
        b"\x16\x03\x01" + rng.randbytes(200),
        rng.randbytes(5000),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(300),
        (
            b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        ),
        b"PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20000,
        b"\r\n" * 100,
        b"",
    ]
    caplog.set_level(logging.INFO)
    async with serving(server_of(hello)) as url:
        host, port = url.removeprefix("http://").split(":")
        for data in junk:
            stream = await trio.open_tcp_stream(host, int(port))
            with trio.fail_after(5):
                async with stream:
                    try:
                        await stream.send_all(data)
                        await stream.send_eof()
                        while await stream.receive_some():
                            pass
                    except trio.BrokenResourceError:
                        pass
        async with httpx.AsyncClient() as client:
            assert (await client.get(url)).text == "hello"
    assert [r.getMessage() for r in caplog.records if r.exc_info or r.levelno >= logging.WARNING] == []


async def test_a_peer_that_leaves_is_let_go_at_once():
    async with serving(server_of(hello)) as url:
        host, port = url.removeprefix("http://").split(":")
        for sent in (b"", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"GET / HT"):
            with trio.fail_after(5):
                async with await trio.open_tcp_stream(host, int(port)) as stream:
                    await stream.send_all(sent)
                    if sent.endswith(b"\r\n\r\n"):
                        assert b"200" in await stream.receive_some(4096)
                    await stream.send_eof()
                    while await stream.receive_some():
                        pass


async def test_a_long_body_is_413_and_a_slow_one_408(monkeypatch):
    monkeypatch.setattr("meshd.rest.server.BODY_S", 0.2)
    async with serving(server_of(hello)) as url, httpx.AsyncClient() as client:
        assert (await client.put(url, content=b"x" * MAX_BYTES)).status_code == 200
        host, port = url.removeprefix("http://").split(":")
        for head, expected in (
            (b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab", b"HTTP/1.1 408"),
            (b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999\r\n\r\n" + b"x" * (MAX_BYTES + 1), b"HTTP/1.1 413"),
        ):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                with trio.fail_after(5):
                    await stream.send_all(head)
                    assert (await stream.receive_some(4096)).startswith(expected)


async def test_a_port_in_use_names_the_setting():
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    server = server_of(hello, binding=Binding("127.0.0.1", port, "apiServer.http"))
    with pytest.raises(ExceptionGroup) as caught:
        await server.run()
    assert caught.group_contains(ListenError, match=rf"apiServer\.http: 127\.0\.0\.1:{port} is in use")
    await listeners[0].aclose()


async def test_a_request_in_flight_is_finished_at_shutdown_and_an_idle_connection_is_not_waited_for():
    arrived, answers = trio.Event(), []

    async def slow(scope, receive, send):
        arrived.set()
        await trio.sleep(0.3)
        await PlainTextResponse("done")(scope, receive, send)

    began = trio.current_time()
    async with trio.open_nursery() as clients, serving(server_of(slow, drain_s=20)) as url:
        host, port = url.removeprefix("http://").split(":")
        idle = await trio.open_tcp_stream(host, int(port))

        async def call():
            async with httpx.AsyncClient() as client:
                answers.append((await client.get(url)).text)

        clients.start_soon(call)
        await arrived.wait()
    await idle.aclose()
    assert answers == ["done"]
    assert trio.current_time() - began < 5


def certificate(directory):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(minutes=10))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "c.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (directory / "k.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / "c.pem", directory / "k.pem"


async def test_https_is_served_and_clear_text_on_it_is_no_harm(tmp_path):
    files = certificate(tmp_path)
    binding = Binding("127.0.0.1", 0, "apiServer.https", files)
    context = ssl.create_default_context(cafile=str(files[0]))
    async with serving(server_of(hello, binding=binding)) as url:
        port = int(url.rsplit(":", 1)[1])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            with trio.move_on_after(2):
                await stream.receive_some()
        async with httpx.AsyncClient(verify=context) as client:
            assert (await client.get(f"https://localhost:{port}")).text == "hello"


async def test_a_certificate_that_cannot_be_used_names_the_setting(tmp_path):
    (tmp_path / "c.pem").write_text("no")
    binding = Binding("127.0.0.1", 0, "apiServer.https", (tmp_path / "c.pem", tmp_path / "k.pem"))
    with pytest.raises(ExceptionGroup) as caught:
        await server_of(hello, binding=binding).run()
    assert caught.group_contains(TlsFilesError, match=r"apiServer\.https\.tlsCertFile: .*c\.pem is no PEM")


def test_hypercorn_is_quiet():
    config = hypercorn_config()
    assert not config.include_server_header
    assert config.accesslog is None
