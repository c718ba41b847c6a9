"""The resolver as a service: binds, keeps the table true to the view, and serves, in a thread of its own if so set."""

import errno
import logging
import socket as stdlib_socket
from collections.abc import Mapping
from typing import Any

import trio
from prometheus_client.registry import CollectorRegistry

from meshd.dns import render
from meshd.dns.explain import explain
from meshd.dns.metrics import Tally
from meshd.dns.server import Current, Server
from meshd.dns.session import family_of
from meshd.dns.settings import Address, DnsSettings
from meshd.runtime.latest import Latest
from meshd.runtime.listen import ListenError, open_listeners, why_not
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
    ``render.updated``. The metrics go to ``registry``.
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
        self._rendering = render.start(settings.domain, recursive=settings.recursive, is_known=False)
        self._current = Current(self._rendering.table)
        self._tally.gauges["meshd_dns_names"] = ("Names that are answered.", lambda: len(self._current.table.addresses))
        self._tally.gauges["meshd_dns_names_refused"] = (
            "Names that DNS cannot carry.",
            lambda: len(self._rendering.refused),
        )
        self.address = settings.listen
        """Where it listens: the configured address; once running, with the real port."""

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
        """
        udp, listeners = await bind(self._settings.listen)
        try:
            self.address = Address(self._settings.listen.host, udp.getsockname()[1])
            self._render()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow, self._views)
                nursery.start_soon(self._follow, self._bound_vips)
                server = Server(udp, listeners, self._current, self._settings, self._tally)
                if self._settings.own_thread:
                    await nursery.start(LoopThread("meshd-dns").run, server.run)
                else:
                    await nursery.start(server.run)
                log.info("dns: domain=%s listen=%s names=%d", self._settings.domain, self.address,
                         len(self._current.table.addresses))  # fmt: skip
                task_status.started()
        finally:
            udp.close()
            for listener in listeners:
                listener.socket.close()

    async def _follow(self, cell: Cell) -> None:
        seen = 0
        while True:
            seen, _ = await cell.newer_than(seen)
            self._render()

    def _render(self) -> None:
        """Make the table true to the newest view and listeners."""
        views = self._views.value
        view = views.get(self._mesh)
        vips = view.vips if view else render.NO_VIPS
        before = render.known(self._rendering) if views else self._rendering
        self._rendering = render.updated(before, vips, self._bound_vips.value)
        for name in self._rendering.refused.keys() - before.refused.keys():
            log.warning("dns: %s; it is not answered", self._rendering.refused[name])
        self._current.table = self._rendering.table


async def bind(address: Address) -> tuple[stdlib_socket.socket, list[trio.SocketListener]]:
    """A UDP socket and TCP listeners on one address and port; port 0 lets the kernel choose one for both.

    Raises:
        ListenError: names the setting, the address and the reason.
    """
    for attempt in range(SAME_PORT_TRIES):
        listeners = await open_listeners(address.host, address.port, SETTING)
        port = listeners[0].socket.getsockname()[1]
        udp = stdlib_socket.socket(family_of(address), stdlib_socket.SOCK_DGRAM | stdlib_socket.SOCK_NONBLOCK)
        try:
            udp.bind((address.host, port))
        except OSError as error:
            udp.close()
            for listener in listeners:
                listener.socket.close()
            if error.errno == errno.EADDRINUSE and not address.port and attempt < SAME_PORT_TRIES - 1:
                continue
            raise ListenError(why_not(error, f"{Address(address.host, port)} (UDP)", SETTING)) from error
        udp.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_RCVBUF, UDP_BUFFER_BYTES)
        return udp, listeners
    raise AssertionError("unreachable: the last attempt returns or raises")
