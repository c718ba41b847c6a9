"""Asks an Envoy's admin interface: a Unix socket that only its user can open, or the part of it that a listener shows.

Of that listener see ``xds.admin``: it wants the certificate of the control plane, and shows one of its own.
"""

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import h11
import trio

from meshd.envoy.admin import (
    CONNECTIONS,
    LISTENERS,
    ServerInfo,
    node_id,
    open_connections,
    parse_listeners,
    parse_server_info,
    redacted,
)
from meshd.model.errors import UnavailableError

CONNECT_S = 3.0
"""For the connection with TLS (Kuma's limit): a host that is silent is told of so soon."""
TIMEOUT_S = 5.0
"""For the answer, once there is a connection."""
MAX_ANSWER = 1 << 23
"""Bytes of an answer. The longest is that about listeners: some 200 bytes for each, and there are a few thousand."""
MAX_DUMP = 1 << 26
"""Bytes of what people ask for: a proxy with thousands of outbounds has some ten megabytes of configuration."""
CHUNK = 1 << 16
WEATHER = (
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
    h11.ProtocolError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class AtSocket:
    """The admin interface itself."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    async def open(self) -> trio.abc.Stream:
        """A connection."""
        return await trio.open_unix_socket(str(self.path))


@dataclass(frozen=True, slots=True)
class AtListener:
    """The listener of a proxy that lets the control plane read its admin interface; ``address`` is an IP address.

    ``server_name`` is what it must be called in its certificate.
    """

    address: str
    port: int
    server_name: str
    context: ssl.SSLContext = field(repr=False)

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    async def open(self) -> trio.abc.Stream:
        """A connection on which both have shown who they are."""
        tcp = await trio.open_tcp_stream(self.address, self.port)
        stream = trio.SSLStream(tcp, self.context, server_hostname=self.server_name, https_compatible=True)
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream


class Admin:
    """The admin interface at a place. A connection a question: they are few, and Envoy may be another next time."""

    def __init__(self, at: AtSocket | AtListener) -> None:
        self._at = at

    async def server_info(self) -> ServerInfo:
        """What runs there and how it does.

        Raises:
            UnavailableError: nobody answers in time, or not as Envoy does; as from all methods.
        """
        try:
            return parse_server_info(await self._ask("GET", "/server_info"))
        except ValueError as error:
            raise self._unavailable("/server_info", error) from error

    async def open_connections(self) -> int:
        """How many connections its listeners have."""
        return open_connections(await self._ask("GET", CONNECTIONS))

    async def listeners(self) -> frozenset[str]:
        """The names of the listeners that take connections."""
        try:
            return parse_listeners(await self._ask("GET", LISTENERS))
        except ValueError as error:
            raise self._unavailable(LISTENERS, error) from error

    async def node_id(self) -> str:
        """Which proxy it is."""
        try:
            return node_id(await self._ask("GET", "/server_info"))
        except ValueError as error:
            raise self._unavailable("/server_info", error) from error

    async def config_dump(self, *, include_eds: bool) -> bytes:
        """Its whole configuration as JSON, without secrets."""
        target = "/config_dump?include_eds" if include_eds else "/config_dump"
        body = await self._ask("GET", target, MAX_DUMP)
        try:
            return await trio.to_thread.run_sync(redacted, body)
        except ValueError as error:
            raise self._unavailable(target, error) from error

    async def stats(self, *, as_json: bool, used_only: bool) -> bytes:
        """Its statistics; ``used_only``: those that something was counted in."""
        wanted = [*(["format=json"] if as_json else []), *(["usedonly"] if used_only else [])]
        return await self._ask("GET", "/stats" + ("?" + "&".join(wanted) if wanted else ""), MAX_DUMP)

    async def clusters(self, *, as_json: bool) -> bytes:
        """Its clusters and their endpoints."""
        return await self._ask("GET", "/clusters?format=json" if as_json else "/clusters", MAX_DUMP)

    async def fail_health_check(self) -> None:
        """Make it tell HTTP clients to go elsewhere, with each answer."""
        await self._ask("POST", "/healthcheck/fail")

    async def pass_health_check(self) -> None:
        """Take back ``fail_health_check``."""
        await self._ask("POST", "/healthcheck/ok")

    async def close_listeners(self) -> None:
        """Make it take no more connections; those it has go on."""
        await self._ask("POST", "/drain_listeners")

    async def set_log_level(self, level: str) -> None:
        """Change the log level of everything in it."""
        await self._ask("POST", f"/logging?level={level}")

    async def reopen_log(self) -> None:
        """Make it open its log again, by name."""
        await self._ask("POST", "/reopen_logs")

    async def _ask(self, method: str, target: str, limit: int = MAX_ANSWER) -> bytes:
        try:
            with trio.fail_after(CONNECT_S):
                stream = await self._at.open()
            async with stream:
                with trio.fail_after(TIMEOUT_S):
                    return await _exchange(stream, method, target, limit)
        except WEATHER as error:
            raise self._unavailable(target, error) from error

    def _unavailable(self, target: str, error: Exception) -> UnavailableError:
        return UnavailableError(f"admin interface {self._at}: {target}: {reason_of(error)}")


def reason_of(error: BaseException) -> str:
    """What went wrong, in words: the innermost that says anything, for trio's own errors do not."""
    cause = error.__cause__
    if isinstance(error, BaseExceptionGroup):
        return reason_of(error.exceptions[0])
    if cause is not None and isinstance(error, OSError | trio.BrokenResourceError) and not getattr(error, "errno", 0):
        return reason_of(cause)
    match error:
        case trio.TooSlowError():
            return "no answer"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not the one that this control plane gave it: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
        case OSError() if error.errno:
            return os.strerror(error.errno).lower()  # trio puts the whole place into its own words
    return str(error) or type(error).__name__


async def _exchange(stream: trio.abc.Stream, method: str, target: str, limit: int) -> bytes:
    """Send one request; the body of the answer.

    Raises:
        ValueError: the status is not 200, or the body is too long.
    """
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(method=method, target=target, headers=[("host", "envoy"), ("content-length", "0")])
    await stream.send_all((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    body, status = bytearray(), 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = bytes(await stream.receive_some(CHUNK))
            if not data and not status:
                raise ValueError("the connection ended early")
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > limit:
                raise ValueError(f"more than {limit} bytes")
        elif isinstance(event, h11.EndOfMessage):
            if status != 200:
                raise ValueError(f"status {status}: {body[:80].decode(errors='replace')}")
            return bytes(body)
