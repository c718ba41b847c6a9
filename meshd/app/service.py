"""Services that exist only to join others: the proxies that this process runs, KDS and the dp-server on sockets."""

import fnmatch
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import trio
from prometheus_client import CollectorRegistry, Gauge

from meshd.app import dp_server
from meshd.app.bootstrap import PROXY_KINDS
from meshd.config import Config
from meshd.insight.proxies import Report
from meshd.kds.server import GlobalKds
from meshd.l4.render import check, fixed_listeners
from meshd.l4.service import Engine
from meshd.model.errors import Violation
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.rpc import GrpcServer, Handler, RpcMetrics
from meshd.runtime.addresses import local_addresses
from meshd.runtime.latest import Latest
from meshd.runtime.listen import ListenError, open_listeners
from meshd.runtime.supervisor import retrying
from meshd.store.store import Store
from meshd.topology.view import BoundVips, MeshView
from meshd.xds.bootstrap import ControlPlaneAt
from meshd.xds.door import bootstrap_handler

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Selection:
    """Dataplanes that somebody writes through the API and this process runs: of one mesh, by a name pattern."""

    mesh: str
    names: str

    def has(self, key: ResourceKey) -> bool:
        """Whether a Dataplane is one of them."""
        return key.kind == "Dataplane" and key.mesh == self.mesh and fnmatch.fnmatchcase(key.name, self.names)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The proxies that a process runs: those of its file, of which one may own the VIPs, and selected ones."""

    own: tuple[ResourceKey, ...] = ()
    vip_owner: ResourceKey | None = None
    selections: tuple[Selection, ...] = ()


@dataclass(slots=True)
class Running:
    """One proxy that runs: its resource as it changes, its engine, and how to stop it.

    ``refused`` are the parts of the resource that its engine does not carry, ``trouble`` why it does not run yet,
    ``ignored`` the policies about it that it does not follow.
    """

    cell: Latest[Resource]
    engine: Engine
    scope: trio.CancelScope
    refused: tuple[Violation, ...] = ()
    trouble: tuple[Violation, ...] = ()
    ignored: tuple[Violation, ...] = ()
    is_up: bool = False

    def report(self) -> Report:
        """What insights say of it. A proxy of which nothing is left to listen on is not carried."""
        nothing_left = bool(self.refused) and not fixed_listeners(self.cell.value)
        return Report(self.is_up and not nothing_left, (*self.refused, *self.trouble, *self.ignored))


@dataclass(frozen=True, slots=True)
class Ignored:
    """Which policies about a proxy its engine does not follow; to be asked again when one of ``kinds`` changes."""

    kinds: tuple[str, ...] = ()
    of: Callable[[Resource], tuple[Violation, ...]] = lambda _: ()


@dataclass(frozen=True, slots=True)
class Told:
    """A ``trio.TaskStatus`` that calls back."""

    callback: Callable[[], None]

    def started(self, value: None = None) -> None:
        """See trio."""
        del value
        self.callback()


class ProxyHost:
    """Runs the engines: of the proxies that the file owns from the start, of selected Dataplanes as they come and go.

    ``reports`` tells who runs and what of it is refused, for insights; that is in the log too, and counted; and which
    policies its engine does not follow, as ``ignored`` says. The
    identities of one that left for good are released. ``bound_vips`` is where the proxy that owns the VIPs takes
    connections, nowhere while it does not run, and ``served_views`` the views that its listeners are up to; None if
    this process has no such proxy. An address that a file's proxy cannot listen on ends the process (``ListenError``);
    one of a selected Dataplane is logged, reported and tried again, for it came through the API.
    """

    name = "proxies"

    def __init__(
        self,
        store: Store,
        wanted: Wanted,
        engine_for: Callable[[Latest[Resource], bool], Engine],
        release: Callable[[str, str], Awaitable[None]],
        rng: random.Random,
        registry: CollectorRegistry,
        ignored: Ignored | None = None,
    ) -> None:
        self._store = store
        self._ignored = ignored or Ignored()
        self._wanted = wanted
        self._engine_for = engine_for
        self._release = release
        self._rng = rng
        self._running: dict[ResourceKey, Running] = {}
        self._refused = Gauge(
            "meshd_proxies_refused_parts",
            "Parts of a proxy's resource that are not carried; absent if there are none.",
            ["mesh", "name"],
            registry=registry,
        )
        self.reports: Latest[Mapping[ResourceKey, Report]] = Latest({})
        self.bound_vips: Latest[BoundVips | None] = Latest(BoundVips() if wanted.vip_owner else None)
        self.served_views: Latest[Mapping[str, MeshView]] | None = Latest({}) if wanted.vip_owner else None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; every engine then drains.

        Raises:
            ListenError: an address of a proxy of the file is taken.
        """
        with self._store.watch((*PROXY_KINDS, *self._ignored.kinds)) as feed:
            async with trio.open_nursery() as nursery:
                # The owner of the VIPs last: its wildcard sockets would take the ports of the others' inbounds.
                for key in sorted(self._wanted.own, key=lambda own: own == self._wanted.vip_owner):
                    running = self._prepare(key)
                    await nursery.start(running.engine.run)
                    running.is_up = True
                    if key == self._wanted.vip_owner and self.served_views is not None:
                        nursery.start_soon(self._follow_bound, running.engine)
                        nursery.start_soon(_follow_views, running.engine, self.served_views)
                self._select(nursery, [r.key for r in self._store.list("Dataplane")])
                self._publish()
                task_status.started()
                while True:
                    keys = await feed.take()
                    if any(key.kind in self._ignored.kinds for key in keys):
                        for running in self._running.values():
                            self._note_ignored(running)
                    self._select(nursery, [key for key in keys if key.kind in PROXY_KINDS])

    def ready(self) -> bool:
        """Whether every proxy of the file serves."""
        return all(key in self._running and self._running[key].engine.ready.value for key in self._wanted.own)

    def _prepare(self, key: ResourceKey) -> Running:
        resource = self._store.get(key)
        if resource is None:
            raise KeyError(f"{key} was not written at the start")
        cell = Latest(resource)
        running = Running(cell, self._engine_for(cell, key == self._wanted.vip_owner), trio.CancelScope())
        self._running[key] = running
        self._note_refused(running, check(resource))
        self._note_ignored(running)
        return running

    def _note_refused(self, running: Running, refused: tuple[Violation, ...]) -> None:
        key = running.cell.value.key
        for violation in refused:
            if violation not in running.refused:
                log.warning("%s: %s; this part is not carried", key, violation)
        running.refused = refused
        self._refused.labels(key.mesh, key.name).set(len(refused))
        if not refused:
            self._refused.remove(key.mesh, key.name)

    def _note_ignored(self, running: Running) -> None:
        now = self._ignored.of(running.cell.value)
        for violation in now:
            if violation not in running.ignored:
                log.warning("%s: %s", running.cell.value.key, violation)
        running.ignored = now

    def _select(self, nursery: trio.Nursery, keys: Sequence[ResourceKey]) -> None:
        """Start, update and stop what changed."""
        for key in sorted(keys):
            resource = self._store.get(key)
            running = self._running.get(key)
            if resource is None:
                if running is not None and key not in self._wanted.own:
                    running.scope.cancel()
                    del self._running[key]
                    self._note_refused(running, ())
            elif running is not None:
                running.cell.publish(resource)
                self._note_refused(running, check(resource))
                self._note_ignored(running)
            elif any(s.has(key) for s in self._wanted.selections):
                nursery.start_soon(self._keep, self._prepare(key))
        self._publish()

    def _publish(self) -> None:
        now = {key: running.report() for key, running in self._running.items()}
        if now != self.reports.value:
            self.reports.publish(now)

    async def _keep(self, running: Running) -> None:
        """Run the engine of a selected Dataplane until it leaves, and then forget its identity and its counters."""
        key = running.cell.value.key
        with running.scope:
            await retrying(partial(self._attempt, running), (ListenError,), name=running.engine.name, rng=self._rng)
        if key not in self._running:  # it may have come back while connections drained
            running.engine.forget_series()
            await self._release(key.mesh, key.name)

    async def _attempt(self, running: Running) -> None:
        def up() -> None:
            running.is_up, running.trouble = True, ()
            self._publish()

        try:
            await running.engine.run(task_status=Told(up))
        except ListenError as error:
            running.trouble = (Violation("networking", str(error)),)
            raise
        finally:
            running.is_up = False
            self._publish()

    async def _follow_bound(self, engine: Engine) -> None:
        seen = 0
        while True:
            seen, bound = await engine.bound_vips.newer_than(seen)
            self.bound_vips.publish(bound)


async def _follow_views(engine: Engine, served: Latest[Mapping[str, MeshView]]) -> None:
    seen = 0
    while True:
        seen, views = await engine.served_views.newer_than(seen)
        served.publish(views)


class SecretWatch:
    """Tells the engines that a Secret is not what it was: external services name certificates in them."""

    name = "secrets"

    def __init__(self, store: Store) -> None:
        self._store = store
        self.changes: Latest[int] = Latest(0)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        with self._store.watch(("Secret",)) as feed:
            task_status.started()
            while True:
                await feed.take()
                self.changes.publish(self.changes.value + 1)


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

    ``here`` says, once it listens, how an Envoy of this host is to find it.
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
    ) -> None:
        self._config = config
        self._handlers = handlers
        self._store = store
        self._registry = registry
        self._metrics = metrics
        self._hostname = hostname
        self._now = now
        self.here: Latest[ControlPlaneAt | None] = Latest(None)

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
            self.here.publish(dp_server.from_this_host(config, prepared, port))
            task_status.started()
