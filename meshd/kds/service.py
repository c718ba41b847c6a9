"""The book of zones: the links that are open, who is online and why not, and their ZoneInsights in the store."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import trio

from meshd.kds import crossing, health
from meshd.kds.keeper import ControlPlane
from meshd.kds.ledger import KindSync, State
from meshd.kds.metrics import Metrics
from meshd.kds.quarantine import Direction
from meshd.kds.session import ReceivingStream, SendingStream
from meshd.kinds.zone_insight import KdsSubscription, ZoneInsight
from meshd.model import labels as label
from meshd.model.errors import MeshdError, NotFoundError, UnavailableError
from meshd.model.resource import Resource, ResourceKey
from meshd.rpc import Connection, RpcError, ServerStream, Status
from meshd.runtime.latest import Latest
from meshd.runtime.supervisor import leaves
from meshd.store.store import Put

log = logging.getLogger(__name__)

ENDED = "the connection ended"
SHUTTING_DOWN = "the global is shutting down"
FLUSH_S = 1.0
"""Counts in a ZoneInsight are at most so old; who is online is written at once."""
PING_EVERY_S = 5.0
PING_TIMEOUT_S = 5.0
"""Two of these and a connection whose packets vanish is offline: the limit of promise P8."""
SILENT_S = 20.0
"""A zone that is offline for its silence keeps its connection for so long. A Kuma zone gives up after 15 to 30 s."""


def nobody_waits() -> trio.Event:
    """An event that is set already."""
    event = trio.Event()
    event.set()
    return event


@dataclass(eq=False, slots=True)
class Link:
    """One zone's connection. ``streams`` are those that are open, see ``health.with_streams``.

    ``silence`` is why the zone is offline although the link has not ended: its transport does not answer, which a cut
    that is over soon looks like as well. Then TCP goes on where it was, while calls that we ended would have a Kuma
    zone wait for up to a minute before it calls again. Whoever may have the name can take it from a silent link.
    """

    zone: crossing.ZoneEnd
    connection: Connection
    instance_id: str
    authenticated: bool
    since: datetime
    subscription: KdsSubscription
    sending: SendingStream | None = None
    receiving: ReceivingStream | None = None
    streams: dict[str, datetime] = field(default_factory=dict)
    health_check: datetime | None = None
    ended: str = ""
    offline_at: datetime | None = None
    silence: str = ""
    heard: trio.Event = field(default_factory=nobody_waits)
    heard_at: float = 0.0
    scopes: set[trio.CancelScope] = field(default_factory=set)

    @property
    def offline_reason(self) -> str:
        """Why the zone is not online over this link; empty while it is."""
        return self.ended or self.silence

    async def answers_since(self) -> float:
        """The time since when the transport has answered; while ``watch`` has found that it does not, this waits."""
        if self.heard.is_set():
            # Time enough for the watch to find out, if what is late was sent into a silence. Whether there is an answer
            # to this ping itself does not matter: a peer that answers some of them must not have its time anew.
            await self.connection.ping(PING_TIMEOUT_S)
        await self.heard.wait()
        return self.heard_at

    async def watch(self, book: "ZoneBook", check: Callable[[], None]) -> None:
        """Ask the transport now and then whether it is there, and ``check`` that the zone may still be.

        Raises:
            UnavailableError: it was silent for too long.
        """
        while True:
            await trio.sleep(PING_EVERY_S)
            check()
            if await self.connection.ping(PING_TIMEOUT_S):
                continue
            reason = f"no answer to an HTTP/2 ping within {PING_TIMEOUT_S:g} s"
            self.silence, self.heard = reason, trio.Event()
            book.left(self)
            if not await self.connection.ping(SILENT_S):
                raise UnavailableError(reason)
            check()
            self.heard_at = trio.current_time()
            self.heard.set()
            if self.sending is not None:
                # Not online yet: something may be unacknowledged for too long, be it for the silence.
                await self.sending.caught_up()
            self.silence = ""
            book.is_back(self)

    def end(self, reason: str) -> None:
        """End every call of the link; the first reason stays."""
        if not self.ended:
            self.ended = reason
        for scope in self.scopes:
            scope.cancel()

    async def within(self, stream: ServerStream, work: Callable[[], Awaitable[None]], *, vital: bool = True) -> None:
        """Run a call's work as a part of the link: the link's end ends it, and if it is vital, its end ends the link.

        Always raises: an ``RpcError`` UNAVAILABLE when the link ended for another reason than this call.
        """
        try:
            with trio.CancelScope() as scope:
                self.scopes.add(scope)
                if self.ended:
                    scope.cancel()
                await work()
        except Exception as error:
            known = first_known(error)
            if vital:
                self.end(str(known) if known is not None else "a bug in the global; its log says more")
            if known is None:
                raise
            raise known from None
        except BaseExceptionGroup as group:
            # The call was cancelled from outside while something failed in it.
            _, rest = group.split(trio.Cancelled)
            if vital:
                self.end(str((rest and first_known(rest)) or stream.failure or ENDED))
            raise
        except BaseException:
            if vital:
                self.end(str(stream.failure or ENDED))
            raise
        finally:
            self.scopes.discard(scope)
        raise RpcError(Status.UNAVAILABLE, self.ended)


def first_known(error: BaseException) -> MeshdError | None:
    """The first of meshd's own errors in an exception or group; None if there is anything else in it."""
    found = leaves(error)
    return next((e for e in found if isinstance(e, MeshdError)), None) if all(map(is_known, found)) else None


def is_known(error: BaseException) -> bool:
    """Whether an exception is weather or a peer's fault."""
    return isinstance(error, (MeshdError, trio.Cancelled))


class ZoneBook:
    """What is known of every zone. ``zones`` is for REST; ZoneInsights are written by ``keep``."""

    def __init__(self, here: ControlPlane, metrics: Metrics) -> None:
        self._store = here.store
        self._now = here.now
        self._instance_id = here.instance_id
        self._metrics = metrics
        self._newest: dict[str, Link] = {}
        self._stale: set[str] = set()
        self._flush = trio.Event()
        self._hurry = trio.Event()
        self.zones: Latest[Mapping[str, health.ZoneState]] = Latest({})

    def arrived(self, link: Link) -> None:
        """A zone is online."""
        zone = link.zone.name
        self._newest[zone] = link
        how = "by token" if link.authenticated else "WITHOUT a token, as the configuration admits it"
        log.info("zone=%s is online from %s, instance %s, %s", zone, link.connection.peer, link.instance_id, how)
        self._online(link, link.since)

    def is_back(self, link: Link) -> None:
        """A link that was silent is not: its zone is online again, unless another has taken its place."""
        if self._newest.get(link.zone.name) is link and not link.ended:
            log.info("zone=%s is online again: its connection answers", link.zone.name)
            self._online(link, self._now())

    def _online(self, link: Link, since: datetime) -> None:
        zone = link.zone.name
        link.offline_at = None
        self._metrics.connected.inc()
        state = health.ZoneState(
            name=zone,
            online=True,
            since=since,
            address=link.connection.peer,
            instance_id=link.instance_id,
            authenticated=link.authenticated,
        )
        self.zones.publish({**self.zones.value, zone: state})
        self.touch(zone, transition=True)

    def left(self, link: Link) -> None:
        """A link has ended or fell silent; if it was that of an online zone, the zone is offline."""
        zone = link.zone.name
        if self._newest.get(zone) is not link:
            return
        state = self.zones.value[zone]
        reason = link.offline_reason
        if link.ended:
            self._metrics.ended.inc()
        if state.online:
            level = logging.INFO if link.ended == SHUTTING_DOWN else logging.WARNING
            log.log(level, "zone=%s is offline: %s", zone, reason)
            self._metrics.connected.dec()
            link.offline_at = self._now()
        since = link.offline_at or state.since
        self.zones.publish({**self.zones.value, zone: replace(state, online=False, since=since, reason=reason)})
        self.touch(zone, transition=True)

    def sync_of(self, zone: str) -> Mapping[Direction, tuple[KindSync, ...]] | None:
        """How the zone's newest connection stands, or stood when it ended; None: it has not called yet.

        What happened here since it ended is not in a stream's own account of when it fell behind.
        """
        link = self._newest.get(zone)
        if link is None:
            return None
        sent = link.sending.account() if link.sending is not None else ()
        offline = link.offline_at
        if offline is not None:
            sent = tuple(replace(s, since=s.since or offline) if s.state is State.BEHIND else s for s in sent)
        came, reason = link.receiving, link.offline_reason
        received = came.account(is_open=not reason, reason=f"offline: {reason}") if came is not None else ()
        return {Direction.SENT: sent, Direction.RECEIVED: received}

    def forget(self, zone: str) -> None:
        """A Zone was deleted, and its insight with it."""
        self._newest.pop(zone, None)
        self._stale.discard(zone)
        self.zones.publish({name: state for name, state in self.zones.value.items() if name != zone})

    def token_was_shown(self, zone: str) -> bool:
        """Whether the zone has ever shown a token."""
        return self._labels(zone).get(label.ZONE_TOKEN_SHOWN) == "true"

    async def remember_token(self, zone: str) -> None:
        """From now on the zone may not come without one."""
        if not self.token_was_shown(zone):
            await self._put(zone, self._insight(zone), {label.ZONE_TOKEN_SHOWN: "true"})

    def touch(self, zone: str, *, transition: bool = False) -> None:
        """The insight of a zone is to be written, at once if it came or went."""
        self._stale.add(zone)
        self._flush.set()
        if transition:
            self._hurry.set()

    async def keep(self) -> None:
        """Write what is stale until cancelled: at once if a zone came or went, else gathered for ``FLUSH_S``."""
        failing = False
        while True:
            await self._flush.wait()
            with trio.move_on_after(FLUSH_S):
                await self._hurry.wait()
            self._flush, self._hurry = trio.Event(), trio.Event()
            stale = frozenset(self._stale)
            try:
                await self.flush()
            except UnavailableError as error:
                if not failing:
                    log.warning("insights of zones cannot be stored: %s; trying again", error)
                failing = True
                self._stale |= stale
                self._flush.set()
            else:
                failing = False

    async def flush(self) -> None:
        """Store what is known of every zone that something happened to."""
        while self._stale:
            zone = self._stale.pop()
            link = self._newest.get(zone)
            if link is not None:
                await self._put(zone, self._insight_of(zone, link), {label.OFFLINE_REASON: link.offline_reason})

    def _insight_of(self, zone: str, link: Link) -> ZoneInsight:
        counts = link.sending.counts if link.sending is not None else {}
        link.subscription = link.subscription.model_copy(
            update={"status": health.status_of(counts, self._now()), "disconnect_time": link.offline_at}
        )
        insight = health.with_subscription(self._insight(zone), link.subscription)
        insight = health.with_streams(insight, self._instance_id, {} if link.offline_reason else link.streams)
        return health.with_health_check(insight, link.health_check)

    def _insight(self, zone: str) -> ZoneInsight:
        stored = self._store.get(ResourceKey("ZoneInsight", "", zone))
        return stored.spec if stored is not None and isinstance(stored.spec, ZoneInsight) else ZoneInsight()

    def _labels(self, zone: str) -> Mapping[str, str]:
        stored = self._store.get(ResourceKey("ZoneInsight", "", zone))
        return stored.labels if stored is not None else {}

    async def _put(self, zone: str, insight: ZoneInsight, labels: Mapping[str, str]) -> None:
        """Store an insight, with these labels changed; an empty one is dropped."""
        merged = {k: v for k, v in {**self._labels(zone), **labels}.items() if v}
        owner = ResourceKey("Zone", "", zone)
        try:
            await self._store.write(
                [Put(Resource(ResourceKey("ZoneInsight", "", zone), insight, labels=merged, owner=owner))]
            )
        except NotFoundError as error:
            log.debug("zone=%s: %s", zone, error)

    async def close_old(self) -> None:
        """At the start nobody is connected, whatever an earlier process that was killed left behind."""
        at = self._now()
        for resource in self._store.list("ZoneInsight"):
            if isinstance(resource.spec, ZoneInsight) and resource.spec.is_online:
                insight = health.with_streams(health.all_closed(resource.spec, at), self._instance_id, {})
                await self._put(resource.key.name, insight, {label.OFFLINE_REASON: "the global was started anew"})
