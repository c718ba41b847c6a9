"""Accepts connections by the route table in force and carries them. A slow, dead or hostile peer costs only itself."""

import contextlib
import errno
import logging
import socket
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

import trio
from prometheus_client import Counter, Gauge

from meshd.ca.identity import Credentials, Identity, TrustBundle
from meshd.l4.choose import Balancer, Pick
from meshd.l4.client import (
    Buffers,
    Dialer,
    Leg,
    PlainLeg,
    Resolver,
    TlsLeg,
    abort,
    first_that_works,
    receive_some,
    tune,
)
from meshd.l4.client_hello import ClientHello, ClientHelloReader
from meshd.l4.denials import Denials
from meshd.l4.metrics import UPSTREAM, Metrics
from meshd.l4.table import (
    KUMA_ALPN,
    Cluster,
    ExternalRoute,
    IdentityKey,
    InboundListener,
    OutboundListener,
    Path,
    Permit,
    RouteTable,
    SniListener,
    Spec,
    TlsMode,
    VipListener,
    clusters_of,
    kind_of,
    permit_now,
)
from meshd.l4.tls import Contexts, Tls, TlsError, check_client, check_server
from meshd.model.errors import DeniedError, PeerError, UnavailableError
from meshd.runtime.listen import CAPACITY_ERRNOS, CAPACITY_PAUSE_S, why_not
from meshd.topology.view import BoundVips, Endpoint, Reach

log = logging.getLogger(__name__)

TURNS = 8
"""Small chunks that one direction moves before it lets others run even if it never had to wait."""

TURN_BYTES = 256 * 1024
"""And so many bytes: half a millisecond under TLS. Eight times as many made new connections wait six times as long
beside one bulk transfer (66 ms against 10), and moved nothing faster."""

BACKLOG = 4096
WILDCARD = "0.0.0.0"  # noqa: S104  # the VIP listener's; other local addresses have no route on it
HELLO_CHUNK = 16 * 1024
WELCOMED = 4096
WHEELS_KEPT = 64
"""So many states of round robin are not worth looking whether their listeners are still there."""

SERIES_KEPT = 512
"""So many series are not worth looking whether their listeners and upstreams are still there."""

MetricT = TypeVar("MetricT", Counter, Gauge)
Address = tuple[str, int]


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
class Connection:
    """One accepted connection. ``uris`` are the client's, None while it has shown none; ``sni`` chose its route.

    ``upstream`` are the labels of the upstream that it is counted at, empty while it has none.
    """

    scope: trio.CancelScope
    outcome: str = "done"
    is_cut: bool = False
    uris: tuple[str, ...] | None = None
    sni: bytes = b""
    upstream: tuple[str, ...] = ()
    is_plaintext: bool = False
    received: int = 0
    sent: int = 0
    seen: int = -1
    ended: set[str] = field(default_factory=set)

    def end(self, outcome: str) -> None:
        """Cut it now, for this reason."""
        self.outcome = outcome
        self.is_cut = True
        self.scope.cancel()


@dataclass(eq=False, slots=True)
class Bound:
    """A listening socket; ``spec`` is replaced when the table changes, the socket and its connections stay."""

    spec: Spec
    name: str
    socket: socket.socket
    accepting: trio.CancelScope = field(default_factory=trio.CancelScope)
    connections: set[Connection] = field(default_factory=set)
    welcome: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """Addresses of clients that were let in last, see ``Server._inbound``."""


class Server:
    """The listeners and connections of one proxy.

    ``credentials`` gives what is in force for an identity now. Connections live in ``nursery``, which outlives
    ``accepting`` (the nursery of accept loops) by the drain.
    """

    def __init__(
        self,
        proxy: str,
        credentials: Callable[[IdentityKey], Credentials],
        balancer: Balancer,
        metrics: Metrics,
        limits: Limits,
        resolver: Resolver | None = None,
    ) -> None:
        self._proxy = proxy
        self._credentials = credentials
        self._balancer = balancer
        self._metrics = metrics
        self._limits = limits
        self._buffers = Buffers()
        self._dialer = Dialer(self._buffers, resolver or Resolver())
        self._contexts = Contexts()
        self._bound: dict[Address, Bound] = {}
        self._draining: set[Bound] = set()
        self._failed: dict[Address, str] = {}
        self._denials = Denials()
        self._dead_applications: set[Address] = set()
        self._an_application_died = trio.Event()
        self._open = 0
        self._wheels_kept = WHEELS_KEPT
        self._series_kept = SERIES_KEPT
        self._children: dict[tuple[Counter | Gauge, tuple[str, ...]], Counter | Gauge] = {}

    # ---- listeners

    def apply(self, table: RouteTable, accepting: trio.Nursery, nursery: trio.Nursery) -> bool:
        """Make the listeners those of ``table``; False if some could not be bound (say it again later).

        New ones open, gone ones drain, the others go on with their new routes; connections that their listener no
        longer allows are cut.
        """
        wanted = self._wanted(table)
        for address in [a for a in self._bound if a not in wanted]:
            self._drain(address)
        failed: dict[Address, str] = {}
        for address, spec in wanted.items():
            bound = self._bound.get(address)
            if bound is not None:
                before, bound.spec = bound.spec, spec
                recheck(bound, before)
                continue
            try:
                sock = listen(address)
            except OSError as error:
                failed[address] = why_not(error, f"{address[0]}:{address[1]}", f"{self._proxy}: {kind_of(spec)}")
                continue
            self._start(address, spec, sock, accepting, nursery)
        for address, reason in failed.items():
            if self._failed.get(address) != reason:
                log.error("%s", reason)
        self._failed = failed
        self._child(self._metrics.listeners, self._proxy, "bound").set(len(self._bound))
        self._child(self._metrics.listeners, self._proxy, "failed").set(len(failed))
        self._forget(table)
        if len(self._children) > 2 * self._series_kept:
            self._forget_series()
        return not failed

    def _wanted(self, table: RouteTable) -> dict[Address, Spec]:
        specs: list[InboundListener | OutboundListener | SniListener] = [
            *table.inbounds,
            *table.outbounds,
            *table.sni,
        ]
        wanted: dict[Address, Spec] = {(s.address, s.port): s for s in specs}
        for vip in table.vips:
            everywhere = (WILDCARD, vip.port)
            is_shared = vip.own_sockets or any(s.port == vip.port for s in specs)
            if not is_shared and (everywhere in self._bound or can_listen(everywhere)):
                wanted[everywhere] = vip
            else:  # something else holds the port somewhere: a socket per VIP still works
                wanted |= {(address, vip.port): vip for address in vip.clusters if (address, vip.port) not in wanted}
        return wanted

    def _start(
        self, address: Address, spec: Spec, sock: socket.socket, accepting: trio.Nursery, nursery: trio.Nursery
    ) -> None:
        host, port = address
        bound = Bound(spec, f"{kind_of(spec)}:{host}:{port}", sock)
        self._bound[address] = bound
        log.info("%s: listening on %s", self._proxy, bound.name)
        accepting.start_soon(self._accept, bound, nursery)

    def _drain(self, address: Address) -> None:
        bound = self._bound.pop(address)
        bound.accepting.cancel()
        # At once: a new listener may want the address in this very turn.
        trio.lowlevel.notify_closing(bound.socket)
        bound.socket.close()
        deadline = trio.current_time() + self._limits.drain_s
        for connection in bound.connections:
            connection.scope.deadline = min(connection.scope.deadline, deadline)
        self._draining = {b for b in self._draining | {bound} if b.connections}
        log.info("%s: stopped listening on %s, %d connections left", self._proxy, bound.name, len(bound.connections))

    def _forget(self, table: RouteTable) -> None:
        """Drop what is known of endpoints and listeners that are not in the table."""
        self._dead_applications &= {i.application for i in table.inbounds}
        services = self._balancer.ejected_services()
        if not services and self._balancer.wheels <= 2 * self._wheels_kept:
            return  # walking through all destinations for nothing
        paths, listeners = set(), set()
        for bound in self._bound.values():
            for cluster in clusters_of(bound.spec):
                listeners.add((bound.name, cluster.mesh, cluster.name))
                if (cluster.mesh, cluster.name) in services:
                    paths |= {cluster.path(e) for e in cluster.endpoints}
        self._balancer.keep(paths, listeners)
        self._wheels_kept = max(WHEELS_KEPT, self._balancer.wheels)

    def _forget_series(self) -> None:
        """Drop the series of listeners and upstreams that are gone, but not of those with a connection left.

        Done when there are twice as many as were left the last time: walking through all destinations costs.
        """
        live = [*self._bound.values(), *(bound for bound in self._draining if bound.connections)]
        listeners = {bound.name for bound in live}
        upstreams = {connection.upstream for bound in live for connection in bound.connections}
        for bound in self._bound.values():
            for cluster in clusters_of(bound.spec):
                upstreams |= {self._upstream_labels(cluster, cluster.path(e)) for e in cluster.endpoints}
        for metric, labels in list(self._children):
            if metric in self._metrics.of_upstreams:
                is_gone = labels[: len(UPSTREAM)] not in upstreams
            else:
                is_gone = metric is not self._metrics.listeners and labels[1] not in listeners
            if is_gone:
                self._remove(metric, labels)
        self._series_kept = max(SERIES_KEPT, len(self._children))

    def forget_all_series(self) -> None:
        """Drop every series: the proxy is gone, and all of its connections."""
        for metric, labels in list(self._children):
            self._remove(metric, labels)

    def _remove(self, metric: Counter | Gauge, labels: tuple[str, ...]) -> None:
        del self._children[metric, labels]
        with contextlib.suppress(KeyError):  # a proxy of this name in another mesh shares it
            metric.remove(*labels)

    def bound_vips(self) -> BoundVips:
        """Where VIPs are served now."""
        found = [address for address, bound in self._bound.items() if isinstance(bound.spec, VipListener)]
        return BoundVips(
            frozenset(port for host, port in found if host == WILDCARD),
            frozenset((host, port) for host, port in found if host != WILDCARD),
        )

    def close(self) -> None:
        """Stop listening; connections go on."""
        for address in list(self._bound):
            self._drain(address)

    @property
    def open_connections(self) -> int:
        """How many there are now."""
        return self._open

    async def _accept(self, bound: Bound, nursery: trio.Nursery) -> None:
        is_short = False
        with bound.accepting:
            while True:
                for _ in range(TURNS):
                    try:
                        sock, _ = bound.socket.accept()
                    except BlockingIOError:
                        break
                    except OSError as error:
                        if error.errno in CAPACITY_ERRNOS:
                            if not is_short:
                                log.warning("%s: %s: out of capacity: %s", self._proxy, bound.name, error)
                            is_short = True
                            await trio.sleep(CAPACITY_PAUSE_S)
                        elif error.errno == errno.EBADF:
                            return
                        continue
                    is_short = False
                    full = (
                        len(bound.connections) >= self._limits.listener_connections
                        or self._open >= self._limits.connections
                    )
                    if full:
                        self._child(self._metrics.connections, self._proxy, bound.name, "full").inc()
                        abort(sock)
                        continue
                    nursery.start_soon(self._carry, bound, sock)
                try:
                    await trio.lowlevel.wait_readable(bound.socket)
                except trio.ClosedResourceError:
                    return

    def _child(self, metric: MetricT, *labels: str) -> MetricT:
        """``metric.labels(*labels)``, remembered: asking the library costs more than counting."""
        key = (metric, labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return cast("MetricT", child)

    # ---- one connection

    async def _carry(self, bound: Bound, sock: socket.socket) -> None:
        connection = Connection(trio.CancelScope())
        bound.connections.add(connection)
        self._open += 1
        self._child(self._metrics.open, self._proxy, bound.name).inc()
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
            self._child(self._metrics.open, self._proxy, bound.name).dec()
            self._child(self._metrics.connections, self._proxy, bound.name, connection.outcome).inc()
            self._child(self._metrics.received, self._proxy, bound.name).inc(connection.received)
            self._child(self._metrics.sent, self._proxy, bound.name).inc(connection.sent)

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
        if spec.application in self._dead_applications:
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
            application = await self._application(spec)
            await self._relay(connection, PlainLeg(sock, raw), PlainLeg(application))
            return
        # After the handshake the client may not move on any more. So where it was let in before, the application is
        # asked first; a stranger must prove itself before the application hears of it.
        peer = str(sock.getpeername()[0])
        asked = await self._application(spec) if peer in bound.welcome else None
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
        await self._relay(connection, client, PlainLeg(asked or await self._application(spec)))

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
        tls = Tls(self._context(spec.identity, server_side=True), server_side=True)
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
        self._child(self._metrics.verdicts, self._proxy, bound.name, verdict.rule, word).inc()
        if not verdict.allowed:
            if line := self._denials.line(bound.name, uris, verdict.rule or "default", trio.current_time()):
                log.info("%s: %s", self._proxy, line)
            raise DeniedError(f"{uris[0] if uris else 'nobody'} is denied by {verdict.rule or 'default'}")

    async def _application(self, spec: InboundListener) -> socket.socket:
        host, port = spec.application
        try:
            return await self._dialer.tcp(host, port, self._limits.application_s)
        except (OSError, trio.TooSlowError) as error:
            if not isinstance(error, OSError) or error.errno not in CAPACITY_ERRNOS:
                self._dead_applications.add(spec.application)
                self._an_application_died.set()
            raise UnavailableError(f"application {host}:{port}: {error}") from error

    async def _outbound(self, bound: Bound, cluster: Cluster, connection: Connection, client: Leg) -> None:
        async def attempt(endpoint: Endpoint, connect_s: float, answer_s: float) -> Leg:
            return await self._reach(cluster, endpoint, connect_s, answer_s)

        upstream, pick = await self._dial(bound, cluster, attempt)
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
        async def attempt(endpoint: Endpoint, connect_s: float, answer_s: float) -> Leg:
            upstream = await self._dialer.tcp(endpoint.address, endpoint.port, connect_s)
            return await self._dialer.hello(upstream, raw, answer_s)

        upstream, pick = await self._dial(bound, cluster, attempt)
        connection.received += len(raw)
        await self._relay(connection, PlainLeg(sock), upstream, (cluster, pick))

    # ---- upstream

    async def _dial(
        self, bound: Bound, cluster: Cluster, attempt: Callable[[Endpoint, float, float], Awaitable[Leg]]
    ) -> tuple[Leg, Pick]:
        def tell(pick: Pick, outcome: str) -> None:
            self._child(self._metrics.attempts, *self._upstream_labels(cluster, pick.path), outcome).inc()

        return await first_that_works(cluster, bound.name, self._balancer, attempt, tell)

    async def _reach(self, cluster: Cluster, endpoint: Endpoint, connect_s: float, answer_s: float) -> Leg:
        """Open the way to one endpoint, verified as far as it can be; no application byte is sent."""
        expected = cluster.tls
        if endpoint.reach is not Reach.EXTERNAL and expected is not None:
            context = self._context(expected.identity, server_side=False)
            sock = await self._dialer.tcp(endpoint.address, endpoint.port, connect_s)
            return await self._dialer.tls(
                sock, context, expected.sni, lambda tls: check_server(tls.peer_uris(), expected.expected_uri), answer_s
            )
        sock = await self._dialer.tcp(endpoint.address, endpoint.port, connect_s)
        if endpoint.reach is Reach.EXTERNAL and (origination := cluster.origination) is not None:
            context = self._contexts.origination(origination)
            name = (origination.server_name or endpoint.address).encode()
            return await self._dialer.tls(sock, context, name, lambda _: None, answer_s, lenient=True)
        return PlainLeg(sock)

    def _context(self, key: IdentityKey, *, server_side: bool) -> ssl.SSLContext:
        held = self._credentials(key)
        identity: Identity | None = held.identity
        trust: TrustBundle = held.trust
        if identity is None:
            raise UnavailableError(f"mesh '{key.mesh}': no certificate yet for {key.owner}")
        return self._contexts.mesh(identity, trust, server_side=server_side)

    def _upstream_labels(self, cluster: Cluster, path: Path) -> tuple[str, ...]:
        return (self._proxy, cluster.mesh, cluster.name, f"{path.address}:{path.port}", path.zone)

    # ---- relay

    async def _relay(
        self, connection: Connection, client: Leg, upstream: Leg, route: tuple[Cluster, Pick] | None = None
    ) -> None:
        """Carry bytes both ways until both directions have ended, one has failed, or the connection is cut."""
        labels = connection.upstream = self._upstream_labels(route[0], route[1].path) if route else ()
        if labels:
            self._child(self._metrics.upstream_open, *labels).inc()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, connection, upstream, client, "down")
                await self._pump(connection, client, upstream, "up")
        finally:
            if connection.outcome == "done" and len(connection.ended) == 2:
                upstream.socket.close()
            else:
                abort(upstream.socket)
            if labels:
                self._child(self._metrics.upstream_open, *labels).dec()
                self._child(self._metrics.upstream_sent, *labels).inc(connection.received)
                self._child(self._metrics.upstream_received, *labels).inc(connection.sent)

    async def _pump(self, connection: Connection, source: Leg, target: Leg, direction: str) -> None:
        view = self._buffers.plain
        up = direction == "up"
        turns = moved = 0
        try:
            while count := await source.receive_into(view):
                if up:
                    connection.received += count
                else:
                    connection.sent += count
                try:
                    await target.send(view[:count])
                except (ConnectionError, TlsError):
                    # A server that has said all it had to and went away is no failure for the client who got it all.
                    other = "down" if up else "up"
                    connection.end("done" if other in connection.ended else "reset")
                    return
                turns, moved = turns + 1, moved + count
                if turns == TURNS or moved >= TURN_BYTES:
                    turns = moved = 0
                    await trio.lowlevel.checkpoint()
            await target.send_eof()
            connection.ended.add(direction)
        except OSError as error:
            # ENOTCONN: the peer has reset it already, which the other direction sees too.
            log.debug("%s: %s", direction, error)
            connection.end("reset")
        except PeerError as error:
            log.debug("%s: %s", direction, error)
            connection.end("tls")

    # ---- upkeep

    async def reap_idle(self) -> None:
        """Cut connections on which nothing moved for ``idle_s``, within a quarter of it."""
        quarter = self._limits.idle_s / 4
        quiet: dict[Connection, int] = {}
        while True:
            await trio.sleep(quarter)
            everyone = [c for b in (*self._bound.values(), *self._draining) for c in b.connections]
            still: dict[Connection, int] = {}
            for connection in everyone:
                moved = connection.received + connection.sent
                if moved == connection.seen:
                    still[connection] = quiet.get(connection, 0) + 1
                    if still[connection] >= 4:
                        connection.end("idle")
                connection.seen = moved
            quiet = still

    async def watch_applications(self) -> None:
        """Look every second whether applications that refused connections take them again; sleeps while all do."""
        while True:
            await self._an_application_died.wait()
            await trio.sleep(1.0)
            for application in sorted(self._dead_applications):
                try:
                    sock = await self._dialer.tcp(*application, 1.0)
                except (OSError, trio.TooSlowError):
                    continue
                sock.close()
                self._dead_applications.discard(application)
            if not self._dead_applications:
                self._an_application_died = trio.Event()


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


def listen(address: Address) -> socket.socket:
    """A non-blocking listening socket.

    Raises:
        OSError: as bind(2) and listen(2).
    """
    host, _ = address
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def can_listen(address: Address) -> bool:
    """Whether ``address`` is free."""
    try:
        listen(address).close()
    except OSError:
        return False
    return True


def is_here(address: str) -> bool:
    """Whether an IP address is one of this host's: nobody can bind another."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True


def recheck(bound: Bound, before: Spec) -> None:
    """Cut the connections that their listener no longer allows: a permission withdrawn, plaintext no more.

    ``before`` is what was in force until now: only what it allowed and how that changed is looked at.
    """
    spec = bound.spec
    if isinstance(spec, InboundListener) and spec != before:
        for connection in bound.connections:
            if connection.uris is not None:
                gone = spec.permit is None and spec.tls is not TlsMode.NONE
                if gone or (spec.permit is not None and not spec.permit.decide(connection.uris).allowed):
                    connection.end("denied")
            elif connection.is_plaintext and spec.tls is TlsMode.STRICT:
                connection.end("denied")
    if isinstance(spec, SniListener) and isinstance(before, SniListener):
        external = [(sni, route) for sni, route in before.routes.items() if isinstance(route, ExternalRoute)]
        now = [(spec.routes.get(sni), route) for sni, route in external]
        if all(isinstance(new, ExternalRoute) and new.permit == old.permit for new, old in now):
            return
        for connection in bound.connections:
            if connection.uris is not None:
                permit = permit_now(spec, connection.sni)
                if permit is None or not permit.decide(connection.uris).allowed:
                    connection.end("denied")
