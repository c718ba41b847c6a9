"""Accepts connections by the route table in force. A slow, dead or hostile peer costs only itself."""

import errno
import logging
import socket
from collections.abc import Callable

import trio

from meshd.ca.identity import Credentials
from meshd.l4.choose import Balancer
from meshd.l4.client import Resolver
from meshd.l4.metrics import Metrics
from meshd.l4.relay import TURNS, Connection, abort
from meshd.l4.session import Bound, Limits, Sessions
from meshd.l4.table import (
    ExternalRoute,
    IdentityKey,
    InboundListener,
    OutboundListener,
    RouteTable,
    SniListener,
    Spec,
    TlsMode,
    VipListener,
    clusters_of,
    kind_of,
    permit_now,
)
from meshd.runtime.listen import CAPACITY_ERRNOS, CAPACITY_PAUSE_S, why_not
from meshd.topology.view import BoundVips

log = logging.getLogger(__name__)

BACKLOG = 4096
WILDCARD = "0.0.0.0"  # noqa: S104  # the VIP listener's; other local addresses have no route on it
WHEELS_KEPT = 64
"""So many states of round robin are not worth looking whether their listeners are still there."""

Address = tuple[str, int]


class Server:
    """The listeners of one proxy, and its connections through ``Sessions``.

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
        self._balancer = balancer
        self._metrics = metrics
        self._limits = limits
        self._sessions = Sessions(proxy, credentials, balancer, metrics, limits, resolver or Resolver())
        self._series = self._sessions.series
        self._bound: dict[Address, Bound] = {}
        self._draining: set[Bound] = set()
        self._failed: dict[Address, str] = {}
        self._wheels_kept = WHEELS_KEPT

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
        self._series.child(self._metrics.listeners, self._proxy, "bound").set(len(self._bound))
        self._series.child(self._metrics.listeners, self._proxy, "failed").set(len(failed))
        self._forget(table)
        if self._series.are_many:
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
        self._sessions.applications.keep(i.application for i in table.inbounds)
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
        upstreams = {connection.upstream for bound in live for connection in bound.connections}
        labels = self._sessions.upstreams.labels
        for bound in self._bound.values():
            for cluster in clusters_of(bound.spec):
                upstreams |= {labels(cluster, cluster.path(e)) for e in cluster.endpoints}
        self._series.keep({bound.name for bound in live}, upstreams)

    def forget_all_series(self) -> None:
        """Drop every series: the proxy is gone, and all of its connections."""
        self._series.forget_all()

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
        return self._sessions.open_connections

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
                        or self._sessions.open_connections >= self._limits.connections
                    )
                    if full:
                        self._series.child(self._metrics.connections, self._proxy, bound.name, "full").inc()
                        abort(sock)
                        continue
                    nursery.start_soon(self._sessions.carry, bound, sock)
                try:
                    await trio.lowlevel.wait_readable(bound.socket)
                except trio.ClosedResourceError:
                    return

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
        """See ``Applications.watch``."""
        await self._sessions.applications.watch()


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
