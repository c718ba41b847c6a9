"""Servers and channels for the tests: in memory under virtual time, or on loopback for other people's gRPC."""

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import CollectorRegistry

from meshd.rpc import (
    DEFAULT_LIMITS,
    Channel,
    GrpcServer,
    Handler,
    HttpHandler,
    HttpRequest,
    HttpResponse,
    Limits,
    RpcMetrics,
    ServerStream,
    channel_over,
)
from meshd.rpc.limits import CLIENT_LIMITS


class Counted:
    """A metrics object with a short way to read it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = RpcMetrics(self.registry)

    def __call__(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"meshd_rpc_{name}", {"endpoint": "test", **labels}) or 0.0


async def echo(stream: ServerStream) -> None:
    """Sends every message back."""
    while (message := await stream.receive()) is not None:
        await stream.send(message)


def make_server(
    handlers: Mapping[str, Handler],
    *,
    counted: Counted | None = None,
    limits: Limits = DEFAULT_LIMITS,
    raise_bugs: bool = True,
    tls: ssl.SSLContext | None = None,
    http: HttpHandler | None = None,
) -> GrpcServer:
    counted = counted or Counted()
    return GrpcServer(handlers, tls, limits, metrics=counted.metrics, name="test", http=http, raise_bugs=raise_bugs)


async def mirror(request: HttpRequest) -> HttpResponse:
    """Answers with what was asked."""
    told = {name: getattr(request, name) for name in ("method", "path", "query", "host", "peer")}
    return HttpResponse(200, json.dumps(told | {"body": request.body.decode()}).encode(), "application/json")


@asynccontextmanager
async def in_memory(
    server: GrpcServer, *, gzip: bool = True, limits: Limits = CLIENT_LIMITS
) -> AsyncIterator[tuple[Channel, trio.StapledStream]]:
    """A channel to ``server`` over memory, and the server's end of the wire."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_connection, theirs)
        async with channel_over(ours, gzip=gzip, limits=limits) as channel:
            yield channel, theirs
        with trio.move_on_after(30):
            while server.connections:
                await trio.sleep(0.1)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def on_loopback(server: GrpcServer) -> AsyncIterator[int]:
    """The port that ``server`` serves on."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def make_certificate() -> tuple[bytes, bytes]:
    """A self-signed certificate for localhost and its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
