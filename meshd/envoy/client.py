"""Asks an Envoy's admin interface, which is a Unix socket that only this user can open."""

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

TIMEOUT_S = 5.0
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


class Admin:
    """The admin interface at ``socket``. A connection a question: they are few, and Envoy may be another next time."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def server_info(self) -> ServerInfo:
        """What runs there and how it does.

        Raises:
            UnavailableError: nobody answers in five seconds, or not as Envoy does; as from all methods.
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
            with trio.fail_after(TIMEOUT_S):
                stream = await trio.open_unix_socket(str(self._socket))
                async with stream:
                    return await _exchange(stream, method, target, limit)
        except WEATHER as error:
            raise self._unavailable(target, error) from error

    def _unavailable(self, target: str, error: Exception) -> UnavailableError:
        reason = "no answer" if isinstance(error, trio.TooSlowError) else str(error) or type(error).__name__
        return UnavailableError(f"admin interface {self._socket}: {target}: {reason}")


async def _exchange(stream: trio.abc.Stream, method: str, target: str, limit: int) -> bytes:
    """Send one request; the body of the answer.

    Raises:
        ValueError: the status is not 200, or the body is too long.
    """
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(method=method, target=target, headers=[("host", "envoy"), ("content-length", "0")])
    await stream.send_all((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    body, status = b"", 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(CHUNK)))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > limit:
                raise ValueError(f"more than {limit} bytes")
        elif isinstance(event, h11.EndOfMessage):
            if status != 200:
                raise ValueError(f"status {status}: {body[:80].decode(errors='replace')}")
            return body
        elif isinstance(event, h11.ConnectionClosed):
            raise ValueError("the connection ended early")
