"""Serves an application over HTTP/1.1 on sockets it binds itself: Hypercorn's connections on our accept loop.

A connection's failure costs that connection: random bytes are answered 400 or closed and counted, never logged as a
traceback. A request body is read whole, bounded in size and time, before the application sees the request.
"""

import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Event, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from prometheus_client import CollectorRegistry, Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshd.config import Config
from meshd.rest.api import Api, Metrics
from meshd.rest.body import MAX_BYTES
from meshd.rest.errors import RequestError, answer
from meshd.rest.routes import api_app, diagnostics_app
from meshd.runtime.listen import WEATHER, accept_loop, open_listeners
from meshd.runtime.tls_files import load_pair

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
"""More than any client needs; each may hold a body of MAX_BYTES."""
HEADER_BYTES = 64 * 1024
IDLE_S = 60
"""How long a connection may wait between requests, or take to send a request's head."""
BODY_S = 10.0
"""How long a request's body may take. Kuma's API server allows as much."""
HANDSHAKE_S = 10


@dataclass(frozen=True, slots=True)
class Binding:
    """Where to listen: ``setting`` names it in errors; ``tls`` are certificate and key, or None for clear text."""

    host: str
    port: int
    setting: str
    tls: tuple[Path, Path] | None = None


class HttpMetrics:
    """Connections by what became of them. One for all servers of a control plane; ``server`` is the label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connections = Counter(
            "meshd_http_connections_total",
            "HTTP connections by server and event: accepted, refused (too many), broken, failed (a bug).",
            ["server", "event"],
            registry=registry,
        )


class HttpServer:
    """A service that serves one application on some bindings. ``addresses`` are set once it has started."""

    def __init__(
        self, name: str, app: ASGIApp, bindings: Sequence[Binding], metrics: HttpMetrics, *, drain_s: float
    ) -> None:
        self.name = name
        self.addresses: tuple[tuple[str, int], ...] = ()
        self._app = BoundedBody(app)
        self._bindings = tuple(bindings)
        self._events = metrics.connections
        self._drain_s = drain_s
        self._hypercorn = hypercorn_config()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled, then finish open requests for at most ``drain_s``.

        Owns a nursery with the accept loops, and beside it one with a task a connection, which outlives a cancellation
        by the drain time.

        Raises:
            ListenError: an address cannot be listened on; TlsFilesError: a certificate cannot be used.
        """
        context = WorkerContext(None)
        stopping = trio.Event()
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            listening = []
            for binding in self._bindings:
                tls = tls_context(binding) if binding.tls is not None else None
                for listener in await open_listeners(binding.host, binding.port, binding.setting):
                    await stack.enter_async_context(listener)
                    listening.append((listener, partial(self._connection, context, tls)))
            self.addresses = tuple(listener.socket.getsockname()[:2] for listener, _ in listening)
            connections: trio.Nursery = await nursery.start(self._hold_connections, stopping)
            try:
                async with trio.open_nursery() as accepting:
                    for listener, handler in listening:
                        accepting.start_soon(self._accept, listener, handler, connections)
                    log.info("%s: serving on %s", self.name, ", ".join(f"{h}:{p}" for h, p in self.addresses))
                    task_status.started()
            finally:
                for listener, _ in listening:
                    listener.socket.close()
                stopping.set()
                await context.terminated.set()  # closes idle connections; has no checkpoint

    async def _hold_connections(self, stopping: trio.Event, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        """Keep a nursery for the connections until ``stopping``, and then for the drain time."""
        with trio.CancelScope(shield=True) as scope:
            async with trio.open_nursery() as connections:
                task_status.started(connections)
                await stopping.wait()
                scope.deadline = trio.current_time() + self._drain_s

    async def _accept(
        self,
        listener: trio.SocketListener,
        handler: Callable[[trio.SocketStream], Awaitable[None]],
        connections: trio.Nursery,
    ) -> None:
        await accept_loop(
            listener,
            handler,
            connections,
            name=self.name,
            limit=MAX_CONNECTIONS,
            on_event=lambda event: self._events.labels(self.name, event).inc(),
        )

    async def _connection(self, context: WorkerContext, tls: ssl.SSLContext | None, stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, tls, server_side=True, https_compatible=True) if tls else stream
        state = ConnectionState({})
        try:
            await Connection(ASGIWrapper(self._app), self._hypercorn, context, state, secured)  # type: ignore[arg-type]
        except* WEATHER:
            self._events.labels(self.name, "broken").inc()
        except* Exception as group:  # noqa: BLE001  # request edge: what a peer's bytes did to the parser
            self._events.labels(self.name, "broken").inc()
            log.debug("%s: connection ended: %r", self.name, group.exceptions)


class HttpVersionError(Exception):
    """A peer speaks HTTP/2, which is not spoken here."""


class Http1(H11Protocol):
    """Hypercorn's HTTP/1.1 that stays it: an ``Upgrade: h2c`` is ignored, HTTP/2 from the first byte is a 505."""

    async def _check_protocol(self, event: h11.Request) -> None:
        if event.http_version not in (b"1.0", b"1.1"):
            await self._send_error_response(505)
            raise HttpVersionError(f"HTTP/{event.http_version.decode('ascii')} is not spoken here")


class Connection(TCPServer):
    """Hypercorn's connection that speaks HTTP/1.1 only, and ends when its peer has ended it.

    Hypercorn would keep it until the idle timeout.
    """

    _ended = False

    async def _read_data(self) -> None:
        made = self.protocol  # by Hypercorn, just before; nothing was read yet
        made.protocol = Http1(
            made.app,
            made.config,
            made.context,
            made.task_group,
            made.state,
            made.ssl,
            made.client,
            made.server,
            made.send,
        )
        await super()._read_data()
        self._ended = True
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        """Send; a connection that its peer has ended does not become idle."""
        if not (self._ended and isinstance(event, Updated) and event.idle):
            await super().protocol_send(event)


def api_server(api: Api, registry: CollectorRegistry, metrics: HttpMetrics) -> HttpServer:
    """The server of the API, on what ``apiServer.http`` and ``apiServer.https`` say."""
    settings, bindings = api.config.api_server, []
    if settings.http.enabled:
        bindings.append(Binding(settings.http.interface, settings.http.port, "apiServer.http"))
    if settings.https.enabled:
        tls = api.config.https_tls_files
        bindings.append(Binding(settings.https.interface, settings.https.port, "apiServer.https", tls))
    drain_s = api.config.general.drain_time.total_seconds()
    return HttpServer("api", api_app(api, Metrics(registry)), bindings, metrics, drain_s=drain_s)


def diagnostics_server(
    config: Config, registry: CollectorRegistry, ready: Callable[[], str], metrics: HttpMetrics
) -> HttpServer:
    """The server of health, readiness and metrics. ``ready`` returns what is still missing, empty when all is there."""
    settings = config.diagnostics
    binding = Binding(settings.server_interface, settings.server_port, "diagnostics")
    app = diagnostics_app(registry, ready)
    return HttpServer("diagnostics", app, [binding], metrics, drain_s=config.general.drain_time.total_seconds())


def hypercorn_config() -> HypercornConfig:
    """Hypercorn's settings: limits, timeouts, silence."""
    config = HypercornConfig()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.h11_max_incomplete_size = HEADER_BYTES
    config.keep_alive_timeout = IDLE_S
    config.read_timeout = IDLE_S
    config.ssl_handshake_timeout = HANDSHAKE_S
    config.alpn_protocols = ["http/1.1"]
    return config


def tls_context(binding: Binding) -> ssl.SSLContext:
    """A server's TLS with the binding's certificate.

    Raises:
        TlsFilesError: the files cannot be read or do not belong together.
    """
    if binding.tls is None:
        raise ValueError(f"{binding.setting}: has no TLS")
    certificate, key = binding.tls
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load_pair(context, certificate, key, binding.setting)
    return context


class BoundedBody:
    """Reads a request's body whole, up to MAX_BYTES and BODY_S, and hands it to the application in one piece.

    WebSockets are refused; nothing here speaks them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1003})
            return
        body = bytearray()
        try:
            with trio.fail_after(BODY_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    if len(body) > MAX_BYTES:
                        await refuse(scope, receive, send, 413, f"the body is longer than {MAX_BYTES} bytes")
                        return
                    if not message.get("more_body", False):
                        break
        except trio.TooSlowError:
            await refuse(scope, receive, send, 408, f"the body took longer than {BODY_S:.0f} s")
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, replay, send)


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, detail: str) -> None:
    """Answer a request that is not read to its end, and close its connection."""
    refused = RequestError(status, "Bad Request", detail)
    await answer(refused, {"connection": "close"})(scope, receive, send)
