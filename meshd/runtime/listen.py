"""TCP listening: errors that name the setting, and an accept loop where a connection's failure costs only itself."""

import errno
import logging
from collections.abc import Awaitable, Callable

import trio

from meshd.model.errors import MeshdError

log = logging.getLogger(__name__)

CAPACITY_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""accept(2) fails so when the process or the machine is out of something; it passes, the listener stays."""
CAPACITY_PAUSE_S = 0.1
PASSING_ERRNOS = frozenset({errno.ECONNABORTED, errno.EPROTO})
"""accept(2) fails so for a connection that is gone before it was accepted."""
BACKLOG = 1024
WEATHER = (trio.BrokenResourceError, trio.ClosedResourceError, OSError, trio.TooSlowError)
"""What a peer or the network can do to a connection; no news for an operator."""


class ListenError(MeshdError):
    """A configured address cannot be listened on; the message names the setting and the address."""


async def open_listeners(host: str, port: int, setting: str) -> list[trio.SocketListener]:
    """Listen on ``host:port``; ``setting`` is the configuration key to name when that fails.

    The caller owns the listeners. ``port`` 0 lets the kernel choose. ``::`` takes IPv4 as well.

    Raises:
        ListenError: in use, not an address of this host, or not permitted.
    """
    try:
        if host == "::":
            return [await both_families(port)]
        return await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as error:
        raise ListenError(why_not(error, f"{host}:{port}", setting)) from error


async def both_families(port: int) -> trio.SocketListener:
    """Listens on all addresses of IPv6 and IPv4 by one socket; Trio's own way leaves IPv4 out.

    Raises:
        OSError: it cannot.
    """
    sock = trio.socket.socket(trio.socket.AF_INET6, trio.socket.SOCK_STREAM)
    try:
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
        sock.setsockopt(trio.socket.IPPROTO_IPV6, trio.socket.IPV6_V6ONLY, 0)
        await sock.bind(("::", port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(sock)


def why_not(error: OSError, address: str, setting: str) -> str:
    """The sentence for an operator about a bind(2) that failed on ``address``."""
    match error.errno:
        case errno.EADDRINUSE:
            reason = "is in use by another process; stop it or choose another port"
        case errno.EADDRNOTAVAIL:
            reason = "is not an address of this host; use one that is, or 0.0.0.0 for all"
        case errno.EACCES | errno.EPERM:
            reason = "is not permitted for this user (ports below 1024 need CAP_NET_BIND_SERVICE)"
        case _:
            reason = f"cannot be listened on: {error}"
    return f"{setting}: {address} {reason}"


async def accept(listener: trio.SocketListener, name: str) -> trio.SocketStream:
    """The next connection, however long there is none or no capacity for one; ``name`` says in the log who waits."""
    while True:
        try:
            return await listener.accept()
        except OSError as error:
            if error.errno in CAPACITY_ERRNOS:
                log.warning("%s: out of capacity while accepting: %s", name, error)
                await trio.sleep(CAPACITY_PAUSE_S)
            elif error.errno not in PASSING_ERRNOS:
                raise


async def accept_loop(
    listener: trio.SocketListener,
    handler: Callable[[trio.SocketStream], Awaitable[None]],
    nursery: trio.Nursery,
    *,
    name: str,
    limit: int,
    on_event: Callable[[str], None],
) -> None:
    """Accept until cancelled; each connection runs ``handler`` in ``nursery`` and is closed when that returns.

    The nursery is the caller's, so that a drain can outlive the accepting. At most ``limit`` connections are open;
    one above it is closed at once. ``on_event`` is told ``accepted``, ``refused`` (limit), ``failed`` (a bug, logged).
    """
    open_now = 0

    async def one(stream: trio.SocketStream) -> None:
        nonlocal open_now
        try:
            async with stream:
                await handler(stream)
        except* WEATHER as group:
            log.debug("%s: connection ended: %s", name, group.exceptions)
        except* Exception:  # request edge: a bug here costs one connection
            on_event("failed")
            log.exception("%s: a connection failed", name)
        finally:
            open_now -= 1

    while True:
        stream = await accept(listener, name)
        if open_now >= limit:
            on_event("refused")
            stream.socket.close()
            continue
        on_event("accepted")
        open_now += 1
        nursery.start_soon(one, stream)
