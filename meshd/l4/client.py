"""Opening the upstream end of a connection: names, TCP, TLS, and which endpoint works."""

import contextlib
import errno
import math
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, ip_address
from typing import Any

import trio

from meshd.l4.choose import Balancer, Pick
from meshd.l4.keeper import AddressFile
from meshd.l4.relay import Buffers, Leg, PlainLeg, TlsLeg, send_all, tune
from meshd.l4.table import Cluster, Path
from meshd.l4.tls import Tls, TlsError, TruncatedError
from meshd.model.errors import UnavailableError
from meshd.runtime.listen import CAPACITY_ERRNOS
from meshd.topology.view import Endpoint

RESOLVED_FOR_S = 30.0
"""getaddrinfo gives no TTL; this is what we answer for ``.mesh`` names too."""

PATIENCE_S = 2.0
"""How long a lookup may take where it is known what the name stood for before."""

OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})
"""What connecting fails with when this host has run out of something: no endpoint is to blame."""

Ask = Callable[[str], Awaitable[Sequence[str]]]
"""Gives the IP addresses of a name as the world knows it, none if there are none."""


class Resolver:
    """Addresses of names, looked up in a worker thread and kept for a while; literal addresses pass through.

    When a lookup fails, or takes long, what it gave before is used again: an endpoint does not vanish with a resolver.
    With ``kept`` that holds over a restart as well.

    ``vips`` is the range of this zone's virtual IPs. The host's resolver answers with one for the host of an external
    service, which is right for applications; for us it would be a way back to ourselves, without end. Then ``ask``
    finds the real addresses, where those that know them can be asked.
    """

    def __init__(
        self, vips: IPv4Network | None = None, ask: Ask | None = None, kept: AddressFile | None = None
    ) -> None:
        self._vips = vips
        self._ask = ask
        self._kept = kept
        self._known: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._looking: dict[str, trio.Lock] = {}
        self._threads: dict[str, trio.CapacityLimiter] = {}

    async def addresses(self, host: str) -> tuple[str, ...]:
        """At least one IP address of ``host``, the resolver's preferred first.

        Raises:
            OSError: it has none, and never had; or only virtual IPs.
        """
        try:
            return (str(ip_address(host)),)
        except ValueError:
            pass
        async with self._looking.setdefault(host, trio.Lock()):
            expires, known = self._known.get(host, (0.0, ()))
            if known and trio.current_time() < expires:
                return known
            if not known and self._kept is not None:
                known = await self._kept.before(host)
            try:
                with trio.move_on_after(PATIENCE_S if known else math.inf):
                    known = await self._look_up(host)
                    if self._kept is not None:
                        await self._kept.learn(host, known)
            except OSError:
                if not known:
                    raise
            self._known[host] = (trio.current_time() + RESOLVED_FOR_S, known)
            return known

    async def _look_up(self, host: str) -> tuple[str, ...]:
        found = await trio.to_thread.run_sync(look_up, host, abandon_on_cancel=True, limiter=self._thread(host))
        addresses = dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found)
        real = tuple(a for a in addresses if not self._is_vip(a))
        if not real and self._ask is not None:
            real = tuple(a for a in await self._ask(host) if not self._is_vip(a))
        if not real:
            reason = f"'{host}' has only virtual IPs here ({', '.join(addresses)}), which lead back to this zone"
            raise OSError(errno.ELOOP, f"{reason}; set dnsServer.upstreams to servers that know its real addresses")
        return real

    def _is_vip(self, address: str) -> bool:
        found = ip_address(address)
        if isinstance(found, IPv6Address):
            return self._vips is not None and found.ipv4_mapped is not None and found.ipv4_mapped in self._vips
        return self._vips is not None and found in self._vips

    def _thread(self, host: str) -> trio.CapacityLimiter:
        """One thread a name, not one of those that the whole process shares.

        A lookup that nobody waits for any more still sits in its thread, for as long as a dead resolver takes.
        """
        return self._threads.setdefault(host, trio.CapacityLimiter(1))


def look_up(host: str) -> list[tuple[Any, ...]]:
    """What the host's resolver says; blocks.

    Raises:
        OSError: there is no such name, or no answer.
    """
    return list(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))


async def connect(address: str, port: int) -> socket.socket:
    """A connected, non-blocking TCP socket to a literal address; deadlines are the caller's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        tune(sock)
        try:
            sock.connect((address, port))
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, f"connect to {address}:{port}") from None
    except BaseException:
        sock.close()
        raise
    return sock


async def first_that_works(
    cluster: Cluster,
    listener: str,
    balancer: Balancer,
    attempt: Callable[[Endpoint, float, float], Awaitable[Leg]],
    tell: Callable[[Pick, str], None],
) -> tuple[Leg, Pick]:
    """Try the endpoints of ``cluster`` in turn until ``attempt`` succeeds on one.

    ``attempt`` gets the endpoint and how many seconds connecting and then answering may take. ``tell`` hears the
    outcome of each: ok, refused, eof, timeout, tls, error.

    Raises:
        UnavailableError: none worked; says why for each.
    """
    if cluster.refused:
        raise UnavailableError(f"service '{cluster.name}': {cluster.refused}")
    tried: set[Path] = set()
    reasons: list[str] = []
    while True:
        pick = balancer.next(listener, cluster, tried, trio.current_time())
        if pick is None:
            raise UnavailableError(f"service '{cluster.name}': {'; '.join(reasons) or 'no endpoints'}")
        tried.add(pick.path)
        limits = cluster.timeouts
        connect_s, answer_s = limits.connect_s, limits.handshake_s
        if pick.is_last:
            connect_s = answer_s = limits.patience_s
        try:
            leg = await attempt(pick.endpoint, connect_s, answer_s)
        except (OSError, TlsError, trio.TooSlowError) as error:
            if isinstance(error, OSError) and error.errno in OURS:
                balancer.abandoned(pick.path, trio.current_time())
                raise UnavailableError(f"service '{cluster.name}': this host is out of capacity: {error}") from error
            balancer.failed(pick.path, trio.current_time())
            tell(pick, outcome_of(error))
            reasons.append(f"{pick.path.address}:{pick.path.port} ({pick.path.zone or 'any zone'}): {text_of(error)}")
        except BaseException:
            balancer.abandoned(pick.path, trio.current_time())
            raise
        else:
            balancer.succeeded(pick.path)
            tell(pick, "ok")
            return leg, pick


def outcome_of(error: BaseException) -> str:
    """The label under which a failed attempt is counted."""
    match error:
        case trio.TooSlowError():
            return "timeout"
        case ConnectionRefusedError():
            return "refused"
        case TruncatedError() | EOFError() | ConnectionResetError() | BrokenPipeError():
            return "eof"
        case TlsError():
            return "eof" if isinstance(error.__cause__, ssl.SSLEOFError) else "tls"
        case _:
            return "error"


def text_of(error: BaseException) -> str:
    """What to say of a failed attempt."""
    return "timed out" if isinstance(error, trio.TooSlowError) else str(error) or type(error).__name__


class Dialer:
    """Opens upstream ends: the TCP connection, and TLS over it."""

    def __init__(self, buffers: Buffers, resolver: Resolver) -> None:
        self._buffers = buffers
        self._resolver = resolver

    async def tcp(self, host: str, port: int, connect_s: float) -> socket.socket:
        """Connect to the first address of ``host`` that takes it; one that is silent has its share of the time.

        Raises:
            OSError: none did, or there is none.
            trio.TooSlowError: ``connect_s`` is over.
        """
        with trio.fail_after(connect_s) as scope:
            *others, last = await self._resolver.addresses(host)
            for waiting, address in enumerate(others):
                share_s = (scope.deadline - trio.current_time()) / (len(others) + 1 - waiting)
                with trio.move_on_after(share_s), contextlib.suppress(OSError):
                    return await connect(address, port)
            return await connect(last, port)

    async def tls(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        server_name: bytes,
        check: Callable[[Tls], None],
        answer_s: float,
        *,
        lenient: bool = False,
    ) -> TlsLeg:
        """Complete a verified handshake as the client over ``sock``, which is closed if that fails.

        Raises:
            TlsError: it failed, or ``check`` refused the peer.
            OSError: the connection failed.
            trio.TooSlowError: ``answer_s`` is over.
        """
        try:
            leg = TlsLeg(sock, Tls(context, server_side=False, server_name=server_name), self._buffers, lenient=lenient)
            with trio.fail_after(answer_s):
                await leg.handshake()
            check(leg.tls)
        except BaseException:
            sock.close()
            raise
        return leg

    async def hello(self, sock: socket.socket, hello: bytes, answer_s: float) -> PlainLeg:
        """Send a ClientHello that is not ours and wait for the first byte back, which stays unread.

        Raises:
            OSError: the connection failed or ended instead.
            trio.TooSlowError: ``answer_s`` is over.
        """
        try:
            with trio.fail_after(answer_s):
                await send_all(sock, hello)
                while True:
                    try:
                        first = sock.recv(1, socket.MSG_PEEK)
                        break
                    except BlockingIOError:
                        await trio.lowlevel.wait_readable(sock)
        except BaseException:
            sock.close()
            raise
        if not first:
            sock.close()
            raise ConnectionResetError("closed after the ClientHello")
        return PlainLeg(sock)


class Applications:
    """Connects inbounds to their applications, and knows which of these refuse connections."""

    def __init__(self, dialer: Dialer, connect_s: float) -> None:
        self._dialer = dialer
        self._connect_s = connect_s
        self._dead: set[tuple[str, int]] = set()
        self._one_died = trio.Event()

    def is_dead(self, application: tuple[str, int]) -> bool:
        """Whether it refused a connection and has taken none since."""
        return application in self._dead

    def keep(self, known: Iterable[tuple[str, int]]) -> None:
        """Drop what is known of all others."""
        self._dead.intersection_update(known)

    async def connect(self, application: tuple[str, int]) -> socket.socket:
        """A connection to it.

        Raises:
            UnavailableError: it takes none, or not in time.
        """
        host, port = application
        try:
            return await self._dialer.tcp(host, port, self._connect_s)
        except (OSError, trio.TooSlowError) as error:
            if not isinstance(error, OSError) or error.errno not in CAPACITY_ERRNOS:
                self._dead.add(application)
                self._one_died.set()
            raise UnavailableError(f"application {host}:{port}: {error}") from error

    async def watch(self) -> None:
        """Look every second whether applications that refused connections take them again; sleeps while all do."""
        while True:
            await self._one_died.wait()
            await trio.sleep(1.0)
            for application in sorted(self._dead):
                try:
                    sock = await self._dialer.tcp(*application, 1.0)
                except (OSError, trio.TooSlowError):
                    continue
                sock.close()
                self._dead.discard(application)
            if not self._dead:
                self._one_died = trio.Event()
