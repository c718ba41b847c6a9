"""One connection that speaks HTTP/1.1: h11 keeps the protocol's state, this drives it.

For clients that cannot speak HTTP/2, or need not (Go's with a TLS configuration of its own, curl). One request at a
time, read whole before it is answered, bounded in size and time; what is no HTTP is answered 400 where it can be, and
costs its connection.
"""

import logging
from collections.abc import Awaitable, Callable

import h11
import trio

from meshd.rpc.http import HttpRequest, HttpResponse, refusal, response_fields, split_target
from meshd.rpc.limits import Limits
from meshd.rpc.metrics import RpcMetrics

log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
LINGER_S = 1.0
"""What a refused client is still sending is read for so long: closing at once would take the answer back."""
VERSIONS = (b"1.0", b"1.1")
_TRANSPORT_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)

Respond = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""The handler with its failures contained."""


class RefusedError(Exception):
    """A request that is not read to its end; ``reason`` is counted, empty for what is nobody's fault."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(message)


class Http1Connection:
    """Serves a connection by ``run`` until it ends; ``first`` is what was read of it already."""

    def __init__(
        self,
        transport: trio.abc.Stream,
        first: bytes,
        *,
        peer: str,
        endpoint: str,
        limits: Limits,
        metrics: RpcMetrics,
        respond: Respond,
    ) -> None:
        self.peer = peer
        self.endpoint = endpoint
        self._transport = transport
        self._limits = limits
        self._metrics = metrics
        self._respond = respond
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.max_header_bytes)
        self._buffered = bool(first)
        if first:
            self._h11.receive_data(first)
        self._is_draining = False
        self._idle: trio.CancelScope | None = None
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self) -> None:
        """Serve until the client or an error ends it, then close the transport. Raises nothing that a peer causes."""
        try:
            with self._scope:
                wait_s = self._limits.head_s
                while await self._serve_one(wait_s):
                    wait_s = self._limits.idle_s
                await self._linger()
        except _TRANSPORT_ERRORS as error:
            log.debug("endpoint=%s peer=%s: connection lost: %s", self.endpoint, self.peer, error.__cause__ or error)
        finally:
            self._ended.set()
            await trio.aclose_forcefully(self._transport)

    async def drain(self, drain_s: float) -> None:
        """Close if no request is under way, else when it is answered; at the latest after ``drain_s``."""
        self._is_draining = True
        if self._idle is not None:
            self._idle.cancel()
        with trio.move_on_after(drain_s):
            await self._ended.wait()
        self._scope.cancel()

    # -- inside

    async def _serve_one(self, wait_s: float) -> bool:
        """Serve the next request; whether another may follow. ``wait_s``: how long there may be none."""
        try:
            request = await self._request(wait_s)
            if request is None:
                return False
            await self._answer(await self._respond(request), is_head=request.method == "HEAD")
        except RefusedError as error:
            self._count_refused(error)
            if error.status and self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._answer(refusal(error.status, str(error)), is_last=True)
            return False
        if (self._h11.our_state, self._h11.their_state) != (h11.DONE, h11.DONE):
            return False
        self._h11.start_next_cycle()
        self._buffered = bool(self._h11.trailing_data[0])
        return not self._is_draining

    def _count_refused(self, error: RefusedError) -> None:
        if error.reason:
            self._metrics.refused.labels(self.endpoint, error.reason).inc()
            log.debug("endpoint=%s peer=%s refused: %s", self.endpoint, self.peer, error)

    async def _request(self, wait_s: float) -> HttpRequest | None:
        """The next request, whole; None if the client has ended instead.

        Raises:
            RefusedError: it is no request, too large or too slow.
        """
        limits = self._limits
        try:
            if not await self._something(wait_s):
                return None
            with trio.move_on_after(limits.head_s) as scope:
                head = await self._event()
            if scope.cancelled_caught:
                raise RefusedError(408, "silent", f"the request's head took longer than {limits.head_s:g} s")
            if not isinstance(head, h11.Request):
                return None
            return await self._whole(head)
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            raise RefusedError(status, "headers" if status == 431 else "protocol", str(error)) from None

    async def _whole(self, head: h11.Request) -> HttpRequest:
        limits = self._limits
        if head.http_version not in VERSIONS:
            raise RefusedError(505, "protocol", f"HTTP/{head.http_version.decode('ascii')} is not spoken here")
        if head.method == b"CONNECT":
            raise RefusedError(405, "protocol", "CONNECT is not served here")
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
        fields = dict(headers)
        try:
            host, path, query = split_target(head.target.decode("latin-1"), fields.get("host", ""))
        except ValueError as error:
            raise RefusedError(400, "protocol", str(error)) from None
        if int(fields.get("content-length", "0")) > limits.max_body_bytes:
            raise RefusedError(413, "protocol", f"the body is longer than {limits.max_body_bytes} bytes")
        body = bytearray()
        with trio.move_on_after(limits.body_s) as scope:
            while isinstance(event := await self._event(), h11.Data):
                body += event.data
                if len(body) > limits.max_body_bytes:
                    raise RefusedError(413, "protocol", f"the body is longer than {limits.max_body_bytes} bytes")
        if scope.cancelled_caught:
            raise RefusedError(408, "silent", f"the request's body took longer than {limits.body_s:g} s")
        return HttpRequest(head.method.decode("ascii"), path, query, host, headers, bytes(body), self.peer)

    async def _something(self, wait_s: float) -> bool:
        """Wait for the first bytes of a request; False if none will come."""
        if self._buffered:
            return True
        with trio.move_on_after(wait_s) as self._idle:
            if self._is_draining:
                return False
            data = await self._transport.receive_some(READ_BYTES)
            self._h11.receive_data(bytes(data))
            return bool(data)
        self._idle = None
        return False

    async def _event(self) -> object:
        """h11's next event; reads what it takes."""
        self._idle = None
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            if self._h11.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await self._transport.send_all(self._h11.send(go_on) or b"")
            self._h11.receive_data(bytes(await self._transport.receive_some(READ_BYTES)))
        return event

    async def _answer(self, response: HttpResponse, *, is_head: bool = False, is_last: bool = False) -> None:
        fields = response_fields(response, is_head=is_head)
        if is_last or self._is_draining:
            fields.append((b"connection", b"close"))
        out = self._h11.send(h11.Response(status_code=response.status, headers=fields)) or b""
        if response.body and not is_head:
            out += self._h11.send(h11.Data(data=response.body)) or b""
        out += self._h11.send(h11.EndOfMessage()) or b""
        self._metrics.http_requests.labels(self.endpoint, str(response.status)).inc()
        with trio.move_on_after(self._limits.response_s) as scope:
            await self._transport.send_all(out)
        if scope.cancelled_caught:
            raise RefusedError(0, "silent", f"the client did not take its answer within {self._limits.response_s:g} s")

    async def _linger(self) -> None:
        """Say the end, and read what is still under way, so that a reset does not overtake the answer."""
        with trio.move_on_after(LINGER_S):
            if isinstance(self._transport, trio.abc.HalfCloseableStream):
                await self._transport.send_eof()
            if self._h11.their_state in (h11.ERROR, h11.SEND_BODY):  # it was refused while it was being sent
                while await self._transport.receive_some(READ_BYTES):
                    pass
        with trio.move_on_after(LINGER_S):
            await self._transport.aclose()  # over TLS, with a close_notify
