"""The proxies that are connected: who may be, what is stored of them while they are, and what when they are gone."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

import trio

from meshd.kinds.dataplane import Dataplane, InboundState
from meshd.model.errors import ConflictError, DeniedError, NotFoundError, UnavailableError
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.rpc import Connection, RpcError, ServerStream, Status
from meshd.store.store import Create, Delete, Store, Update
from meshd.xds import hds, lifecycle
from meshd.xds.arrivals import Arrivals
from meshd.xds.auth import Authn, authenticate, check_bearer, credential
from meshd.xds.metadata import KIND_OF, ProxyMetadata, mesh_and_name
from meshd.xds.metrics import Metrics
from meshd.xds.session import Session

log = logging.getLogger(__name__)

KINDS = tuple(dict.fromkeys(KIND_OF.values()))
DUPLICATE_PING_S = 2.0
"""The connection that has a name answers within so long, or loses it."""
RETURN_S = 90.0
"""After a start, proxies have so long to come back: Envoy tries again at least every 30 s."""
WRITE_ATTEMPTS = 10
CLEAN_EVERY_S = 600.0
TAKEN = "there is already an active stream from this node, try again later"
"""Kuma's words, which people search for."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How proxies are kept. ``health`` None: they are not asked to probe anything.

    A proxy that brought its resource and does not come back within ``deregistration`` takes it along; any that was
    connected once is deleted when it is gone for the ``cleanup_age`` of its kind.
    """

    authn: Authn
    deregistration: timedelta = timedelta(seconds=10)
    dataplane_cleanup_age: timedelta = timedelta(hours=72)
    zone_cleanup_age: timedelta = timedelta(hours=72)
    health: hds.HealthSettings | None = field(default_factory=hds.HealthSettings)

    @property
    def zone(self) -> str:
        """The zone of this control plane."""
        return self.authn.zone


@dataclass(frozen=True, slots=True)
class AdminAt:
    """Where an Envoy says that its admin API is: at the path of a Unix socket, "" for none, else at ``address``.

    ``port`` is the API's, or if it is at a socket that of its listener; 0: it has none. ``peer`` is where the proxy
    connects from.
    """

    socket: str
    address: str
    port: int
    peer: str


@dataclass(eq=False, slots=True)
class Live:
    """A proxy's stream. ``cut`` says why it is to end; ``session`` comes once it is served.

    ``admin`` is where its Envoy says that its admin API is.
    """

    key: ResourceKey
    connection: Connection
    scope: trio.CancelScope
    is_over: Callable[[], bool]
    session: Session | None = None
    cut: str = ""
    admin: AdminAt | None = None


class Proxies:
    """Admits proxies, and keeps the resources that they bring. ``run`` must be running.

    Its tasks are the departures: one for each proxy that is gone and whose resource is to go.
    """

    def __init__(
        self, store: Store, registry: Registry, settings: Settings, now: Callable[[], datetime], metrics: Metrics
    ) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings
        self._now = now
        self._metrics = metrics
        self._live: dict[ResourceKey, Live] = {}
        self._arrivals = Arrivals()
        self._departures: dict[ResourceKey, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def live(self) -> Mapping[ResourceKey, Live]:
        """The streams that are open."""
        return self._live

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; then nothing is deleted any more: proxies come back to the next run."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for kind in KINDS:
                for resource in self._store.list(kind):
                    if lifecycle.is_registered(resource, self._settings.zone):
                        self._depart(resource.key, RETURN_S)
            task_status.started()
            try:
                while True:
                    await trio.sleep(CLEAN_EVERY_S)
                    await self._clean()
            finally:
                self._nursery = None

    # ------------------------------------------------------------------ admission

    async def authenticated(self, stream: ServerStream, metadata: ProxyMetadata, *, wait_s: float = 0.0) -> Resource:
        """The resource that a call's proxy is or wants to be, once its token was checked. Nothing is stored.

        A resource that is neither brought nor stored is waited for.

        Raises:
            RpcError: UNAUTHENTICATED, NOT_FOUND, INVALID_ARGUMENT.
        """
        if metadata.problem:
            raise RpcError(Status.INVALID_ARGUMENT, metadata.problem)
        stored = self._store.get(metadata.key)
        if stored is None and metadata.resource is None and wait_s:
            stored = await self._appearing(metadata.key, wait_s)
        if stored is None and metadata.resource is None:
            key = metadata.key
            raise RpcError(
                Status.NOT_FOUND, f"{key} not found; create a {key.kind} first or pass it as an argument to kuma-dp"
            )
        self._authenticate(stream, [r for r in (stored, metadata.resource) if r is not None])
        if metadata.resource is None and stored is not None:
            lifecycle.check_owner(stored, self._settings.zone, replaced=False)
            return stored
        return cast("Resource", metadata.resource)

    def check_bearer(self, stream: ServerStream, node_id: str) -> None:
        """Refuse a call whose token cannot be that of this node, before what it sends is read.

        Raises:
            PeerError: the id is not that of a proxy.
            RpcError: UNAUTHENTICATED.
        """
        mesh, name = mesh_and_name(node_id)
        try:
            check_bearer(self._store, self._settings.authn, credential(stream.metadata), mesh, name, self._now())
        except DeniedError as error:
            raise RpcError(Status.UNAUTHENTICATED, f"{node_id}: authentication failed: {error}") from None

    def _authenticate(self, stream: ServerStream, resources: list[Resource]) -> None:
        try:
            token = credential(stream.metadata)
            authenticate(self._store, self._settings.authn, token, resources, self._now())
        except DeniedError as error:
            raise RpcError(Status.UNAUTHENTICATED, f"{resources[0].key}: authentication failed: {error}") from None

    async def _appearing(self, key: ResourceKey, wait_s: float) -> Resource | None:
        with self._store.watch((key.kind,)) as feed, trio.move_on_after(wait_s):
            while (stored := self._store.get(key)) is None:
                await feed.take()
            return stored
        return self._store.get(key)

    @asynccontextmanager
    async def connected(self, stream: ServerStream, metadata: ProxyMetadata) -> AsyncIterator[tuple[Live, Resource]]:
        """Hold the proxy's name while its stream is served; gives its resource as stored.

        Raises:
            RpcError: it may not be this proxy, or another stream is it.
            ConflictError, InvalidError, NotFoundError: its resource cannot be stored.
        """
        key = metadata.key
        await self.authenticated(stream, metadata)
        await self._make_room(stream, key)
        with trio.CancelScope() as scope:
            live = Live(key, stream.connection, scope, lambda: stream.failure is not None or stream.remote_ended)
            live.admin = AdminAt(
                metadata.admin_socket, metadata.admin_address, metadata.admin_port, stream.connection.peer
            )
            self._live[key] = live
            departure = self._departures.pop(key, None)
            if departure is not None:
                departure.cancel()
            try:
                await self._take_turn(live)
                resource = await self._register(stream, metadata)
                yield live, resource
            finally:
                if self._live.get(key) is live:
                    del self._live[key]
                    self._gone(key)
        raise RpcError(Status.UNAVAILABLE, live.cut or "the stream was ended")

    async def _take_turn(self, live: Live) -> None:
        """Let a proxy wait that connects again and again."""
        wait_s = self._arrivals.wait_s(live.key, trio.current_time())
        if wait_s:
            log.info("%s connects too often: it is served in %.1f s", live.key, wait_s)
            await trio.sleep(wait_s)
            if live.is_over():
                raise UnavailableError("the proxy has gone while it waited")

    async def _make_room(self, stream: ServerStream, key: ResourceKey) -> None:
        """End the stream that has the name if it does not answer; raise RpcError if it does."""
        live = self._live.get(key)
        if live is None:
            return
        is_over = live.is_over() or bool(live.connection.ended)
        why = "the earlier stream has ended"
        if not is_over and live.connection is not stream.connection:
            is_over = not await live.connection.ping(DUPLICATE_PING_S)
            why = f"the connection from {live.connection.peer} does not answer"
        if key not in self._live:
            return  # it has ended meanwhile
        if self._live[key] is not live:
            is_over = False  # somebody else was faster
        if not is_over:
            raise RpcError(Status.ALREADY_EXISTS, TAKEN)
        if self._live[key] is live:
            live.cut = f"connected anew from {stream.peer}, and {why}"
            log.info("%s: %s", key, live.cut)
            live.scope.cancel()
            del self._live[key]

    # ------------------------------------------------------------------ what they bring

    async def _register(self, stream: ServerStream, metadata: ProxyMetadata) -> Resource:
        """Store the resource that a proxy brings; the resource as it is stored."""
        for _ in range(WRITE_ATTEMPTS):
            stored = self._store.get(metadata.key)
            if metadata.resource is None:
                if stored is None:
                    raise NotFoundError(f"{metadata.key} was deleted")
                return stored
            wanted = self._wanted(metadata.resource, stored)
            # Once more, for what is stored may be another one by now, and labels were merged.
            self._authenticate(stream, [r for r in (stored, wanted) if r is not None])
            try:
                [written] = await self._store.write([Update(wanted) if stored is not None else Create(wanted)])
            except (ConflictError, NotFoundError) as error:
                if metadata.key.mesh and self._store.get(ResourceKey("Mesh", "", metadata.key.mesh)) is None:
                    raise NotFoundError(f"mesh not found: there is no mesh '{metadata.key.mesh}'") from error
                continue
            if stored is None or not stored.same_content(wanted):
                event = "created" if stored is None else "updated"
                log.info("%s %s for its proxy from %s", metadata.key, event, stream.peer)
                self._metrics.registered.labels(event).inc()
            return cast("Resource", written)
        raise UnavailableError(f"{metadata.key} was changed by others {WRITE_ATTEMPTS} times while it was written")

    def _wanted(self, brought: Resource, stored: Resource | None) -> Resource:
        key = brought.key
        mesh = self._store.get(ResourceKey("Mesh", "", key.mesh)) if key.mesh else None
        wanted = lifecycle.registered(
            brought,
            stored,
            mesh,
            self._registry[key.kind],
            zone=self._settings.zone,
            is_probed=self._settings.health is not None,
        )
        if key.kind == "Dataplane" and (stored is None or stored.spec != wanted.spec):
            lifecycle.check_services(wanted, self._store.list("Dataplane", key.mesh))
        return wanted

    def _gone(self, key: ResourceKey) -> None:
        """A stream has ended: the resource goes too if it came with it, unless the proxy comes back."""
        resource = self._store.get(key)
        if resource is not None and lifecycle.is_registered(resource, self._settings.zone):
            self._depart(key, self._settings.deregistration.total_seconds())

    def _depart(self, key: ResourceKey, delay_s: float) -> None:
        if self._nursery is not None:
            scope = self._departures[key] = trio.CancelScope()
            self._nursery.start_soon(self._departure, key, scope, delay_s)

    async def _departure(self, key: ResourceKey, scope: trio.CancelScope, delay_s: float) -> None:
        with scope:
            await trio.sleep(delay_s)
        if self._departures.get(key) is not scope or key in self._live:
            return
        del self._departures[key]
        resource = self._store.get(key)
        if resource is not None and lifecycle.is_registered(resource, self._settings.zone):
            await self._delete(resource, f"its proxy has not come back for {delay_s:g} s")

    async def _delete(self, resource: Resource, why: str) -> None:
        """Delete a resource unless its proxy is here, or somebody has changed it meanwhile."""
        key = resource.key
        while key not in self._live:
            try:
                await self._store.write([Delete(key, resource.version, missing_ok=True)])
            except ConflictError:
                latest = self._store.get(key)
                if latest is None or latest.labels != resource.labels:
                    return
                resource = latest
            except UnavailableError as error:
                log.warning("%s cannot be deleted: %s; trying again", key, error)
                await trio.sleep(self._settings.deregistration.total_seconds())
            else:
                log.info("%s deleted: %s", key, why)
                self._metrics.registered.labels("deleted").inc()
                return

    async def _clean(self) -> None:
        """Delete what has been gone for long."""
        settings = self._settings
        for kind in KINDS:
            age = settings.dataplane_cleanup_age if kind == "Dataplane" else settings.zone_cleanup_age
            insights = {(i.key.mesh, i.key.name): i for i in self._store.list(f"{kind}Insight")}
            for resource in lifecycle.expired(self._store.list(kind), insights, settings.zone, age, self._now()):
                await self._delete(resource, f"it was not connected for {age}")

    # ------------------------------------------------------------------ health

    async def report(self, key: ResourceKey, report: hds.Report) -> None:
        """Write what a proxy says of the inbounds of its Dataplane, if it is news."""
        for _ in range(WRITE_ATTEMPTS):
            stored = self._store.get(key)
            if stored is None or not isinstance(stored.spec, Dataplane):
                return
            spec = hds.reported(stored.spec, report)
            if spec is stored.spec:
                return
            try:
                await self._store.write([Update(_with_spec(stored, spec))])
            except (ConflictError, NotFoundError):
                continue
            for before, after in zip(stored.spec.networking.inbound, spec.networking.inbound, strict=True):
                if before.state is not after.state:
                    self._metrics.health.labels(after.state.value).inc()
                    level = logging.INFO if after.state is InboundState.READY else logging.WARNING
                    log.log(level, "%s: inbound of port %d is %s", key, after.port, after.state.value)
            return
        raise UnavailableError(f"{key} was changed by others {WRITE_ATTEMPTS} times while it was written")


def _with_spec(stored: Resource, spec: Dataplane) -> Resource:
    return Resource(stored.key, spec, stored.labels, stored.status, stored.owner, stored.version)
