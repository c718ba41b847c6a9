"""``InsightKeeper``: keeps MeshInsight and ServiceInsight of every mesh true, on a global or a standalone zone."""

import logging
import random
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import cast

import trio
from prometheus_client import CollectorRegistry, Counter, Histogram

from meshd.insight.computed import STEP, Proxy, compute_mesh_insight, compute_service_insight, read
from meshd.kinds.proxy_insights import DataplaneInsight
from meshd.kinds.service_insight import ServiceInsight
from meshd.model.errors import ConflictError, NotFoundError, UnavailableError
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey, Spec
from meshd.model.resource_type import Scope
from meshd.model.steps import Steps
from meshd.runtime.steps import in_steps
from meshd.runtime.supervisor import retrying
from meshd.store.store import Create, Store, Update

log = logging.getLogger(__name__)

DEBOUNCE_S = 1.0
"""At most one computation a mesh in this time: Kuma's rate, and nobody steers by these counts."""


def service_insight_name(mesh: str) -> str:
    """Kuma has one ServiceInsight a mesh, and this is its name."""
    return f"all-services-{mesh}"


class InsightKeeper:
    """A service. ``domain`` and ``port`` are what services are reached under; ``clock`` measures (seconds)."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        domain: str,
        port: int,
        metrics: CollectorRegistry,
        rng: random.Random,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.name = "insight keeper"
        self._store = store
        self._registry = registry
        self._domain = domain
        self._port = port
        self._rng = rng
        self._clock = clock
        self._known: dict[str, dict[str, tuple[Resource, Resource | None, Proxy]]] = {}
        self._counted = tuple(t for t in registry if t.scope is Scope.MESH and not t.read_only)
        self._watched = ("Mesh", "DataplaneInsight", *(t.kind for t in self._counted))
        self._writes = Counter("meshd_insight_writes_total", "Insights that changed.", ["kind"], registry=metrics)
        self._seconds = Histogram(
            "meshd_insight_compute_seconds", "Computing the insights of a mesh.", registry=metrics
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compute all, then what changed, until cancelled."""
        task_status.started()
        await retrying(self._follow, (UnavailableError, ConflictError, NotFoundError), name=self.name, rng=self._rng)

    async def _follow(self) -> None:
        with self._store.watch(self._watched) as feed:
            await self.refresh(mesh.key.name for mesh in self._store.list("Mesh"))
            while True:
                changed = await feed.take()
                await trio.sleep(DEBOUNCE_S)
                changed |= feed.take_now()
                await self.refresh({key.name if key.kind == "Mesh" else key.mesh for key in changed})

    async def refresh(self, meshes: Iterable[str]) -> None:
        """Compute the insights of these meshes and store what changed; a mesh that is gone has taken its own along.

        Raises:
            UnavailableError, ConflictError: the store is away, or somebody else wrote them.
        """
        for mesh in sorted(meshes):
            if self._store.get(ResourceKey("Mesh", "", mesh)) is None:
                self._known.pop(mesh, None)
                continue
            began = self._clock()
            edits = await in_steps(self._edits(mesh))
            self._seconds.observe(self._clock() - began)
            if edits:
                await self._store.write(edits)
                for edit in edits:
                    self._writes.labels(edit.resource.key.kind).inc()
            else:
                await trio.lowlevel.checkpoint()

    def _edits(self, mesh: str) -> Steps[list[Create | Update]]:
        proxies = yield from self._read(mesh)
        external = self._store.list("ExternalService", mesh)
        counts = {t.kind: len(self._store.list(t.kind, mesh)) for t in self._counted}
        policies = {t.kind: counts[t.kind] for t in self._counted if t.is_policy}
        yield
        mesh_key = ResourceKey("MeshInsight", "", mesh)
        services_key = ResourceKey("ServiceInsight", mesh, service_insight_name(mesh))
        stored_services = self._store.get(services_key)
        before = cast("ServiceInsight", stored_services.spec).services if stored_services is not None else {}
        counted = yield from compute_mesh_insight(proxies, external, policies, counts)
        services = yield from compute_service_insight(proxies, external, self._domain, self._port, before)
        wanted: list[tuple[ResourceKey, Spec]] = [(mesh_key, counted), (services_key, services)]
        edits: list[Create | Update] = []
        for key, spec in wanted:
            stored = self._store.get(key)
            if stored is None:
                edits.append(Create(Resource(key, spec, owner=ResourceKey("Mesh", "", mesh))))
            elif stored.spec != spec:
                edits.append(Update(_with_spec(stored, spec)))
        return edits

    def _read(self, mesh: str) -> Steps[list[Proxy]]:
        """Every Dataplane of a mesh with its insight; those that are as they were at the last call are kept."""
        insights = {i.key.name: i for i in self._store.list("DataplaneInsight", mesh)}
        before = self._known.get(mesh, {})
        known: dict[str, tuple[Resource, Resource | None, Proxy]] = {}
        for number, dataplane in enumerate(self._store.list("Dataplane", mesh)):
            if number % STEP == 0:
                yield
            name = dataplane.key.name
            insight, seen = insights.get(name), before.get(name)
            if seen is None or seen[0] is not dataplane or seen[1] is not insight:
                spec = cast("DataplaneInsight", insight.spec) if insight is not None else None
                seen = (dataplane, insight, read(dataplane, spec))
            known[name] = seen
        self._known[mesh] = known
        return [proxy for _, _, proxy in known.values()]


def _with_spec(stored: Resource, spec: Spec) -> Resource:
    return Resource(stored.key, spec, stored.labels, stored.status, stored.owner, stored.version)
