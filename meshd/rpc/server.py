"""The server: listeners, TLS, connections, and a task for every call. gRPC, and plain HTTP beside it if asked to."""

import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from meshd.model.errors import MeshdError
from meshd.rpc.exchange import exchange
from meshd.rpc.first_bytes import Replayed, first_bytes
from meshd.rpc.guard import PREFACE
from meshd.rpc.headers import Metadata, response_headers, timeout_of, trailers, user_metadata
from meshd.rpc.http import HttpHandler, HttpRequest, HttpResponse, refusal
from meshd.rpc.http1 import Http1Connection
from meshd.rpc.http2 import Connection
from meshd.rpc.keepalive import WITH_A_CROWD, keep_alive
from meshd.rpc.limits import DEFAULT_LIMITS, Limits
from meshd.rpc.metrics import RpcMetrics
from meshd.rpc.status import RpcError, Status, as_rpc_error
from meshd.rpc.stream import RESET_CANCEL, Stream
from meshd.runtime.listen import accept
from meshd.runtime.steps import one_step

log = logging.getLogger(__name__)

Handler = Callable[["ServerStream"], Awaitable[None]]
"""Serves one call. Returning ends it with OK, an error of meshd's with its status, anything else is a bug: INTERNAL.

It is cancelled when the peer resets the call, the connection ends or the caller's deadline passes.
"""
NO_ERROR = 0
H2, HTTP1 = "h2", "http/1.1"
"""Protocols by their ALPN names."""


class ServerStream(Stream):
    """A call as its handler sees it."""

    def __init__(self, connection: Connection, stream_id: int, headers: Metadata) -> None:
        super().__init__(connection, stream_id)
        self.metadata = user_metadata(headers)
        """The caller's metadata, in order, repeated keys kept apart."""
        self.headers = headers
        fields = dict(headers)
        self.path = fields.get(":path", "")
        """``/package.Service/Method``."""
        self.fields = fields
        self.scope = trio.CancelScope()
        self.ending: RpcError | None = None
        """The status to end with when ``scope`` is cancelled from our side."""
        self._headers_sent = False

    def before_sending(self) -> None:
        """The headers go with the first message, so that a call that fails first is a single frame."""
        self.check_sendable()
        if not self._headers_sent:
            self._headers_sent = True
            self.connection.send_headers(self, response_headers(gzip=self.gzip))

    def fail(self, failure: MeshdError) -> None:
        """The peer is gone: the handler is cancelled."""
        super().fail(failure)
        self.scope.cancel()

    def end_with(self, error: RpcError) -> None:
        """Cancel the handler and end the call with this status."""
        if self.ending is None:
            self.ending = error
        self.scope.cancel()

    def finish(self, status: Status, message: str) -> None:
        """Send the status, if anybody is left to read it."""
        if self.failure is not None or self.local_ended:
            return
        self.local_ended = True
        headers = trailers(status, message)
        if not self._headers_sent:
            self._headers_sent = True
            headers = response_headers(gzip=False) + headers
        self.connection.send_headers(self, headers, end=True)
        if not self.remote_ended:
            self.connection.reset_stream(self, NO_ERROR)  # RFC 9113 8.1: the rest of the request is of no interest


class ServerConnection(Connection):
    """A connection that runs a handler for each stream the peer opens."""

    def __init__(self, transport: trio.abc.Stream, peer: str, server: "GrpcServer") -> None:
        super().__init__(
            transport, peer=peer, endpoint=server.name, limits=server.limits, metrics=server.metrics, is_client=False
        )
        self._server = server
        self._calls: set[ServerStream] = set()
        self._idle_since = trio.current_time()
        self._nursery: trio.Nursery

    def on_running(self, nursery: trio.Nursery) -> None:
        """Handlers live in the connection's nursery."""
        self._nursery = nursery
        nursery.start_soon(self._end_when_idle)

    def on_request(self, stream_id: int, headers: Metadata) -> None:
        """Start the handler. Handlers that are slow to end count, so that resets do not outrun the limit."""
        if self.going_away or len(self._calls) >= self.limits.max_streams:
            self.refuse_stream(stream_id)
            return
        stream = ServerStream(self, stream_id, headers)
        self.streams[stream_id] = stream
        self._calls.add(stream)
        is_grpc = stream.fields.get("content-type", "").startswith("application/grpc")
        serve = self._call if is_grpc or self._server.http is None else self._answer
        self._nursery.start_soon(serve, stream)

    async def drain(self, drain_s: float) -> None:
        """Let running calls end by themselves, then end them with UNAVAILABLE, then close.

        Takes at most ``drain_s`` and a second.
        """
        self.say_goodbye()
        with trio.move_on_after(drain_s):
            await self._no_calls()
        for stream in list(self._calls):
            stream.end_with(RpcError(Status.UNAVAILABLE, "the server is shutting down"))
        with trio.move_on_after(1.0):
            await self._no_calls()
        self.close("this side is shutting down")

    async def _end_when_idle(self) -> None:
        """Connections are a bounded good: one that asks for nothing is not kept, whoever holds it."""
        while True:
            await self._no_calls()
            since = self._idle_since
            await trio.sleep_until(since + self.limits.idle_s)
            if not self._calls and self._idle_since == since:
                log.debug("endpoint=%s peer=%s is idle", self.endpoint, self.peer)
                self.close(f"no call for {self.limits.idle_s:g} s")
                return

    async def _no_calls(self) -> None:
        while self._calls and not self.ended:
            await self.stream_closed.park()

    async def _call(self, stream: ServerStream) -> None:
        path = stream.path if stream.path in self._server.handlers else "other"
        outcome = RpcError(Status.CANCELLED, "")
        try:
            outcome = await self._outcome(stream)
        finally:
            self._calls.discard(stream)
            self._idle_since = trio.current_time()
            stream.finish(outcome.status, outcome.message)
            self.stream_closed.unpark_all()
            self.metrics.calls.labels(self.endpoint, path, outcome.status.name).inc()

    async def _answer(self, stream: ServerStream) -> None:
        """Serve a plain HTTP request."""
        code = "none"
        try:
            with stream.scope:
                code = str(await exchange(stream, stream.headers, self._server.respond))
        except MeshdError as error:
            log.debug("endpoint=%s peer=%s: a request was given up: %s", self.endpoint, self.peer, error)
        finally:
            self._calls.discard(stream)
            self._idle_since = trio.current_time()
            if stream.failure is None and not (stream.local_ended and stream.remote_ended):
                code_of_reset = NO_ERROR if stream.local_ended else RESET_CANCEL
                stream.reset(code_of_reset, RpcError(Status.CANCELLED, "the request is over"))
            self.stream_closed.unpark_all()
            self.metrics.http_requests.labels(self.endpoint, code).inc()

    async def _outcome(self, stream: ServerStream) -> RpcError:
        """Run the handler; how the call ended."""
        try:
            with stream.scope as scope:
                handler = self._admit(stream)
                await handler(stream)
                return RpcError(Status.OK, "")
        except Exception as error:  # noqa: BLE001 - request edge: a bug here costs one call
            if not scope.cancelled_caught or as_rpc_error(error) is None:
                return self._judge(stream, error)
        except BaseExceptionGroup as group:
            # The connection ends while something failed in the handler: nobody is left to be told, but a bug counts.
            cancelled, rest = group.split(trio.Cancelled)
            if cancelled is None:
                raise
            if isinstance(rest, ExceptionGroup):
                self._judge(stream, rest)
            raise cancelled from None
        if stream.failure is not None:
            return RpcError(Status.CANCELLED, str(stream.failure))
        if stream.ending is not None:
            return stream.ending
        return RpcError(Status.DEADLINE_EXCEEDED, "the caller's deadline has passed")

    def _admit(self, stream: ServerStream) -> Handler:
        fields = stream.fields
        kind = fields.get("content-type", "")
        if fields.get(":method") != "POST" or not kind.startswith("application/grpc"):
            raise RpcError(Status.INTERNAL, f"{fields.get(':method')} with content-type {kind!r} is no gRPC")
        handler = self._server.handlers.get(stream.path)
        if handler is None:
            raise RpcError(Status.UNIMPLEMENTED, f"no method {stream.path[:200]!r} here")
        stream.accept_encoding(fields)
        stream.gzip = fields.get("grpc-encoding") == "gzip"  # answer in kind
        timeout_s = timeout_of(fields)
        if timeout_s is not None:
            stream.scope.deadline = trio.current_time() + timeout_s
        return handler

    def _judge(self, stream: ServerStream, error: Exception) -> RpcError:
        known = as_rpc_error(error)
        if known is not None:
            return known
        self.metrics.bugs.labels(self.endpoint, stream.path).inc()
        log.error(
            "endpoint=%s path=%s peer=%s: a call failed by a bug", self.endpoint, stream.path, self.peer, exc_info=error
        )
        if self._server.raise_bugs:
            raise error
        return RpcError(Status.INTERNAL, "internal error; the server's log says more")


class GrpcServer:
    """Serves ``handlers`` (by full path) on listeners and on single streams.

    Without ``http``, ``ssl_context`` gets ALPN ``h2`` set, and peers that do not choose it are refused. With it, what
    is no gRPC is given to that handler, whole: requests of HTTP/2 connections that are of another content type, and
    every request of HTTP/1.1 connections, which ALPN tells apart or, where a peer offers none and in clear text, the
    first bytes. ``raise_bugs`` lets a handler's bug end ``serve`` (for tests). ``name`` labels metrics and logs.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        ssl_context: ssl.SSLContext | None,
        limits: Limits = DEFAULT_LIMITS,
        *,
        metrics: RpcMetrics,
        name: str = "grpc",
        http: HttpHandler | None = None,
        raise_bugs: bool = False,
    ) -> None:
        self.handlers = dict(handlers)
        self.http = http
        self.limits = limits
        self.metrics = metrics
        self.name = name
        self.raise_bugs = raise_bugs
        self._ssl_context = ssl_context
        if ssl_context is not None:
            ssl_context.set_alpn_protocols([H2] if http is None else [H2, HTTP1])
        self._connections: set[ServerConnection] = set()
        self._open = 0

    @property
    def connections(self) -> frozenset[Connection]:
        """The HTTP/2 connections that are open now."""
        return frozenset(self._connections)

    async def serve(
        self, listeners: Sequence[trio.SocketListener], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Accept and serve until cancelled; then say goodbye, give calls ``drain_s``, and close. Owns the listeners."""
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(self._accept, listener, nursery)
            task_status.started()

    async def serve_connection(self, stream: trio.abc.Stream, peer: str = "memory", *, protocol: str = "") -> None:
        """Serve one stream, in memory or already secured, until it ends; on cancel it is drained. Closes the stream.

        ``protocol`` is what ALPN says; empty: gRPC's, or with ``http`` what the first bytes say.
        """
        open_connections = self.metrics.connections.labels(self.name)
        open_connections.inc()
        try:
            connection = await self._recognise(stream, peer, protocol)
            if isinstance(connection, ServerConnection):
                self._connections.add(connection)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._drain_on_cancel, connection)
                with trio.CancelScope(shield=True):
                    await connection.run()
                if isinstance(connection, ServerConnection):
                    self._connections.discard(connection)
                nursery.cancel_scope.cancel()
        finally:
            open_connections.dec()
            await trio.aclose_forcefully(stream)

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """The answer of ``http``; a bug costs one request."""
        if self.http is None:
            raise TypeError("this server has no handler of plain HTTP")
        try:
            return await self.http(request)
        except Exception as error:  # request edge: a bug here costs one request
            self.metrics.bugs.labels(self.name, "http").inc()
            log.exception(
                "endpoint=%s path=%s peer=%s: a request failed by a bug", self.name, request.path, request.peer
            )
            if self.raise_bugs:
                raise
            del error
            return refusal(500)

    # -- inside

    async def _recognise(self, stream: trio.abc.Stream, peer: str, protocol: str) -> ServerConnection | Http1Connection:
        """The connection that the stream is, by ALPN or by its first bytes."""
        if self.http is None or protocol == H2:
            return ServerConnection(stream, peer, self)
        first = b"" if protocol else await first_bytes(stream, self.limits.head_s)
        if first == PREFACE:
            return ServerConnection(Replayed(stream, first), peer, self)
        return Http1Connection(
            stream,
            first,
            peer=peer,
            endpoint=self.name,
            limits=self.limits,
            metrics=self.metrics,
            respond=self.respond,
        )

    async def _drain_on_cancel(self, connection: ServerConnection | Http1Connection) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):  # bounded by drain itself
                await connection.drain(self.limits.drain_s)

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        async with listener:
            while True:
                stream = await accept(listener, self.name)
                self.metrics.accepted.labels(self.name).inc()
                if self._open >= self.limits.max_connections:
                    self.metrics.refused.labels(self.name, "limit").inc()
                    stream.socket.close()
                    continue
                self._open += 1
                keep_alive(stream, WITH_A_CROWD)
                nursery.start_soon(self._socket, stream)
                async with one_step():
                    pass  # who connects in a crowd is let in one a turn: a handshake takes a millisecond

    async def _socket(self, stream: trio.SocketStream) -> None:
        try:
            peer = _address(stream)
            secured = await self._secure(stream, peer)
            if secured is not None:
                await self.serve_connection(secured[0], peer, protocol=secured[1])
        except Exception:  # request edge: a bug here costs one connection
            if self.raise_bugs:
                raise
            self.metrics.bugs.labels(self.name, "connection").inc()
            log.exception("endpoint=%s: a connection failed by a bug", self.name)
        finally:
            self._open -= 1
            await trio.aclose_forcefully(stream)

    async def _secure(self, stream: trio.SocketStream, peer: str) -> tuple[trio.abc.Stream, str] | None:
        """The stream after its TLS handshake and its ALPN; None if there was none that is acceptable."""
        if self._ssl_context is None:
            return stream, ""
        secured = trio.SSLStream(stream, self._ssl_context, server_side=True, https_compatible=True)
        why = "the peer did not choose h2 by ALPN"
        try:
            with trio.fail_after(self.limits.handshake_s):
                await secured.do_handshake()
            protocol = secured.selected_alpn_protocol() or ""
            if protocol == H2 or self.http is not None:
                return secured, protocol
        except (trio.BrokenResourceError, trio.TooSlowError, OSError) as error:
            why = str(error.__cause__ or error) or "too slow"
        self.metrics.refused.labels(self.name, "tls").inc()
        log.debug("endpoint=%s peer=%s refused: TLS: %s", self.name, peer, why)
        return None


def _address(stream: trio.SocketStream) -> str:
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return "gone"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
