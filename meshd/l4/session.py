"""One accepted connection, from its first byte to its last: whether it may come in, and where it leads."""

import logging
import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from meshd.ca.identity import KUMA_ALPN, Credentials
from meshd.l4.choose import Balancer, Pick
from meshd.l4.client import Applications, Dialer, Resolver
from meshd.l4.client_hello import ClientHello, ClientHelloReader
from meshd.l4.denials import Denials
from meshd.l4.metrics import Metrics, Series
from meshd.l4.relay import Buffers, Connection, Leg, PlainLeg, TlsLeg, abort, receive_some, relay, tune
from meshd.l4.table import (
    Cluster,
    ExternalRoute,
    IdentityKey,
    InboundListener,
    OutboundListener,
    Permit,
    SniListener,
    Spec,
    TlsMode,
    VipListener,
    permit_now,
)
from meshd.l4.tls import Tls, TlsError, check_client
from meshd.l4.upstream import Upstreams
from meshd.model.errors import DeniedError, PeerError, UnavailableError

log = logging.getLogger(__name__)

HELLO_CHUNK = 16 * 1024
WELCOMED = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """What one engine gives away, and how long it waits, in seconds.

    ``hello_s`` bounds the client's ClientHello and its TLS handshake. ``silence_s`` is how long a permissive inbound
    waits for a client that speaks first; one that does not is taken for plaintext. ``idle_s`` is Kuma's for TCP.
    ``drain_s`` is what connections of a listener that is gone, or of an engine that stops, have left.
    """

    connections: int = 20_000
    listener_connections: int = 10_000
    hello_s: float = 10.0
    silence_s: float = 3.0
    application_s: float = 10.0
    idle_s: float = 7200.0
    drain_s: float = 10.0


@dataclass(eq=False, slots=True)
class Bound:
    """A listening socket; ``spec`` is replaced when the table changes, the socket and its connections stay."""

    spec: Spec
    name: str
    socket: socket.socket
    accepting: trio.CancelScope = field(default_factory=trio.CancelScope)
    connections: set[Connection] = field(default_factory=set)
    welcome: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """Addresses of clients that were let in last, see ``Sessions._inbound``."""


class Sessions:
    """The connections of one proxy.

    ``credentials`` gives what is in force for an identity now.
    """

    def __init__(
        self,
        proxy: str,
        credentials: Callable[[IdentityKey], Credentials],
        balancer: Balancer,
        metrics: Metrics,
        limits: Limits,
        resolver: Resolver,
    ) -> None:
        self._proxy = proxy
        self._metrics = metrics
        self._limits = limits
        self._buffers = Buffers()
        dialer = Dialer(self._buffers, resolver)
        self._denials = Denials()
        self._open = 0
        self.series = Series(metrics)
        self.applications = Applications(dialer, limits.application_s)
        self.upstreams = Upstreams(proxy, credentials, balancer, dialer, metrics, self.series)

    @property
    def open_connections(self) -> int:
        """How many there are now."""
        return self._open

    async def carry(self, bound: Bound, sock: socket.socket) -> None:
        """Serve a connection that was accepted at ``bound`` until it ends; raises nothing but cancellation."""
        connection = Connection(trio.CancelScope())
        bound.connections.add(connection)
        self._open += 1
        self.series.child(self._metrics.open, self._proxy, bound.name).inc()
        try:
            with connection.scope:
                tune(sock)
                await self._serve(bound, connection, sock)
            if connection.scope.cancelled_caught and not connection.is_cut:
                # By its deadline, maybe in the middle of an answer: "done" would close it as if that had been all.
                connection.outcome = "drained"
        except (DeniedError, UnavailableError, PeerError, OSError, trio.TooSlowError, ValueError) as error:
            if connection.outcome == "done":
                connection.outcome = outcome_of(error)
            log.debug("%s: %s: connection ended: %s", self._proxy, bound.name, error)
        except Exception:  # request edge: a bug here costs one connection
            connection.outcome = "failed"
            log.exception("%s: %s: a connection failed", self._proxy, bound.name)
        except BaseException:  # Cancelled, by itself or in a group of a nursery's: the engine stops
            connection.outcome = "drained"
            raise
        finally:
            if connection.outcome == "done":
                sock.close()
            else:
                abort(sock)
            bound.connections.discard(connection)
            self._open -= 1
            self.series.child(self._metrics.open, self._proxy, bound.name).dec()
            self.series.child(self._metrics.connections, self._proxy, bound.name, connection.outcome).inc()
            self.series.child(self._metrics.received, self._proxy, bound.name).inc(connection.received)
            self.series.child(self._metrics.sent, self._proxy, bound.name).inc(connection.sent)

    async def _serve(self, bound: Bound, connection: Connection, sock: socket.socket) -> None:
        match bound.spec:
            case InboundListener() as spec:
                await self._inbound(bound, spec, connection, sock)
            case OutboundListener() as spec:
                await self._outbound(bound, spec.cluster, connection, PlainLeg(sock))
            case VipListener() as spec:
                address, peer = sock.getsockname()[0], sock.getpeername()[0]
                cluster = spec.clusters.get(address)
                if cluster is None:
                    raise LookupFailedError(f"{address} is no VIP with port {spec.port}")
                if peer != address and not is_here(peer):
                    # A neighbour can send us packets for a VIP, and would speak with this host's identity.
                    raise DeniedError(f"{peer} is another host; the VIPs here are for this one")
                await self._outbound(bound, cluster, connection, PlainLeg(sock))
            case SniListener() as spec:
                await self._by_sni(bound, spec, connection, sock)

    async def _inbound(self, bound: Bound, spec: InboundListener, connection: Connection, sock: socket.socket) -> None:
        if self.applications.is_dead(spec.application):
            # Before any handshake, so that the client moves on to another instance.
            raise UnavailableError(f"application {spec.application} refuses connections")
        raw, is_mesh = b"", spec.tls is TlsMode.STRICT
        if spec.tls is TlsMode.PERMISSIVE:
            raw, is_mesh = await self._peek(sock)
        if not is_mesh:
            newest = bound.spec
            if isinstance(newest, InboundListener) and newest.tls is TlsMode.STRICT:
                raise DeniedError("plaintext, which is not taken any more")
            connection.is_plaintext = True
            application = await self.applications.connect(spec.application)
            await self._relay(connection, PlainLeg(sock, raw), PlainLeg(application))
            return
        # After the handshake the client may not move on any more. So where it was let in before, the application is
        # asked first; a stranger must prove itself before the application hears of it.
        peer = str(sock.getpeername()[0])
        asked = await self.applications.connect(spec.application) if peer in bound.welcome else None
        try:
            client = await self._admit(bound, spec, connection, sock, raw)
        except BaseException:
            bound.welcome.pop(peer, None)
            if asked is not None:
                asked.close()
            raise
        bound.welcome[peer] = None
        if len(bound.welcome) > WELCOMED:
            bound.welcome.popitem(last=False)
        await self._relay(connection, client, PlainLeg(asked or await self.applications.connect(spec.application)))

    async def _peek(self, sock: socket.socket) -> tuple[bytes, bool]:
        """What a client of a permissive inbound sent first, and whether that opens mesh mTLS."""
        reader = ClientHelloReader()
        hello: ClientHello | None = None
        began = trio.current_time()
        with trio.move_on_at(began + self._limits.silence_s) as scope:
            while hello is None:
                count = await receive_some(sock, self._buffers.plain[:HELLO_CHUNK])
                if not count:
                    break
                # It does speak first: a ClientHello that is slow is one all the same.
                scope.deadline = began + self._limits.hello_s
                try:
                    hello = reader.feed(self._buffers.plain[:count])
                except ValueError:
                    break
        return bytes(reader.raw), hello is not None and KUMA_ALPN.encode() in hello.alpn

    async def _admit(
        self,
        bound: Bound,
        spec: InboundListener | ExternalRoute,
        connection: Connection,
        sock: socket.socket,
        raw: bytes,
    ) -> TlsLeg:
        """Complete mTLS with a client whose first bytes are ``raw`` and check that it may come in."""
        if spec.identity is None or spec.permit is None:
            raise UnavailableError("no identity")
        tls = Tls(self.upstreams.context(spec.identity, server_side=True), server_side=True)
        tls.feed(raw)
        client = TlsLeg(sock, tls, self._buffers)
        with trio.fail_after(self._limits.hello_s):
            await client.handshake()
        uris = tls.peer_uris()
        check_client(uris, spec.identity.mesh)
        # Judged by the newest spec: a permission may have been withdrawn during the handshake.
        connection.uris = uris
        permit = permit_now(bound.spec, connection.sni)
        if permit is None and isinstance(bound.spec, SniListener):
            raise LookupFailedError(f"the route of SNI {connection.sni[:300]!r} is gone")
        self._judge(bound, permit or spec.permit, uris)
        return client

    def _judge(self, bound: Bound, permit: Permit, uris: tuple[str, ...]) -> None:
        verdict = permit.decide(uris)
        word = "shadow_denied" if verdict.shadow_denied else "allowed"
        if not verdict.allowed:
            word = "denied"
        self.series.child(self._metrics.verdicts, self._proxy, bound.name, verdict.rule, word).inc()
        if not verdict.allowed:
            if line := self._denials.line(bound.name, uris, verdict.rule or "default", trio.current_time()):
                log.info("%s: %s", self._proxy, line)
            raise DeniedError(f"{uris[0] if uris else 'nobody'} is denied by {verdict.rule or 'default'}")

    async def _outbound(self, bound: Bound, cluster: Cluster, connection: Connection, client: Leg) -> None:
        upstream, pick = await self.upstreams.open(bound.name, cluster)
        await self._relay(connection, client, upstream, (cluster, pick))

    async def _by_sni(self, bound: Bound, spec: SniListener, connection: Connection, sock: socket.socket) -> None:
        reader = ClientHelloReader()
        hello: ClientHello | None = None
        with trio.fail_after(self._limits.hello_s):
            while hello is None:
                count = await receive_some(sock, self._buffers.plain[:HELLO_CHUNK])
                if not count:
                    raise PeerError("closed before a ClientHello was complete")
                hello = reader.feed(self._buffers.plain[:count])
        connection.sni = hello.server_name or b""
        raw = bytes(reader.raw)
        match spec.find(connection.sni):
            case None:
                raise LookupFailedError(f"no route for SNI {connection.sni[:300]!r}")
            case ExternalRoute() as route:
                client = await self._admit(bound, route, connection, sock, raw)
                await self._outbound(bound, route.cluster, connection, client)
            case Cluster() as cluster:
                await self._passthrough(bound, cluster, connection, sock, raw)

    async def _passthrough(
        self, bound: Bound, cluster: Cluster, connection: Connection, sock: socket.socket, raw: bytes
    ) -> None:
        upstream, pick = await self.upstreams.pass_on(bound.name, cluster, raw)
        connection.received += len(raw)
        await self._relay(connection, PlainLeg(sock), upstream, (cluster, pick))

    async def _relay(
        self, connection: Connection, client: Leg, upstream: Leg, route: tuple[Cluster, Pick] | None = None
    ) -> None:
        labels = connection.upstream = self.upstreams.labels(route[0], route[1].path) if route else ()
        if labels:
            self.series.child(self._metrics.upstream_open, *labels).inc()
        try:
            await relay(connection, client, upstream, self._buffers.plain)
        finally:
            if labels:
                self.series.child(self._metrics.upstream_open, *labels).dec()
                self.series.child(self._metrics.upstream_sent, *labels).inc(connection.received)
                self.series.child(self._metrics.upstream_received, *labels).inc(connection.sent)


class LookupFailedError(PeerError):
    """The client asks for something that has no route here."""


def outcome_of(error: Exception) -> str:
    """The label under which a connection that ended early is counted."""
    match error:
        case DeniedError():
            return "denied"
        case LookupFailedError():
            return "unroutable"
        case TlsError() | ValueError() | PeerError():
            return "tls"
        case UnavailableError():
            return "unavailable"
        case trio.TooSlowError():
            return "slow"
        case _:
            return "reset"


def is_here(address: str) -> bool:
    """Whether an IP address is one of this host's: nobody can bind another."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True
