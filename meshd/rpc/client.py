"""The gRPC client: one channel is one connection. Reconnecting is the caller's, who knows what must be said again."""

import os
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from prometheus_client import CollectorRegistry

from meshd.model.errors import MeshdError, UnavailableError
from meshd.rpc.headers import Metadata, request_headers, status_of_answer
from meshd.rpc.http2 import Connection
from meshd.rpc.keepalive import WITH_ONE, keep_alive
from meshd.rpc.limits import CLIENT_LIMITS, Limits
from meshd.rpc.metrics import RpcMetrics
from meshd.rpc.status import RpcError, Status, leaves
from meshd.rpc.stream import RESET_CANCEL, Stream

CONNECT_S = 10.0


class ClientStream(Stream):
    """A call as its caller sees it; made by ``Channel.stream``."""

    def __init__(self, connection: Connection, path: str) -> None:
        super().__init__(connection, 0)
        self.path = path
        self.outcome: RpcError | None = None
        """The status that the server ended the call with (possibly OK); None while it runs."""

    async def end(self) -> None:
        """Say that no more messages come; what the server sends can still be received."""
        await self._take_turn()
        try:
            if not self.local_ended and self.failure is None:
                await self._send_chunks((b"",), 0, end=True)
        finally:
            self._sending = False
            self._turn.unpark()

    def check_sendable(self) -> None:
        """Besides the usual: nothing can be sent to a server that has ended the call."""
        if self.outcome is not None:
            raise RpcError(
                self.outcome.status or Status.CANCELLED, self.outcome.message or "the server has ended the call"
            )
        super().check_sendable()

    def on_headers(self, headers: Metadata) -> None:
        """Headers open the answer; those with a status, or those of no gRPC server, end it."""
        fields = dict(headers)
        opening = ":status" in fields
        if opening and "grpc-status" not in fields and _is_grpc(fields):
            try:
                self.accept_encoding(fields)
            except RpcError as error:
                self.reset(RESET_CANCEL, error)
            return
        self.outcome = status_of_answer(fields)

    def fail(self, failure: MeshdError) -> None:
        """A call that the server has ended keeps its status; a reset after it only says that nobody reads any more."""
        if self.outcome is not None:
            self.local_ended = True
            self.writable.unpark_all()
        else:
            super().fail(failure)

    def on_data(self, data: bytes, credit: int) -> None:
        """What follows an answer that is no gRPC (a proxy's page) is dropped."""
        if self.outcome is None:
            super().on_data(data, credit)

    def on_end(self) -> None:
        """Wake senders too: nobody is left to read what they send."""
        super().on_end()
        self.writable.unpark_all()

    def finish_receiving(self) -> None:
        """The status the call ended with decides; OK inside a message is no OK."""
        if self.outcome is None:
            raise RpcError(Status.INTERNAL, "the server ended the call without a status")
        if self.outcome.status is not Status.OK:
            raise self.outcome.with_traceback(None)
        super().finish_receiving()


def _is_grpc(fields: dict[str, str]) -> bool:
    return fields[":status"] == "200" and fields.get("content-type", "").startswith("application/grpc")


class Channel:
    """Calls over one connection; made by ``open_channel`` and ``channel_over``."""

    def __init__(self, connection: Connection, authority: str, scheme: str, *, gzip: bool) -> None:
        self.connection = connection
        self._authority = authority
        self._scheme = scheme
        self._gzip = gzip

    @property
    def ended(self) -> str:
        """Why the connection ended; empty while it lives."""
        return self.connection.ended

    async def ping(self, timeout_s: float) -> bool:
        """Whether the peer answers an HTTP/2 PING in time. See ``Connection.ping`` for how often."""
        return await self.connection.ping(timeout_s)

    @asynccontextmanager
    async def stream(
        self, path: str, metadata: Sequence[tuple[str, str]] = (), *, timeout_s: float | None = None
    ) -> AsyncIterator[ClientStream]:
        """A call to ``path``; leaving the block before the server has ended it resets it (only it).

        ``timeout_s`` is only told to the server; the caller's own deadline is a cancel scope. Waits while the peer
        allows no more calls.

        Raises:
            UnavailableError: the connection is lost or going away.
        """
        stream = ClientStream(self.connection, path)
        stream.gzip = self._gzip
        await self._open(stream, path, metadata, timeout_s)
        try:
            yield stream
        finally:
            if stream.outcome is None or not stream.local_ended:
                stream.reset(RESET_CANCEL, RpcError(Status.CANCELLED, "the caller has left the call"))

    async def unary(
        self, path: str, request: bytes, metadata: Sequence[tuple[str, str]] = (), *, timeout_s: float | None = None
    ) -> bytes:
        """Send one message and return the one that answers it.

        Raises:
            RpcError: the server's status; DEADLINE_EXCEEDED after ``timeout_s``.
            UnavailableError: the connection is lost or going away.
        """
        deadline = trio.current_time() + timeout_s if timeout_s is not None else float("inf")
        with trio.CancelScope(deadline=deadline):
            async with self.stream(path, metadata, timeout_s=timeout_s) as stream:
                try:
                    await stream.send(request, last=True)
                except RpcError:
                    if stream.outcome is None:
                        raise  # otherwise the server's own word, below
                answer = await stream.receive()
                if answer is None or await stream.receive() is not None:
                    raise RpcError(Status.INTERNAL, f"{path}: the server did not answer with exactly one message")
                return answer
        raise RpcError(
            Status.DEADLINE_EXCEEDED, f"{path}: no answer from {self.connection.peer} within {timeout_s:g} s"
        )

    async def _open(
        self, stream: ClientStream, path: str, metadata: Sequence[tuple[str, str]], timeout_s: float | None
    ) -> None:
        connection = self.connection
        headers = request_headers(path, self._authority, self._scheme, metadata, gzip=self._gzip, timeout_s=timeout_s)
        await trio.lowlevel.checkpoint()
        while not connection.going_away and not connection.has_room:
            await connection.stream_closed.park()
        if connection.going_away:
            raise UnavailableError(f"{connection.peer}: {connection.ended or 'the peer is going away'}")
        connection.open_stream(headers, stream)


@asynccontextmanager
async def channel_over(
    stream: trio.abc.Stream,
    *,
    peer: str = "memory",
    authority: str = "memory",
    scheme: str = "http",
    gzip: bool = True,
    limits: Limits = CLIENT_LIMITS,
    metrics: RpcMetrics | None = None,
    name: str = "grpc",
) -> AsyncIterator[Channel]:
    """A channel over a stream that is connected, and secured if it is to be; closes it.

    ``gzip`` compresses what is worth it, as Kuma's zones do. ``metrics`` None counts for nobody.

    Raises:
        UnavailableError: the peer did not show itself to be HTTP/2 in time.
    """
    metrics = metrics or RpcMetrics(CollectorRegistry())
    connection = Connection(stream, peer=peer, endpoint=name, limits=limits, metrics=metrics, is_client=True)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        try:
            await _until_ready(connection)
            yield Channel(connection, authority, scheme, gzip=gzip)
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the nursery, which would wrap it
            failure = error
        finally:
            connection.close("this side has closed the channel")
    if failure is not None:
        raise failure


async def _until_ready(connection: Connection) -> None:
    await connection.ready.wait()
    if connection.ended:
        raise UnavailableError(f"{connection.peer}: {connection.ended}")


@asynccontextmanager
async def open_channel(  # noqa: PLR0913 - every one of them is the caller's to choose, by name
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None,
    server_hostname: str | None = None,
    *,
    gzip: bool = True,
    connect_s: float = CONNECT_S,
    limits: Limits = CLIENT_LIMITS,
    metrics: RpcMetrics | None = None,
    name: str = "grpc",
) -> AsyncIterator[Channel]:
    """A channel to ``host:port``, in clear text if ``ssl_context`` is None (which else gets ALPN ``h2`` set).

    ``server_hostname`` is the name to verify, if it is not ``host``. The connection lives as long as the
    block; when it is lost, calls raise and the caller opens another.

    Raises:
        UnavailableError: no connection, no TLS or no HTTP/2 within ``connect_s``.
    """
    peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    stream = await _connect(host, port, peer, ssl_context, server_hostname or host, connect_s)
    scheme = "http" if ssl_context is None else "https"
    async with channel_over(
        stream, peer=peer, authority=peer, scheme=scheme, gzip=gzip, limits=limits, metrics=metrics, name=name
    ) as channel:
        yield channel


async def _connect(
    host: str, port: int, peer: str, ssl_context: ssl.SSLContext | None, server_hostname: str, connect_s: float
) -> trio.abc.Stream:
    socket: trio.SocketStream | None = None
    why: str
    try:
        with trio.fail_after(connect_s):
            socket = await trio.open_tcp_stream(host, port)
            keep_alive(socket, WITH_ONE)
            if ssl_context is None:
                return socket
            ssl_context.set_alpn_protocols(["h2"])
            secured = trio.SSLStream(socket, ssl_context, server_hostname=server_hostname, https_compatible=True)
            await secured.do_handshake()
            if secured.selected_alpn_protocol() == "h2":
                return secured
            why = "the server did not choose h2 by ALPN; is this a gRPC port?"
    except (trio.BrokenResourceError, OSError) as error:
        why = _reason(error)
    except trio.TooSlowError:
        why = f"no connection within {connect_s:g} s"
    except BaseException:
        if socket is not None:
            await trio.aclose_forcefully(socket)
        raise
    if socket is not None:
        await trio.aclose_forcefully(socket)
    raise UnavailableError(f"{peer}: {why}")


def _reason(error: Exception) -> str:
    """Why there is no connection, in the words of the operating system or of TLS; each once if addresses differ."""
    cause = error.__cause__ or error
    found = leaves(cause) if isinstance(cause, BaseExceptionGroup) else [cause]
    return "; ".join(dict.fromkeys(map(_in_words, found)))


def _in_words(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno is not None:
        known = os.strerror(error.errno) if error.errno > 0 else error.strerror  # below 0 is the resolver's
        return known or str(error)
    return str(error) or type(error).__name__
