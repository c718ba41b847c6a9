"""Keeps the views of a zone's meshes, its VIPs and its ingresses' ``availableServices`` true to the store.

The only writer of the VIP Configs and of ``availableServices``. Level-triggered: it reads the newest state of the
keys that changed. VIPs are committed before a view has them; while the store is away the views go on with the VIPs
that are committed.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import IPv4Network
from typing import cast

import trio
from prometheus_client import CollectorRegistry

from meshd.kinds.config import Config
from meshd.kinds.zone_ingress import AvailableService, ZoneIngress
from meshd.model import labels as label
from meshd.model.errors import ConflictError, NotFoundError, UnavailableError
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.model.steps import Steps
from meshd.runtime.latest import Latest
from meshd.runtime.steps import in_steps
from meshd.store.store import Delete, Edit, Put, Store, Update
from meshd.topology.build import KINDS, Topology
from meshd.topology.metrics import KeeperMetrics
from meshd.topology.view import MeshView
from meshd.topology.vips import (
    TOMBSTONES_CONFIG,
    Allocation,
    Book,
    Pool,
    VipEntry,
    VipKey,
    allocating,
    config_name,
    mesh_of_config,
    read_book,
    tombstones_text,
    writing_config,
)

log = logging.getLogger(__name__)

QUIET_S = 0.02
"""A burst is over when nothing changed for this long."""
MAX_WAIT_S = 0.1
"""And is taken in after this long in any case; a change after a calm of this length is taken in at once."""
RETRY_S = 1.0
"""How long to wait when the store was away."""


@dataclass(frozen=True, slots=True)
class VipSettings:
    """``dnsServer``'s part: names end in ``domain``, addresses come from ``cidr``, ``port`` leads to services."""

    domain: str = "mesh"
    cidr: str | IPv4Network = "240.0.0.0/4"
    port: int = 80


class Keeper:
    """See the module. ``views`` has the view of each mesh by name; an unchanged view keeps its identity.

    Raises:
        ValueError: the CIDR has no address to give out.
    """

    name = "topology"

    def __init__(
        self,
        store: Store,
        registry: Registry,
        zone: str,
        vips: VipSettings,
        now: Callable[[], datetime],
        metrics: CollectorRegistry,
    ) -> None:
        self.views: Latest[Mapping[str, MeshView]] = Latest({})
        self._store = store
        self._zone = zone
        self._now = now
        self._kinds = (*KINDS, *(type_.kind for type_ in registry if type_.is_policy))
        self._topology = Topology(zone, vips.domain, vips.port)
        self._pool = Pool(vips.cidr)
        self._book = Book()
        self._configs: dict[str, str] = {}
        self._entries: Mapping[str, tuple[VipEntry, ...]] | None = None
        self._without: tuple[VipKey, ...] = ()
        self._metrics = KeeperMetrics(metrics)
        self._worked_at = -math.inf
        self._retry_at = math.inf

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the store until cancelled; started once the first views are published."""
        with self._store.watch(self._kinds) as feed:
            self._read_configs()
            everything = (resource for kind in self._kinds for resource in self._store.list(kind))
            await in_steps(self._apply(resource.key for resource in everything))
            await self._settle()
            task_status.started()
            while True:
                dirty: set[ResourceKey] = set()
                with trio.move_on_at(self._retry_at):
                    dirty |= await feed.take()
                if trio.current_time() - self._worked_at < MAX_WAIT_S:
                    deadline = trio.current_time() + MAX_WAIT_S
                    quiet = False
                    while dirty and not quiet:
                        with trio.move_on_at(min(trio.current_time() + QUIET_S, deadline)) as pause:
                            dirty |= await feed.take()
                        quiet = pause.cancelled_caught
                self._metrics.changes.inc(len(dirty))
                await in_steps(self._apply(dirty))
                await self._settle()

    def _apply(self, keys: Iterable[ResourceKey]) -> Steps[None]:
        for key in keys:
            self._topology.apply(key, self._store.get(key))
            yield

    async def _settle(self) -> None:
        """Bring VIPs, views and offers up to date with what was applied."""
        began = trio.current_time()
        self._retry_at = math.inf
        await self._keep_vips()
        await in_steps(self._topology.rebuild(self._book.addresses))
        views = self._topology.views
        before = self.views.value
        changed = [name for name, view in views.items() if before.get(name) is not view]
        if changed or views.keys() != before.keys():
            self._worked_at = trio.current_time()
            self._metrics.published.inc(len(changed))
            self._note(before, views, changed)
            self.views.publish(views)
        await self._keep_offers()
        self._metrics.rebuild_seconds.observe(trio.current_time() - began)

    def _read_configs(self) -> None:
        self._configs = {
            resource.key.name: cast("Config", resource.spec).config
            for resource in self._store.list("Config")
            if resource.key.name == TOMBSTONES_CONFIG or mesh_of_config(resource.key.name) is not None
        }
        self._book, problems = read_book(self._configs)
        for problem in problems:
            log.warning("%s", problem)

    async def _keep_vips(self) -> None:
        """Allocate, commit, and only then use."""
        entries = self._topology.entries()
        if self._entries is not None and not self._without and _same(entries, self._entries):
            return
        allocation, configs = await in_steps(self._allocate(entries))
        book = allocation.book
        edits: list[Edit] = [
            Put(self._config(name, text)) for name, text in configs.items() if self._configs.get(name) != text
        ]
        edits += [Delete(_key(name), missing_ok=True) for name in self._configs if name not in configs]
        if edits:
            try:
                await self._store.write(edits)
            except UnavailableError as error:
                self._store_away("VIPs", error)
                return
        self._configs, self._book, self._entries = configs, book, entries
        self._metrics.vips.set(len(book.addresses))
        self._metrics.without_vip.set(len(allocation.without))
        if allocation.without and allocation.without != self._without:
            log.error(
                "no virtual IP is free in %s for %d names, the first is '%s' of mesh %s; widen dnsServer.CIDR",
                self._pool.network,
                len(allocation.without),
                allocation.without[0].name,
                allocation.without[0].mesh,
            )
        self._without = allocation.without
        if allocation.without and book.tombstones:
            # The next address comes free by time alone.
            first = min(stone.until for stone in book.tombstones.values())
            self._retry_in(max(RETRY_S, (first - self._now()).total_seconds()))

    def _allocate(self, entries: Mapping[str, tuple[VipEntry, ...]]) -> Steps[tuple[Allocation, dict[str, str]]]:
        """Who gets which address, and what that is as Configs."""
        wanted = {entry.key for of_mesh in entries.values() for entry in of_mesh}
        yield
        allocation = yield from allocating(self._book, wanted, self._pool, self._now())
        book = allocation.book
        configs: dict[str, str] = {}
        for mesh, of_mesh in entries.items():
            if (text := (yield from writing_config(of_mesh, book.addresses))) != "{}":
                configs[config_name(mesh)] = text
        if book.tombstones:
            configs[TOMBSTONES_CONFIG] = tombstones_text(book.tombstones)
        return allocation, configs

    def _config(self, name: str, text: str) -> Resource:
        labels = {label.ORIGIN: label.ORIGIN_ZONE, label.ZONE: self._zone}
        return Resource(_key(name), Config(config=text), labels)

    async def _keep_offers(self) -> None:
        """Write what the local ingresses have to offer, where the store says otherwise."""
        offer = self._topology.offer()
        for ingress in self._topology.local_ingresses():
            if cast("ZoneIngress", ingress.spec).available_services == offer:
                continue
            try:
                await self._write_offer(ingress.key, offer)
            except UnavailableError as error:
                self._store_away(f"availableServices of {ingress.key}", error)

    async def _write_offer(self, key: ResourceKey, offer: tuple[AvailableService, ...]) -> None:
        while (stored := self._store.get(key)) is not None:
            spec = cast("ZoneIngress", stored.spec)
            updated = replace(stored, spec=spec.model_copy(update={"available_services": offer}), wire=None)
            try:
                if spec.available_services != offer:
                    await self._store.write([Update(updated)])
            except (ConflictError, NotFoundError):
                continue  # somebody else wrote the ingress first: look again
            self._topology.apply(key, self._store.get(key))
            return

    def _store_away(self, what: str, error: UnavailableError) -> None:
        self._metrics.store_away.inc()
        log.warning("cannot store %s: %s; trying again", what, error)
        self._retry_in(RETRY_S)

    def _retry_in(self, delay_s: float) -> None:
        self._retry_at = min(self._retry_at, trio.current_time() + delay_s)

    def _note(self, before: Mapping[str, MeshView], after: Mapping[str, MeshView], changed: Iterable[str]) -> None:
        for name in changed:
            self._metrics.services.labels(name).set(len(after[name].services))
            old = before[name].reasons if name in before else ()
            for reason in after[name].reasons:
                if reason not in old:
                    log.warning("mesh %s: %s", name, reason)
        for name in before.keys() - after.keys():
            self._metrics.services.remove(name)


def _same(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether both have the very same objects."""
    return one.keys() == other.keys() and all(one[key] is other[key] for key in one)


def _key(name: str) -> ResourceKey:
    return ResourceKey("Config", "", name)
