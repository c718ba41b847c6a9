"""The global's side of KDS: admits zones, sends them what they may see, keeps what they send.

A zone's link is one connection: the call ``GlobalToZoneSync`` opens it, the other calls of the connection belong to
it, and they all end together, so that a zone always starts anew as a whole.
"""

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from weakref import WeakKeyDictionary

import trio

from meshd.ca import access, tokens
from meshd.discovery import DeltaRequest, Entry, Json, Node, wire
from meshd.kds import admission, crossing, health, merge
from meshd.kds.admin.server import AdminStreams
from meshd.kds.admin.wire import What
from meshd.kds.admission import AdmittedZone, Caller
from meshd.kds.keeper import (
    DEBOUNCE_S,
    ControlPlane,
    Quarantine,
    every_key,
    refresh,
    settled,
    unreadable,
)
from meshd.kds.ledger import KindSync
from meshd.kds.metrics import Metrics
from meshd.kds.outbox import Outbox
from meshd.kds.quarantine import Direction, Refusal
from meshd.kds.service import ENDED, FLUSH_S, SHUTTING_DOWN, Link, ZoneBook
from meshd.kds.session import Keeping, ReceivingStream, SendingStream
from meshd.kinds.zone import Zone
from meshd.kinds.zone_insight import KdsSubscription, Version
from meshd.model.errors import ConflictError, DeniedError
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.model.resource_type import Flow
from meshd.model.versions import compatible
from meshd.rpc import Connection, Handler, RpcError, ServerStream, Status
from meshd.runtime.latest import Latest
from meshd.store.store import Create

log = logging.getLogger(__name__)

SYNC = "/kuma.mesh.v1alpha1.KDSSyncService/"
GLOBAL_SERVICE = "/kuma.mesh.v1alpha1.GlobalKDSService/"
GLOBAL_TO_ZONE = SYNC + "GlobalToZoneSync"
ZONE_TO_GLOBAL = SYNC + "ZoneToGlobalSync"
HEALTH_CHECK = GLOBAL_SERVICE + "HealthCheck"

CONTROL_PLANE = "global"
FIRST_REQUEST_S = 10.0
"""A call that says nothing for so long is ended."""
LINK_S = 10.0
"""``ZoneToGlobalSync`` waits so long for its connection's ``GlobalToZoneSync``; a zone opens both at once."""
DUPLICATE_PING_S = 2.0
KEPT_REFUSALS = 100
KEPT_REFUSALS_OF_A_HOST = 20
"""Beyond so many zones or reasons a host's refusals are counted and shown, not logged."""


@dataclass(frozen=True, slots=True)
class RefusedConnection:
    """A connection that was turned away, for operators."""

    zone: str
    address: str
    at: datetime
    reason: str


class ZoneResources:
    """The outbox as one zone may see it. Reads like ``session.Offer``."""

    def __init__(
        self, outbox: Outbox, registry: Registry, zone: crossing.ZoneEnd, is_enabled: Callable[[str], bool]
    ) -> None:
        self._outbox = outbox
        self._registry = registry
        self._zone = zone
        self._is_enabled = is_enabled

    def get(self, type_url: str, name: str) -> Entry | None:
        """The resource if the zone may see it."""
        outgoing = self._outbox.find(type_url, name)
        if outgoing is None:
            return None
        type_ = self._registry[type_url]
        return outgoing.entry if crossing.admits(type_, outgoing.source, self._zone, self._is_enabled) else None

    def names(self, type_url: str) -> Iterable[str]:
        """The names of all resources of a type; ``get`` says which the zone may see."""
        return self._outbox.names(type_url)

    @property
    def kinds(self) -> frozenset[str]:
        """See ``session.Offer``."""
        return self._outbox.kinds

    def is_withheld(self, kind: str) -> bool:
        """See ``session.Offer``."""
        return self._outbox.is_withheld(kind)

    def kept_back(self, kind: str) -> str:
        """See ``session.Offer``."""
        return self._outbox.kept_back(kind)


class GlobalKds:
    """The global's KDS. ``handlers`` go into a ``GrpcServer``; ``run`` must be running for them to answer.

    ``zones`` says who is online and why not, ``quarantine.items`` what was refused, ``refused`` who was turned away
    (newest last). ``admin`` asks zones about the Envoys of their proxies. ``withheld`` are kinds of which zones are
    sent nothing, and the resources that are the reason: they are in the store and cannot be read, and without them a
    zone would delete its copies. Zones keep what they have of such a kind until somebody writes the resources anew.
    """

    name = "kds-global"

    def __init__(
        self,
        here: ControlPlane,
        *,
        unauthenticated_zones: Sequence[AdmittedZone] = (),
    ) -> None:
        self._here = here
        self._store = here.store
        self._registry = registry = here.registry
        self._now = here.now
        self._metrics = Metrics(here.metrics, "global")
        self._instance_id = here.instance_id
        self._admitted = tuple(unauthenticated_zones)
        across = {t.kind for t in registry.flowing(Flow.ACROSS_ZONES)}
        sent = {t.kind for t in registry.flowing(Flow.GLOBAL_TO_ZONE)} | across
        self._received = tuple(t.kind for t in registry.flowing(Flow.ZONE_TO_GLOBAL))
        self._across = across
        self._outbox = Outbox(registry, sent, crossing.to_zone)
        self._links: dict[str, Link] = {}
        self._linked = trio.lowlevel.ParkingLot()
        self._locks: dict[str, trio.Lock] = {}
        self._ready = trio.Event()
        self._checked: WeakKeyDictionary[Connection, datetime] = WeakKeyDictionary()
        self._book = ZoneBook(here, self._metrics)
        self.zones = self._book.zones
        self.refused: Latest[tuple[RefusedConnection, ...]] = Latest(())
        self.quarantine = Quarantine(self._metrics)
        self.admin = AdminStreams()
        self.handlers: Mapping[str, Handler] = {
            GLOBAL_TO_ZONE: self._global_to_zone,
            ZONE_TO_GLOBAL: self._zone_to_global,
            HEALTH_CHECK: self._health_check,
            **{GLOBAL_SERVICE + what.value: partial(self._admin_stream, what) for what in What},
        }

    # ------------------------------------------------------------------ the service

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the outbox and the zones' insights until cancelled; then every link ends with UNAVAILABLE."""
        kinds = self._outbox.kinds | {"Zone"}
        with self._store.watch(kinds) as feed:
            await refresh(self._outbox, every_key(self._store, self._outbox.kinds), self._store)
            self._note_unsendable()
            await self._book.close_old()
            self._ready.set()
            task_status.started()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._book.keep)
                    while True:
                        await self._spread(await settled(feed, DEBOUNCE_S))
            finally:
                self._ready = trio.Event()
                for link in list(self._links.values()):
                    link.end(SHUTTING_DOWN)
                    self._leave(link)
                with trio.CancelScope(shield=True, deadline=trio.current_time() + FLUSH_S):
                    await self._book.flush()

    async def _spread(self, dirty: frozenset[ResourceKey]) -> None:
        """Tell every link what of these changes concerns it."""
        changed = dict(await refresh(self._outbox, dirty, self._store))
        for kind in self._note_unsendable():
            changed.setdefault(kind, set()).update(self._outbox.names(kind))
        zones = {key.name for key in dirty if key.kind == "Zone"}
        for zone in zones:
            if self._store.get(ResourceKey("Zone", "", zone)) is None:
                self._forget(zone)
        if zones:
            # Whether a zone is enabled decides on everything that came from it.
            for kind in self._across:
                changed.setdefault(kind, set()).update(self._outbox.names(kind))
        for link in self._links.values():
            if link.sending is not None:
                for kind, names in changed.items():
                    link.sending.changed(kind, names)

    @property
    def withheld(self) -> Mapping[str, str]:
        """See the class."""
        return self._outbox.withheld

    def sync_of(self, zone: str) -> Mapping[Direction, tuple[KindSync, ...]] | None:
        """How a zone and this global agree, kind by kind; None of one that has not called since the global started."""
        return self._book.sync_of(zone)

    def has_zone(self, zone: str) -> bool:
        """Whether there is a Zone of that name."""
        return self._store.get(ResourceKey("Zone", "", zone)) is not None

    def _note_unsendable(self) -> frozenset[str]:
        """Note what cannot be sent; returns the kinds that are withheld no more."""
        before = self._outbox.withheld
        lost = [k for k in self._store.unreadable() if k.kind in self._registry]
        back = self._outbox.withhold(k for k in lost if crossing.is_missed(self._registry[k.kind], k))
        for kind, keys in self._outbox.withheld.items():
            if kind not in before:
                log.error(
                    "kind=%s: no zone is sent anything of it, for %s cannot be read from the store: zones keep what"
                    " they have; write it anew over the API (then delete it, if it is not wanted)",
                    kind,
                    keys,
                )
        for kind in sorted(back):
            log.info("kind=%s is sent to zones again", kind)
        self.quarantine.replace("", Direction.SENT, {**unreadable(self._store), **self._outbox.refused})
        return back

    def _forget(self, zone: str) -> None:
        """A Zone was deleted: its link goes, and with the next one it is made anew."""
        link = self._links.get(zone)
        if link is not None:
            link.end(f"zone {zone!r} was deleted on the global")
            self._leave(link)
        self.quarantine.forget(zone)
        self._book.forget(zone)

    def _is_enabled(self, zone: str) -> bool:
        resource = self._store.get(ResourceKey("Zone", "", zone))
        return resource is None or not isinstance(resource.spec, Zone) or resource.spec.is_enabled

    # ------------------------------------------------------------------ calls

    async def _global_to_zone(self, stream: ServerStream) -> None:
        caller, authenticated = await self._authenticate(stream)
        admission.check_features(caller.zone, stream.metadata)
        first = await self._first_request(stream, caller)
        link = await self._admit(stream, caller, first, authenticated=authenticated)
        sending = SendingStream(
            stream,
            ZoneResources(self._outbox, self._registry, link.zone, self._is_enabled),
            control_plane=CONTROL_PLANE,
            metrics=self._metrics,
            now=self._now,
            on_answer=lambda kind, error: self._answered(caller.zone, kind, error),
            answers_since=link.answers_since,
        )
        sending.take(first)
        link.sending = sending
        link.streams[health.GLOBAL_TO_ZONE] = link.since
        self._book.arrived(link)
        try:
            await link.within(stream, lambda: self._serve(link, sending, caller))
        finally:
            self._leave(link)

    async def _serve(self, link: Link, sending: SendingStream, caller: Caller) -> None:
        def check() -> None:
            # It may have expired or been revoked since.
            if caller.token:
                access.authenticate_zone(self._store, caller.token, caller.zone, tokens.CONTROL_PLANE, self._now())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sending.run)
            nursery.start_soon(link.watch, self._book, check)

    async def _zone_to_global(self, stream: ServerStream) -> None:
        caller, _ = await self._authenticate(stream)
        admission.check_features(caller.zone, stream.metadata)
        link = await self._link_of(stream, caller)
        link.streams[health.ZONE_TO_GLOBAL] = self._now()
        self._book.touch(caller.zone)
        keeping = Keeping(
            caller.zone,
            self._here,
            lambda batch, store: merge.on_global(batch, store, caller.zone),
            self.quarantine,
            self._metrics,
        )
        receiving = ReceivingStream(
            stream,
            self._node(caller.zone),
            self._received,
            keeping,
            on_progress=lambda _: None,
            answers_since=link.answers_since,
        )
        link.receiving = receiving
        await link.within(stream, receiving.run)

    def _node(self, zone: str) -> Node:
        """Who asks a zone: its own name as id, as Kuma's zones want it (T14)."""
        build: dict[str, Json] = {"version": self._here.version, "gitTag": "", "gitCommit": "", "buildDate": ""}
        return Node(
            zone,
            metadata={
                "version": {"kumaCp": build},
                "config": "",
                "control-plane-id": self._instance_id,
                "features": list(crossing.NODE_FEATURES),
            },
        )

    async def _health_check(self, stream: ServerStream) -> None:
        caller, _ = await self._authenticate(stream)
        await stream.receive()
        # A Kuma zone checks first of all: then there is no link yet.
        self._checked[stream.connection] = self._now()
        link = self._links.get(caller.zone)
        if link is not None and link.connection is stream.connection:
            link.health_check = self._now()
            self._book.touch(caller.zone)
        # No interval: the zone keeps its own.
        await stream.send(b"")

    async def _admin_stream(self, what: What, stream: ServerStream) -> None:
        """Ask about Envoys on it. It stays open as long as the link: its end would make a Kuma zone reconnect."""
        caller, _ = await self._authenticate(stream)
        link = await self._link_of(stream, caller)
        name = what.name.lower()
        link.streams[name] = since = self._now()
        self._book.touch(caller.zone)
        try:
            await link.within(stream, partial(self.admin.serve, caller.zone, what, stream), vital=False)
        finally:
            if link.streams.get(name) is since:  # not that of a newer one, which is the one that is asked
                del link.streams[name]
            self._book.touch(caller.zone)

    # ------------------------------------------------------------------ admission

    async def _authenticate(self, stream: ServerStream) -> tuple[Caller, bool]:
        """Who calls, and whether by a token. Nothing else of the call is looked at before."""
        await self._ready.wait()
        zone = ""
        try:
            caller = admission.caller_of(stream.metadata, stream.peer)
            zone = caller.zone
            if caller.token:
                access.authenticate_zone(self._store, caller.token, zone, tokens.CONTROL_PLANE, self._now())
                return caller, True
            shown = self._book.token_was_shown(zone)
            admission.check_tokenless(caller, self._admitted, token_shown_before=shown)
        except (DeniedError, RpcError) as error:
            refusal = (
                error if isinstance(error, RpcError) else RpcError(Status.UNAUTHENTICATED, f"zone {zone!r}: {error}")
            )
            self._turned_away(zone, stream.peer, refusal)
            raise refusal from None
        return caller, False

    def _turned_away(self, zone: str, address: str, error: RpcError) -> None:
        """Put a refusal on record; logged once until another reason comes."""
        self._metrics.refused_connections.labels(error.status.name).inc()
        before = self.refused.value
        host = admission.host_of(address)
        from_host = [r for r in before if admission.host_of(r.address) == host]
        same = [r for r in from_host if (r.zone, r.reason) == (zone, error.message)]
        if not same:
            # A host that comes under ever new names neither fills the log nor pushes out what others were told.
            full = len(from_host) >= KEPT_REFUSALS_OF_A_HOST
            level = logging.DEBUG if full else logging.WARNING
            log.log(level, "zone=%s from=%s is refused: %s", zone, address, error.message)
            same = from_host[:1] if full else []
        kept = [r for r in before if r not in same]
        newest = RefusedConnection(zone, address, self._now(), error.message)
        self.refused.publish((*kept, newest)[-KEPT_REFUSALS:])

    async def _first_request(self, stream: ServerStream, caller: Caller) -> DeltaRequest:
        data: bytes | None = None
        with trio.move_on_after(FIRST_REQUEST_S):
            data = await stream.receive()
        if data is None:
            raise RpcError(Status.INVALID_ARGUMENT, "the stream ended or was silent before its first request")
        try:
            request = wire.decode_request(data)
        except ValueError as error:
            raise RpcError(Status.INVALID_ARGUMENT, f"no DeltaDiscoveryRequest: {error}") from error
        said = request.node.id if request.node else ""
        if said != caller.zone:
            raise RpcError(Status.INVALID_ARGUMENT, f"node.id is {said[:80]!r}, but client-id is {caller.zone!r}")
        return request

    async def _admit(self, stream: ServerStream, caller: Caller, first: DeltaRequest, *, authenticated: bool) -> Link:
        """Give the connection the zone's name, if it may have it."""
        node = first.node or Node(caller.zone)
        introduced = health.introduction(node.metadata)
        async with self._locks.setdefault(caller.zone, trio.Lock()):
            if not authenticated and self._book.token_was_shown(caller.zone):
                await self._authenticate(stream)  # it was, while this call waited: refuse as at the beginning
            await self._make_room(stream, caller, introduced.instance_id, authenticated=authenticated)
            await self._register(caller.zone, authenticated=authenticated)
            since = self._now()
            subscription = KdsSubscription(
                id=str(uuid.uuid4()),
                global_instance_id=self._instance_id,
                connect_time=since,
                version=self._judged(introduced.version),
                config=introduced.config,
                auth_token_provided=authenticated,
                zone_instance_id=introduced.instance_id,
            )
            end = crossing.ZoneEnd(caller.zone, introduced.features)
            link = Link(end, stream.connection, introduced.instance_id, authenticated, since, subscription)
            link.health_check = self._checked.get(stream.connection)
            self._links[caller.zone] = link
            self._linked.unpark_all()
            return link

    def _judged(self, version: Version) -> Version:
        build = version.kuma_cp
        if build is None:
            return version
        fits = compatible(self._here.version, build.version)
        return version.model_copy(update={"kuma_cp": build.model_copy(update={"kuma_cp_global_compatible": fits})})

    async def _make_room(self, stream: ServerStream, caller: Caller, instance_id: str, *, authenticated: bool) -> None:
        """End the link that has the name, if this connection may replace it; raise RpcError if not."""
        link = self._links.get(caller.zone)
        if link is None or link.ended:
            return
        same = link.connection is stream.connection
        holder = admission.Holder(link.instance_id, link.connection.peer, same, is_silent=bool(link.silence))
        if admission.needs_ping(holder, instance_id, authenticated=authenticated):
            holder = replace(holder, answers=await link.connection.ping(DUPLICATE_PING_S))
            if self._links.get(caller.zone) is not link:
                return  # it went by itself
        try:
            reason = admission.check_duplicate(holder, caller.zone, instance_id, authenticated=authenticated)
        except RpcError as error:
            self._turned_away(caller.zone, stream.peer, error)
            raise
        link.end(reason)
        self._leave(link)

    async def _register(self, zone: str, *, authenticated: bool) -> None:
        """Create the Zone of a newcomer, and remember that it showed a token before anything is sent to it."""
        key = ResourceKey("Zone", "", zone)
        if self._store.get(key) is None:
            try:
                await self._store.write([Create(Resource(key, Zone(enabled=True)))])
            except ConflictError:
                log.debug("zone=%s was created by somebody else", zone)
        if authenticated:
            await self._book.remember_token(zone)

    async def _link_of(self, stream: ServerStream, caller: Caller) -> Link:
        """The link that the call's connection has opened."""
        with trio.move_on_after(LINK_S):
            while True:
                link = self._links.get(caller.zone)
                if link is not None and link.connection is stream.connection and not link.ended:
                    return link
                await self._linked.park()
        raise RpcError(
            Status.FAILED_PRECONDITION,
            f"zone {caller.zone!r}: this connection has no GlobalToZoneSync that was accepted",
        )

    def _leave(self, link: Link) -> None:
        """Take a link that has ended off the list."""
        link.end(ENDED)
        if self._links.get(link.zone.name) is link:
            del self._links[link.zone.name]
            self._book.left(link)

    def _answered(self, zone: str, kind: str, error: str) -> None:
        """A zone acknowledged or rejected a response: NACKs say what in words, not which resource in a field."""
        refused = [Refusal(ResourceKey(kind, "", ""), error)] if error else []
        self.quarantine.after_batch(zone, Direction.SENT, kind, refused, complete=True)
        self._book.touch(zone)
