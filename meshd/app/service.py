"""Services that exist only to join others: the proxies that this process runs, and what tells them of Secrets."""

import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio
from prometheus_client import CollectorRegistry, Gauge

from meshd.app.bootstrap import PROXY_KINDS
from meshd.app.carriers import Carrier, Wanted
from meshd.ca.envoy_admin import CA_SECRET
from meshd.config.tree import ProxyEntry
from meshd.insight.proxies import Report
from meshd.model.errors import Violation
from meshd.model.resource import Resource, ResourceKey
from meshd.runtime.latest import Latest
from meshd.runtime.listen import ListenError
from meshd.runtime.supervisor import retrying
from meshd.store.store import Store
from meshd.topology.view import BoundVips, MeshView

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class Running:
    """One proxy that runs: its resource as it changes, what carries it, and how to stop it.

    ``refused`` are the parts of the resource that are not carried, ``trouble`` why it does not run yet, ``ignored`` the
    policies about it that are not followed.
    """

    cell: Latest[Resource]
    carrier: Carrier
    scope: trio.CancelScope
    refused: tuple[Violation, ...] = ()
    trouble: tuple[Violation, ...] = ()
    ignored: tuple[Violation, ...] = ()
    is_up: bool = False

    def report(self) -> Report:
        """What insights say of it. A proxy of which nothing is left to listen on is not carried."""
        nothing_left = bool(self.refused) and not self.carrier.carries(self.cell.value)
        trouble = self.carrier.trouble.value
        stuck = [Violation("envoy", trouble)] if trouble else []
        reasons = (*self.refused, *self.trouble, *stuck, *self.ignored)
        return Report(self.is_up and not nothing_left, reasons, self.carrier.has_stream)


@dataclass(frozen=True, slots=True)
class Ignored:
    """Which policies about a proxy the built-in engine does not follow; asked again when one of ``kinds`` changes."""

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
    """Runs what carries proxies: those of the file from the start, selected Dataplanes as they come and go.

    ``carrier_for`` makes it of a proxy's resource and what the configuration says of the proxy. ``clean`` clears away
    what an earlier run left of proxies that are no more. ``reports`` tells who runs and what of it is refused, for
    insights; that is in the log too, and counted; and which policies the built-in engine does not follow, as
    ``ignored`` says. The identities of one that left for good are released. ``bound_vips`` is where the proxy that owns
    the VIPs takes connections, nowhere while it does not run, and ``served_views`` the views that its listeners are up
    to; None if this process has no such proxy. An address that a file's proxy cannot listen on ends the process
    (``ListenError``); one of a selected Dataplane is logged, reported and tried again, for it came through the API. An
    Envoy ends nothing: it is started again, and says why in ``reports``.
    """

    name = "proxies"

    def __init__(
        self,
        store: Store,
        wanted: Wanted,
        carrier_for: Callable[[Latest[Resource], ProxyEntry], Carrier],
        release: Callable[[str, str], Awaitable[None]],
        clean: Callable[[], Awaitable[None]],
        rng: random.Random,
        registry: CollectorRegistry,
        ignored: Ignored | None = None,
    ) -> None:
        self._store = store
        self._ignored = ignored or Ignored()
        self._wanted = wanted
        self._carrier_for = carrier_for
        self._release = release
        self._clean = clean
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
        """Run until cancelled; all of them then drain, or what else is wanted of an Envoy.

        Raises:
            ListenError: an address of a proxy of the file is taken.
        """
        with self._store.watch((*PROXY_KINDS, *self._ignored.kinds)) as feed:
            async with trio.open_nursery() as nursery:
                # The owner of the VIPs last: its wildcard sockets would take the ports of the others' inbounds.
                for key in sorted(self._wanted.own, key=lambda own: own == self._wanted.vip_owner):
                    running = self._prepare(key, self._wanted.own[key])
                    await nursery.start(running.carrier.service.run)
                    running.is_up = True
                    nursery.start_soon(self._follow_trouble, running)
                    if key == self._wanted.vip_owner and self.served_views is not None:
                        nursery.start_soon(self._follow_bound, running.carrier, running.carrier.bound_vips)
                        nursery.start_soon(self._follow_bound, running.carrier, running.carrier.ready)
                        nursery.start_soon(_follow, running.carrier.served_views, self.served_views)
                self._select(nursery, [r.key for r in self._store.list("Dataplane")])
                nursery.start_soon(self._clean)
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
        return all(key in self._running and self._running[key].carrier.ready.value for key in self._wanted.own)

    def _prepare(self, key: ResourceKey, entry: ProxyEntry) -> Running:
        resource = self._store.get(key)
        if resource is None:
            raise KeyError(f"{key} was not written at the start")
        cell = Latest(resource)
        running = Running(cell, self._carrier_for(cell, entry), trio.CancelScope())
        self._running[key] = running
        self._note_refused(running, running.carrier.refused(resource))
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
        # An Envoy follows them all.
        now = () if running.carrier.has_stream else self._ignored.of(running.cell.value)
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
                    running.carrier.retire()
                    running.scope.cancel()
                    del self._running[key]
                    self._note_refused(running, ())
            elif running is not None:
                running.cell.publish(resource)
                self._note_refused(running, running.carrier.refused(resource))
                self._note_ignored(running)
            elif (entry := self._wanted.entry_of(key)) is not None:
                nursery.start_soon(self._keep, self._prepare(key, entry))
        self._publish()

    def _publish(self) -> None:
        now = {key: running.report() for key, running in self._running.items()}
        if now != self.reports.value:
            self.reports.publish(now)

    async def _keep(self, running: Running) -> None:
        """Run what carries a selected Dataplane until that leaves, and then forget its identity and its counters."""
        key, carrier = running.cell.value.key, running.carrier
        with running.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow_trouble, running)
                name = carrier.service.name
                await retrying(partial(self._attempt, running), (ListenError,), name=name, rng=self._rng)
        if key not in self._running:  # it may have come back while connections drained
            carrier.forget()
            await self._release(key.mesh, key.name)

    async def _attempt(self, running: Running) -> None:
        def up() -> None:
            running.is_up, running.trouble = True, ()
            self._publish()

        try:
            await running.carrier.service.run(task_status=Told(up))
        except ListenError as error:
            running.trouble = (Violation("networking", str(error)),)
            raise
        finally:
            running.is_up = False
            self._publish()

    async def _follow_bound(self, carrier: Carrier, cell: Latest[BoundVips] | Latest[bool]) -> None:
        """Say where the VIPs are taken whenever ``cell`` changes. What an Envoy has said ends with it."""
        seen = 0
        while True:
            seen, _ = await cell.newer_than(seen)
            is_there = carrier.ready.value or not carrier.has_stream
            bound = carrier.bound_vips.value if is_there else BoundVips()
            if bound != self.bound_vips.value:
                self.bound_vips.publish(bound)

    async def _follow_trouble(self, running: Running) -> None:
        seen = running.carrier.trouble.version
        while True:
            seen, _ = await running.carrier.trouble.newer_than(seen)
            self._publish()


async def _follow(source: Latest[T], copy: Latest[T] | Latest[T | None]) -> None:
    seen = 0
    while True:
        seen, value = await source.newer_than(seen)
        copy.publish(value)


class SecretWatch:
    """Tells the engines that a Secret is not what it was.

    External services name certificates in them, and one is the CA of the way to the admin API of Envoys.
    """

    name = "secrets"

    def __init__(self, store: Store) -> None:
        self._store = store
        self.changes: Latest[int] = Latest(0)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        with self._store.watch(("Secret", "GlobalSecret")) as feed:
            task_status.started()
            while True:
                keys = await feed.take()
                if any(key.kind == "Secret" or key == CA_SECRET for key in keys):
                    self.changes.publish(self.changes.value + 1)
