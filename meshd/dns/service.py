"""The resolver as a service: binds, keeps the table true to the view, and serves, in a thread of its own if so set."""

import errno
import logging
import secrets
import socket as stdlib_socket
from collections.abc import Mapping
from typing import Any

import trio
from prometheus_client.registry import CollectorRegistry

from meshd.dns.cookies import SECRET_BYTES, Cookies
from meshd.dns.explain import explain
from meshd.dns.keeper import Worker
from meshd.dns.metrics import Tally
from meshd.dns.render import Rendering
from meshd.dns.server import Server
from meshd.dns.session import family_of
from meshd.dns.settings import Address, DnsSettings
from meshd.dns.table import Change
from meshd.dns.wire import name_to_wire
from meshd.runtime.latest import Latest
from meshd.runtime.lines import check
from meshd.runtime.listen import ListenError, open_listeners, why_not
from meshd.runtime.steps import in_steps
from meshd.runtime.thread import LoopThread
from meshd.topology.view import BoundVips, MeshView

log = logging.getLogger(__name__)

SETTING = "dnsServer.listen"
UDP_BUFFER_BYTES = 1 << 20
"""Room for the queries that come while the loop is busy: some thousand; the kernel may grant less."""
Cell = Latest[Mapping[str, MeshView]] | Latest[BoundVips] | Latest[BoundVips | None]
SAME_PORT_TRIES = 8
"""With port 0 the kernel's choice for TCP may be taken for UDP; then it chooses again."""


class Resolver:
    """Serves the names of one mesh.

    ``views`` are the views by mesh; while that of ``mesh`` is missing, its names do not exist. Before there was any at
    all, as in a zone whose first Mesh is still on its way from the global, they cannot be answered. ``bound_vips``: see
    ``Rendering.update``. The metrics go to ``registry``.
    """

    name = "dns"

    def __init__(
        self,
        settings: DnsSettings,
        views: Latest[Mapping[str, MeshView]],
        mesh: str,
        bound_vips: Latest[BoundVips] | Latest[BoundVips | None],
        registry: CollectorRegistry,
    ) -> None:
        self._settings = settings
        self._views = views
        self._mesh = mesh
        self._bound_vips = bound_vips
        self._tally = Tally(registry)
        self._rendering = Rendering(settings.domain, recursive=settings.recursive, is_known=False, cidr=settings.vips)
        self._table = self._rendering.table
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._workers: list[Worker] = []
        self._tally.top_size = settings.top_names
        self._tally.is_known = self._has
        self._tally.gauges["meshd_dns_names"] = ("Names that are answered.", lambda: self._table.count)
        self._tally.gauges["meshd_dns_names_refused"] = (
            "Names that DNS cannot carry.",
            lambda: len(self._rendering.refused),
        )
        self.address = settings.listen
        """Where it listens: the configured address; once running, with the real port."""

    def status(self) -> Mapping[str, Any]:
        """How it does, as plain data: for people."""
        settings, state = self._settings, self._tally.state()
        return {
            "domain": settings.domain,
            "listen": str(self.address),
            "mesh": self._mesh,
            "names": self._table.count,
            "namesRefused": dict(self._rendering.refused),
            "workers": settings.workers,
            "upstreams": [{"address": address, "isUp": is_up} for address, is_up in state.upstreams.items()],
            "forwarding": state.gauges["forwarding"],
            "cache": {"entries": state.gauges["cache_entries"], "bytes": state.gauges["cache_bytes"]},
            "topNames": [{"name": name, "rcode": rcode, "queries": count} for name, rcode, count in state.top],
        }

    def _has(self, name: str) -> bool:
        try:
            wire_name = name_to_wire(name)
        except ValueError:
            return False
        return wire_name in self._table.names or wire_name in self._table.hosts

    def explain(self, name: str, qtype: str) -> Mapping[str, Any]:
        """What a client that asks is told, and why; see ``explain.explain``."""
        upstreams = tuple(str(upstream) for upstream in self._settings.upstreams)
        file = self._settings.resolv_conf
        return explain(
            name, qtype, self._rendering, self._views.value, self._mesh, upstreams or ((str(file),) if file else ())
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Resolve until cancelled.

        Raises:
            ListenError: the address cannot be listened on.
            LinesError: the query log cannot be written.
        """
        query_log = self._settings.query_log
        if query_log is not None and query_log.file is not None:
            check(query_log.file, "dnsServer.queryLog.file")
        udps, listeners = await bind(self._settings.listen, max(1, self._settings.workers))
        # Each has files of its own for the same TCP sockets: in one loop two cannot wait for one file.
        places = [(udp, [again(listener) for listener in listeners]) for udp in udps]
        close([], listeners)
        try:
            self.address = Address(self._settings.listen.host, udps[0].getsockname()[1])
            table, settings, tally = self._table, self._settings, self._tally
            if settings.workers:
                self._workers = [
                    Worker(number, udp, own, table, settings, tally, self._secret)
                    for number, (udp, own) in enumerate(places, 1)
                ]
            async with trio.open_nursery() as nursery:
                await nursery.start(self._keep_true)
                for worker in self._workers:
                    await nursery.start(worker.run)
                if not self._workers:
                    server = Server(*places[0], table, settings, tally, Cookies(self._secret))
                    if settings.own_thread:
                        await nursery.start(LoopThread("meshd-dns").run, server.run)
                    else:
                        await nursery.start(server.run)
                log.info("dns: domain=%s listen=%s names=%d", settings.domain, self.address, table.count)
                if not settings.is_on_loopback and not settings.allow:
                    log.warning("dns: %s can be reached by others, but only this host is answered; say who may ask in"
                                " dnsServer.allow", self.address)  # fmt: skip
                task_status.started()
        finally:
            for udp, own in places:
                close([udp], own)

    async def _keep_true(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep the table true to the newest view and listeners; started once it was."""
        news = trio.Event()

        async def follow(cell: Cell, seen: int) -> None:
            while True:
                seen, _ = await cell.newer_than(seen)
                news.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, self._views, self._views.version)
            nursery.start_soon(follow, self._bound_vips, self._bound_vips.version)
            await self._render()
            task_status.started()
            while True:
                await news.wait()
                news = trio.Event()
                await self._render()

    def _tell(self, change: Change) -> None:
        for worker in self._workers:
            worker.tell(change)

    async def _render(self) -> None:
        views = self._views.value
        refused = self._rendering.refused.keys()
        before = set(refused)
        await in_steps(self._rendering.update(views.get(self._mesh), self._bound_vips.value, self._tell))
        if views and not self._table.is_known:
            known = Change(is_known=True)
            self._table.change(known)
            self._tell(known)
        for name in refused - before:
            log.warning("dns: %s; it is not answered", self._rendering.refused[name])


def again(listener: trio.SocketListener) -> trio.SocketListener:
    """The same listening socket by another file of this process."""
    return trio.SocketListener(listener.socket.dup())


def close(udps: list[stdlib_socket.socket], listeners: list[trio.SocketListener]) -> None:
    """Close what ``bind`` gave."""
    for udp in udps:
        udp.close()
    for listener in listeners:
        listener.socket.close()


async def bind(address: Address, count: int = 1) -> tuple[list[stdlib_socket.socket], list[trio.SocketListener]]:
    """So many UDP sockets that share an address and port, and TCP listeners there; port 0 lets the kernel choose one.

    Raises:
        ListenError: names the setting, the address and the reason.
    """
    for attempt in range(SAME_PORT_TRIES):
        listeners = await open_listeners(address.host, address.port, SETTING)
        port = listeners[0].socket.getsockname()[1]
        udps: list[stdlib_socket.socket] = []
        try:
            for _ in range(count):
                udp = stdlib_socket.socket(family_of(address), stdlib_socket.SOCK_DGRAM | stdlib_socket.SOCK_NONBLOCK)
                udps.append(udp)
                if count > 1:
                    udp.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEPORT, 1)
                if address.host == "::":
                    udp.setsockopt(stdlib_socket.IPPROTO_IPV6, stdlib_socket.IPV6_V6ONLY, 0)
                udp.bind((address.host, port))
                udp.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_RCVBUF, UDP_BUFFER_BYTES)
        except OSError as error:
            close(udps, listeners)
            if error.errno == errno.EADDRINUSE and not address.port and attempt < SAME_PORT_TRIES - 1:
                continue
            raise ListenError(why_not(error, f"{Address(address.host, port)} (UDP)", SETTING)) from error
        return udps, listeners
    raise AssertionError("unreachable: the last attempt returns or raises")
