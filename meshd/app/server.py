"""KDS and the dp-server on their sockets."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime

import trio

from meshd.app import dp_server
from meshd.config import Config
from meshd.kds.server import GlobalKds
from meshd.model.registry import Registry
from meshd.rpc import GrpcServer, Handler, RpcMetrics
from meshd.runtime.addresses import local_addresses
from meshd.runtime.latest import Latest
from meshd.runtime.listen import open_listeners
from meshd.store.store import Store
from meshd.xds.bootstrap import ControlPlaneAt
from meshd.xds.door import bootstrap_handler

log = logging.getLogger(__name__)


class KdsListener:
    """The global's KDS on its socket."""

    name = "kds listener"

    def __init__(self, kds: GlobalKds, server: GrpcServer, host: str, port: int) -> None:
        self._kds = kds
        self._server = server
        self._address = (host, port)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled.

        Raises:
            ListenError: the address is taken; names ``multizone.global.kds.grpcPort``.
        """
        listeners = await open_listeners(*self._address, "multizone.global.kds.grpcPort")
        async with trio.open_nursery() as nursery:
            await nursery.start(self._kds.run)
            await nursery.start(self._server.serve, listeners)
            log.info("kds: listening on %s:%d", *self._address)
            task_status.started()


class DpListener:
    """The dp-server of a zone on its socket: ``handlers`` of the proxies' streams, and bootstraps beside them.

    ``here`` is told, once it listens, how an Envoy of this host is to find it.
    """

    name = "dp-server"

    def __init__(
        self,
        config: Config,
        handlers: Mapping[str, Handler],
        store: Store,
        registry: Registry,
        metrics: RpcMetrics,
        hostname: str,
        now: Callable[[], datetime],
        here: Latest[ControlPlaneAt | None],
    ) -> None:
        self._config = config
        self._handlers = handlers
        self._store = store
        self._registry = registry
        self._metrics = metrics
        self._hostname = hostname
        self._now = now
        self._here = here

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled.

        Raises:
            ListenError: the address is taken; names ``dpServer.port``.
            TlsFilesError: there is no certificate to serve with.
        """
        config, server = self._config, self._config.dp_server
        prepared = await trio.to_thread.run_sync(
            dp_server.prepare, config, self._hostname, local_addresses(), self._now()
        )
        listeners = await open_listeners(server.interface, server.port, "dpServer.port")
        port = listeners[0].socket.getsockname()[1]
        http = bootstrap_handler(dp_server.settings(config, prepared, port), self._store.get, self._registry)
        grpc = GrpcServer(
            self._handlers, prepared.tls, dp_server.limits(config), metrics=self._metrics, name="dp", http=http
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(grpc.serve, listeners)
            log.info("dp-server: listening on %s:%d", server.interface, port)
            self._here.publish(dp_server.from_this_host(config, prepared, port))
            task_status.started()
