"""Services that exist only to join others: the proxies that this process runs, and KDS over its sockets."""

import fnmatch
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from meshd.app.bootstrap import PROXY_KINDS
from meshd.kds.server import GlobalKds
from meshd.l4.service import Engine
from meshd.model.resource import Resource, ResourceKey
from meshd.rpc import GrpcServer
from meshd.runtime.latest import Latest
from meshd.runtime.listen import ListenError, open_listeners
from meshd.runtime.supervisor import retrying
from meshd.store.store import Store
from meshd.topology.view import MeshView

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Selection:
    """Dataplanes that somebody writes through the API and this process runs: of one mesh, by a name pattern."""

    mesh: str
    names: str

    def has(self, key: ResourceKey) -> bool:
        """Whether a Dataplane is one of them."""
        return key.kind == "Dataplane" and key.mesh == self.mesh and fnmatch.fnmatchcase(key.name, self.names)


@dataclass(slots=True)
class Running:
    """One proxy that runs: its resource as it changes, its engine, and how to stop it."""

    cell: Latest[Resource]
    engine: Engine
    scope: trio.CancelScope


class ProxyHost:
    """Runs the engines: of the proxies that the file owns from the start, of selected Dataplanes as they come and go.

    ``keys`` tells who runs, for insights. ``bound_ports`` are the VIP ports of the proxy that owns the VIPs, and
    ``served_views`` the views that its listeners are up to; None if this process has no such proxy. An address that a
    file's proxy cannot listen on ends the process (``ListenError``); one of a selected Dataplane is logged and tried
    again, for it came through the API.
    """

    name = "proxies"

    def __init__(
        self,
        store: Store,
        own: Sequence[ResourceKey],
        vip_owner: ResourceKey | None,
        selections: Sequence[Selection],
        engine_for: Callable[[Latest[Resource], bool], Engine],
        rng: random.Random,
    ) -> None:
        self._store = store
        self._own = tuple(own)
        self._vip_owner = vip_owner
        self._selections = tuple(selections)
        self._engine_for = engine_for
        self._rng = rng
        self._running: dict[ResourceKey, Running] = {}
        self.keys: Latest[frozenset[ResourceKey]] = Latest(frozenset())
        self.bound_ports: Latest[frozenset[int] | None] = Latest(frozenset() if vip_owner else None)
        self.served_views: Latest[Mapping[str, MeshView]] | None = Latest({}) if vip_owner else None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; every engine then drains.

        Raises:
            ListenError: an address of a proxy of the file is taken.
        """
        with self._store.watch(PROXY_KINDS) as feed:
            async with trio.open_nursery() as nursery:
                for key in self._own:
                    running = self._prepare(key)
                    await nursery.start(running.engine.run)
                    if key == self._vip_owner and self.served_views is not None:
                        nursery.start_soon(self._follow_ports, running.engine)
                        nursery.start_soon(_follow_views, running.engine, self.served_views)
                self._select(nursery, [r.key for r in self._store.list("Dataplane")])
                self._publish()
                task_status.started()
                while True:
                    self._select(nursery, await feed.take())

    def ready(self) -> bool:
        """Whether every proxy of the file serves."""
        return all(key in self._running and self._running[key].engine.ready.value for key in self._own)

    def _prepare(self, key: ResourceKey) -> Running:
        resource = self._store.get(key)
        if resource is None:
            raise KeyError(f"{key} was not written at the start")
        cell = Latest(resource)
        running = Running(cell, self._engine_for(cell, key == self._vip_owner), trio.CancelScope())
        self._running[key] = running
        return running

    def _select(self, nursery: trio.Nursery, keys: Sequence[ResourceKey] | frozenset[ResourceKey]) -> None:
        """Start, update and stop what changed."""
        for key in sorted(keys):
            resource = self._store.get(key)
            running = self._running.get(key)
            if resource is None:
                if running is not None and key not in self._own:
                    running.scope.cancel()
                    del self._running[key]
            elif running is not None:
                running.cell.publish(resource)
            elif any(s.has(key) for s in self._selections):
                nursery.start_soon(self._keep, self._prepare(key))
        self._publish()

    def _publish(self) -> None:
        now = frozenset(self._running)
        if now != self.keys.value:
            self.keys.publish(now)

    async def _keep(self, running: Running) -> None:
        with running.scope:
            await retrying(running.engine.run, (ListenError,), name=running.engine.name, rng=self._rng)

    async def _follow_ports(self, engine: Engine) -> None:
        seen = 0
        while True:
            seen, ports = await engine.bound_ports.newer_than(seen)
            self.bound_ports.publish(ports)


async def _follow_views(engine: Engine, served: Latest[Mapping[str, MeshView]]) -> None:
    seen = 0
    while True:
        seen, views = await engine.served_views.newer_than(seen)
        served.publish(views)


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
