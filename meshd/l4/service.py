"""The engine of one proxy: follows views, permissions and certificates, and swaps the routes under live traffic."""

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace

import trio

from meshd.ca.identity import Credentials, no_credentials
from meshd.l4.choose import MAX_OFFSET_STEPS, Balancer
from meshd.l4.client import Resolver
from meshd.l4.metrics import Metrics
from meshd.l4.render import Settings, fixed_listeners
from meshd.l4.server import Server, listen
from meshd.l4.session import Limits
from meshd.l4.table import EMPTY, IdentityKey, PermitFor, RouteTable
from meshd.l4.update import NOTHING, updating
from meshd.model.resource import Resource
from meshd.runtime.latest import Latest
from meshd.runtime.listen import ListenError, why_not
from meshd.runtime.steps import in_steps
from meshd.topology.view import BoundVips, MeshView

log = logging.getLogger(__name__)

RETRY_BIND_S = 1.0
"""How soon an address that could not be bound is tried again: its holder may be on its way out."""

CredentialsFor = Callable[[str, str, tuple[str, ...]], Latest[Credentials]]
"""(mesh, owner, uris) -> the cell with what is in force for that identity."""

Cell = Latest[int] | Latest[Resource] | Latest[Mapping[str, MeshView]] | Latest[Credentials]


class Engine:
    """Runs one Dataplane, ZoneIngress or ZoneEgress; a ``runtime.supervisor.Service``.

    ``table`` is what is in force. ``served_views`` are the views that it was made of: whoever tells clients of a VIP
    follows these, for those of the topology are ahead of the listeners. ``bound_vips`` is where connections to
    VIPs are taken. ``ready`` turns true when every listener is bound and every certificate is there.

    ``material`` changes when ``Settings.read_source`` may give something else than before. ``resolver`` finds the
    addresses of external services, engines may share one.
    """

    def __init__(  # noqa: PLR0913  # each is something that only the composition root knows
        self,
        proxy: Latest[Resource],
        views: Latest[Mapping[str, MeshView]],
        credentials: CredentialsFor,
        permit_for: PermitFor,
        metrics: Metrics,
        rng: random.Random,
        settings: Settings | None = None,
        limits: Limits | None = None,
        *,
        resolver: Resolver | None = None,
        material: Latest[int] | None = None,
    ) -> None:
        key = proxy.value.key
        self.name = f"engine of {key}"
        self.table: Latest[RouteTable] = Latest(EMPTY)
        self.served_views: Latest[Mapping[str, MeshView]] = Latest({})
        self.bound_vips: Latest[BoundVips] = Latest(BoundVips())
        self.ready: Latest[bool] = Latest(value=False)
        self._proxy = proxy
        self._views = views
        self._material: Latest[int] = material if material is not None else Latest(0)
        self._credentials = credentials
        self._permit_for = permit_for
        self._settings = settings or Settings()
        self._limits = limits or Limits()
        self._external: dict[tuple[str, str], str] = {}
        self._cells: dict[IdentityKey, tuple[Latest[Credentials], trio.CancelScope]] = {}
        self._server = Server(
            "/".join(filter(None, (key.kind, key.mesh, key.name))),
            self._held,
            Balancer(lambda: rng.randrange(MAX_OFFSET_STEPS)),
            metrics,
            self._limits,
            resolver,
        )
        self._changed = trio.Event()
        self._stopping = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled, then let connections finish for ``Limits.drain_s``.

        Raises:
            ListenError: an address that the proxy's resource names cannot be listened on at the start. Later ones are
                logged and tried again.
        """
        self._check_addresses()
        async with trio.open_nursery() as outer:
            connections, scope = await outer.start(self._hold_connections)
            try:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(self._server.reap_idle)
                    accepting.start_soon(self._server.watch_applications)
                    accepting.start_soon(self._watch, self._proxy, self._proxy.version)
                    accepting.start_soon(self._watch, self._views, self._views.version)
                    accepting.start_soon(self._watch, self._material, self._material.version)
                    await self._follow(accepting, connections, task_status)
            finally:
                self._server.close()
                self.bound_vips.publish(BoundVips())
                scope.deadline = trio.current_time() + self._limits.drain_s
                self._stopping.set()

    def forget_series(self) -> None:
        """Drop what was counted: for a proxy that has stopped and does not come back."""
        self._server.forget_all_series()

    async def _hold_connections(self, task_status: trio.TaskStatus[tuple[trio.Nursery, trio.CancelScope]]) -> None:
        """Own the connections, beyond the cancellation of the engine up to the end of the drain."""
        with trio.CancelScope(shield=True) as scope:
            async with trio.open_nursery() as nursery:
                task_status.started((nursery, scope))
                await self._stopping.wait()

    async def _watch(self, cell: Cell, seen: int, scope: trio.CancelScope | None = None) -> None:
        with scope or trio.CancelScope():
            while True:
                seen, _ = await cell.newer_than(seen)
                self._changed.set()

    async def _follow(
        self, accepting: trio.Nursery, connections: trio.Nursery, task_status: trio.TaskStatus[None]
    ) -> None:
        inputs: tuple[int, int, int] | None = None
        rendering = NOTHING
        is_bound = started = False
        while True:
            self._changed = trio.Event()
            newest = (self._proxy.version, self._views.version, self._material.version)
            if newest != inputs:
                if inputs is not None and inputs[-1] != newest[-1]:
                    # As if all views were new: then whatever reads a Secret is rendered again, and nothing else.
                    rendering = replace(rendering, views={name: replace(v) for name, v in rendering.views.items()})
                inputs = newest
                rendering = await in_steps(
                    updating(rendering, self._views.value, self._proxy.value, self._permit_for, self._settings)
                )
            is_new = rendering.table is not self.table.value
            if is_new:
                self.table.publish(rendering.table)
                self._follow_identities(accepting)
                self._say_refused()
            if is_new or not is_bound:
                is_bound = self._server.apply(rendering.table, accepting, connections)
            self._publish(rendering.views, is_bound=is_bound)
            if not started:
                started = True
                task_status.started()
            with trio.move_on_after(float("inf") if is_bound else RETRY_BIND_S):
                await self._changed.wait()

    def _follow_identities(self, accepting: trio.Nursery) -> None:
        wanted = self.table.value.identities()
        for key in self._cells.keys() - wanted:
            _, scope = self._cells.pop(key)
            scope.cancel()
        for key in sorted(wanted - self._cells.keys()):
            cell, scope = self._cells[key] = (self._credentials(*key), trio.CancelScope())
            accepting.start_soon(self._watch, cell, cell.version, scope)

    def _say_refused(self) -> None:
        """Log which external services connections are refused to and why, once, and that they no longer are."""
        before, self._external = self._external, self.table.value.external_services()
        for (mesh, service), reason in self._external.items():
            was = before.get((mesh, service), "")
            if reason and reason != was:
                log.warning(
                    "%s: mesh '%s': connections to external service '%s' are refused: %s",
                    self._proxy.value.key, mesh, service, reason,
                )  # fmt: skip
            elif was and not reason:
                log.info(
                    "%s: mesh '%s': external service '%s' can be reached again", self._proxy.value.key, mesh, service
                )

    def _publish(self, views: Mapping[str, MeshView], *, is_bound: bool) -> None:
        is_ready = is_bound and all(cell.value.identity is not None for cell, _ in self._cells.values())
        if is_ready != self.ready.value:
            self.ready.publish(is_ready)
        bound = self._server.bound_vips()
        if bound != self.bound_vips.value:
            self.bound_vips.publish(bound)
        if views is not self.served_views.value:
            self.served_views.publish(views)

    def _held(self, key: IdentityKey) -> Credentials:
        held = self._cells.get(key)
        return held[0].value if held is not None else no_credentials(key.mesh)

    def _check_addresses(self) -> None:
        key = self._proxy.value.key
        for field, address, port in fixed_listeners(self._proxy.value):
            try:
                listen((address, port)).close()
            except OSError as error:
                raise ListenError(why_not(error, f"{address}:{port}", f"{key}: {field}")) from error
