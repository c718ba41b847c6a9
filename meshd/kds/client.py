"""A zone's side of KDS: keeps copies of what the global sends, sends what the zone has, comes back after every end.

The zone never waits for the global: everything else reads the store, which keeps the last state that was received.
"""

import logging
import random
import ssl
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import trio

from meshd.discovery import Node, fields
from meshd.kds import crossing, merge
from meshd.kds.address import check_token_use, parse
from meshd.kds.admin.client import Inspect, answer_questions
from meshd.kds.admin.wire import What
from meshd.kds.health import UNACKNOWLEDGED_S
from meshd.kds.keeper import (
    DEBOUNCE_S,
    ControlPlane,
    Quarantine,
    every_key,
    refresh,
    settled,
    unreadable,
)
from meshd.kds.ledger import KindSync, State
from meshd.kds.metrics import Metrics
from meshd.kds.outbox import Outbox
from meshd.kds.quarantine import Direction, Refusal
from meshd.kds.server import GLOBAL_TO_ZONE, HEALTH_CHECK, ZONE_TO_GLOBAL
from meshd.kds.session import Keeping, ReceivingStream, SendingStream
from meshd.model.errors import MeshdError, PeerError, UnavailableError
from meshd.model.resource import ResourceKey
from meshd.model.resource_type import Flow
from meshd.rpc import Channel, RpcError, RpcMetrics, Status, open_channel
from meshd.runtime.latest import Latest
from meshd.runtime.supervisor import leaves, retrying
from meshd.runtime.tls_files import check_certificates

log = logging.getLogger(__name__)

KDS_VERSION = "v3"
HEALTH_CHECK_S = 300.0
"""How often a zone says that it is well, unless the global asks for more (Kuma's default)."""
MIN_HEALTH_CHECK_S = 1.0
HEALTH_CHECK_TIMEOUT_S = 30.0
PING_EVERY_S = 20.0
"""A Kuma global ends connections that ping it more often than every 15 s."""
FREED_S = 1.0
"""Who deletes one resource in favour of the global's often deletes some more."""

TOKEN_AGAIN_S = 1.0
"""How often a zone looks for a token that is not there yet."""

COPIES_FIRST_S = 5.0
"""How long an upload waits for the global's resources after one that the global failed on."""
MAX_BACKOFF_S = 5.0
"""How long a zone waits at most before it calls again: a global that is back should have its zones within seconds."""

STOPPING = "this control plane is stopping"

Connect = Callable[[], AbstractAsyncContextManager[Channel]]


@dataclass(frozen=True, slots=True)
class ZoneStatus:
    """The zone's link to its global, up or down ``since``. ``error`` is why it is down, empty while it is up.

    ``complete`` are the kinds whose whole state was received on this connection, ``wanted`` all that are asked for.
    """

    connected: bool
    since: datetime
    error: str = ""
    complete: frozenset[str] = frozenset()
    wanted: frozenset[str] = frozenset()

    @property
    def synced(self) -> bool:
        """Whether everything that the global has for this zone was received on this connection."""
        return self.connected and self.complete >= self.wanted


def connector(
    address: str,
    ssl_context: ssl.SSLContext | None,
    *,
    has_token: bool,
    metrics: RpcMetrics | None = None,
) -> Connect:
    """How to connect to the global at ``address`` (``grpc[s]://HOST:PORT``).

    ``ssl_context`` verifies the global's certificate; with ``grpc://`` it is not used.

    Raises:
        InvalidError: the address cannot be read.
        DeniedError: the zone has a token and the connection would show it to whoever listens.
    """
    target = parse(address)
    verified = ssl_context is not None and ssl_context.verify_mode is ssl.CERT_REQUIRED and ssl_context.check_hostname
    if has_token:
        check_token_use(target, verified=verified)
    context = (ssl_context or client_context(None)) if target.tls else None
    return lambda: open_channel(target.host, target.port, context, metrics=metrics, name="kds")


def client_context(root_ca_file: str | None, *, skip_verify: bool = False) -> ssl.SSLContext:
    """A TLS context that trusts the CAs in a PEM file, or the system's.

    Raises:
        TlsFilesError: the file cannot be read or holds no certificate.
    """
    if root_ca_file is not None:
        check_certificates(Path(root_ca_file), "multizone.zone.kds.rootCaFile")
    context = ssl.create_default_context(cafile=root_ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class ZoneKds:
    """The zone's KDS, a service. ``status`` and ``quarantine.items`` are for REST and insights.

    ``connect`` opens a channel whose other end may be told the token. ``token`` is read before every connection, so a
    file can be replaced or come later: while it raises OSError or ValueError, or returns "", the zone waits and calls
    nobody. None: the zone has none to show. ``inspect`` asks the Envoy of a proxy of this zone for the global;
    without it the global cannot ask. ``config`` is a JSON text that a Kuma global shows, without secrets.
    """

    name = "kds-zone"

    def __init__(
        self,
        here: ControlPlane,
        zone: str,
        connect: Connect,
        rng: random.Random,
        *,
        token: Callable[[], str | None] = lambda: None,
        inspect: Inspect | None = None,
        config: str = '{"mode":"zone","environment":"universal","store":{"type":"memory"}}',
    ) -> None:
        self._here = here
        self._zone = zone
        self._connect = connect
        self._store = here.store
        self._now = here.now
        self._rng = rng
        self._metrics = Metrics(here.metrics, "zone")
        self._token = token
        self._inspect = inspect
        self._shown: str | None = None
        self._has_lost = False
        self._has_failed = False
        registry = here.registry
        across = {t.kind for t in registry.flowing(Flow.ACROSS_ZONES)}
        self._wanted = sorted({t.kind for t in registry.flowing(Flow.GLOBAL_TO_ZONE)} | across)
        own = [t.kind for t in registry.flowing(Flow.ZONE_TO_GLOBAL)]
        self._both_ways = frozenset(own) & frozenset(self._wanted)
        self._outbox = Outbox(registry, own, lambda type_, resource: crossing.to_global(type_, resource, zone))
        self._sending: SendingStream | None = None
        self._sent: SendingStream | None = None
        self._receiving: ReceivingStream | None = None
        build: dict[str, str] = {"version": here.version, "gitTag": "", "gitCommit": "", "buildDate": ""}
        self._node = Node(
            zone,
            metadata={
                "version": {"kumaCp": {**build}},
                "config": config,
                "control-plane-id": here.instance_id,
                "features": list(crossing.NODE_FEATURES),
            },
        )
        self.status: Latest[ZoneStatus] = Latest(ZoneStatus(connected=False, since=here.now(), error="not tried yet"))
        self.quarantine = Quarantine(self._metrics)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Stay connected until cancelled. Useful at once: a zone works without its global."""
        with self._store.watch(self._outbox.kinds) as feed:
            await refresh(self._outbox, every_key(self._store, self._outbox.kinds), self._store)
            self._hold_back(self._both_ways)
            self._note_unsendable()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._link)
                task_status.started()
                while True:
                    dirty = await settled(feed, DEBOUNCE_S)
                    changed = dict(await refresh(self._outbox, dirty, self._store))
                    for kind, names in self._hold_back({key.kind for key in dirty}).items():
                        changed[kind] = changed.get(kind, set()) | names
                    self._note_unsendable()
                    if self._sending is not None:
                        for kind, names in changed.items():
                            self._sending.changed(kind, names)

    def _hold_back(self, kinds: Iterable[str]) -> dict[str, set[str]]:
        """Look again at which resources of these kinds are not to be sent; returns the names that this concerns."""
        outbox, found = self._outbox, {}
        for kind in self._both_ways.intersection(kinds):
            found[kind] = outbox.hold_back(kind, crossing.names_taken(outbox.sources(kind), self._store.list(kind)))
        return found

    def _note_unsendable(self) -> None:
        outbox = self._outbox
        reasons = {**unreadable(self._store), **outbox.refused, **outbox.held_back}
        self.quarantine.replace("", Direction.SENT, reasons)

    async def _link(self) -> None:
        # DEBUG: ``_down`` has said it already, and with what it means for the zone.
        name = f"zone={self._zone} global"
        await retrying(
            self._once,
            (MeshdError, OSError),
            name=name,
            rng=self._rng,
            max_backoff_s=MAX_BACKOFF_S,
            level=logging.DEBUG,
        )

    async def _once(self) -> None:
        """One connection from beginning to end; always raises."""
        error: Exception | None = None
        self._shown = await self._wait_for_token()
        try:
            async with self._connect() as channel, trio.open_nursery() as nursery:
                nursery.start_soon(self._health_checks, channel)
                nursery.start_soon(self._watch, channel)
                nursery.start_soon(self._receive, channel)
                nursery.start_soon(self._send, channel)
                nursery.start_soon(self._names_freed)
                if self._inspect is not None:
                    for what in What:
                        nursery.start_soon(answer_questions, channel, self._metadata(), what, self._inspect)
        except Exception as raised:  # noqa: BLE001 raised again below, once the status says so
            error = raised
        finally:
            self._sending = None
            causes = leaves(error)
            self._has_failed = any(isinstance(e, RpcError) and e.status is Status.INTERNAL for e in causes)
            reasons = [str(e) for e in causes] or [STOPPING]
            is_away = all(isinstance(e, (UnavailableError, OSError)) for e in causes)
            self._down("; ".join(dict.fromkeys(reasons)), is_away=is_away)
        raise error or UnavailableError("the connection ended")

    async def _wait_for_token(self) -> str | None:
        """The token as it is now, None if the zone has none; waits for one that is not there yet."""
        reason = ""
        while True:
            why = "the zone token is empty"
            try:
                token = self._token()
            except (OSError, ValueError) as error:
                why = str(error)
            else:
                if token is None or token.strip():
                    return token and token.strip()
            if why != reason:
                reason = why
                log.info("zone=%s does not call its global yet: %s", self._zone, why)
                self._publish_down(why)
            await trio.sleep(TOKEN_AGAIN_S)

    def _metadata(self) -> list[tuple[str, str]]:
        """The metadata of every call, as a Kuma zone sends it, and the token."""
        metadata = [("client-id", self._zone), ("kds-version", KDS_VERSION), ("version", self._here.version)]
        metadata += [("features", feature) for feature in crossing.HEADER_FEATURES]
        return [*metadata, ("authorization", self._shown)] if self._shown else metadata

    # ------------------------------------------------------------------ the three calls

    async def _receive(self, channel: Channel) -> None:
        async with channel.stream(GLOBAL_TO_ZONE, self._metadata()) as stream:
            self._receiving = ReceivingStream(
                stream,
                self._node,
                self._wanted,
                Keeping(self._zone, self._here, merge.on_zone, self.quarantine, self._metrics),
                on_progress=self._up,
            )
            await self._receiving.run()

    async def _names_freed(self) -> None:
        """Wait until a resource is gone that kept one of the global's out, then raise UnavailableError.

        Nothing is sent twice on one stream; the next one brings it.
        """
        with self._store.watch(self._wanted) as feed:
            while True:
                dirty = await settled(feed, FREED_S)
                held = (q for q in self.quarantine.items.value if q.reason == merge.MADE_HERE)
                freed = dirty & {ResourceKey(q.kind, q.mesh, q.name) for q in held}
                gone = sorted(str(key) for key in freed if self._store.get(key) is None)
                if gone:
                    raise UnavailableError(f"{', '.join(gone)} of this zone is gone: asking again for the global's")

    async def _send(self, channel: Channel) -> None:
        if self._has_failed:
            # A Kuma global fails on a resource whose name it took. What to hold back is seen in the copies.
            with trio.move_on_after(COPIES_FIRST_S):
                while not self.status.value.synced:
                    await self.status.newer_than(self.status.version)
            self._hold_back(self._both_ways)
            self._note_unsendable()
        async with channel.stream(ZONE_TO_GLOBAL, self._metadata()) as stream:
            self._sending = SendingStream(
                stream,
                self._outbox,
                control_plane=self._zone,
                metrics=self._metrics,
                now=self._now,
                on_answer=self._answered,
            )
            self._sent = self._sending
            await self._sending.run()

    async def _watch(self, channel: Channel) -> None:
        """Raise once the global's transport does not answer: a zone with nothing to say would not notice."""
        while True:
            await trio.sleep(PING_EVERY_S)
            if not await channel.ping(UNACKNOWLEDGED_S):
                raise UnavailableError(f"no answer to an HTTP/2 ping within {UNACKNOWLEDGED_S:g} s")

    async def _health_checks(self, channel: Channel) -> None:
        """Say that the zone is well, as often as the global wants."""
        while True:
            try:
                answer = await channel.unary(HEALTH_CHECK, b"", self._metadata(), timeout_s=HEALTH_CHECK_TIMEOUT_S)
            except RpcError as error:
                if error.status is Status.UNIMPLEMENTED:
                    await trio.sleep_forever()
                raise
            try:
                pause_s = interval_s(answer) or HEALTH_CHECK_S
            except ValueError as error:
                raise PeerError(f"the answer to a health check is no ZoneHealthCheckResponse: {error}") from error
            await trio.sleep(pause_s)

    # ------------------------------------------------------------------ status

    def sync(self) -> Mapping[Direction, tuple[KindSync, ...]]:
        """How this zone and its global agree, kind by kind, on the newest connection; empty before the first."""
        status = self.status.value
        sent = self._sent.account() if self._sent is not None else ()
        received: tuple[KindSync, ...] = ()
        if not status.connected:
            sent = tuple(replace(s, since=s.since or status.since) if s.state is State.BEHIND else s for s in sent)
        if self._receiving is not None:
            received = self._receiving.account(is_open=status.connected, reason=f"no connection: {status.error}")
        return {Direction.SENT: sent, Direction.RECEIVED: received}

    def _up(self, complete: frozenset[str]) -> None:
        before = self.status.value
        if before.connected and before.complete == complete:
            return
        if not before.connected:
            log.info("zone=%s is connected to its global", self._zone)
            self._metrics.connected.set(1)
        since = before.since if before.connected else self._now()
        wanted = frozenset(self._wanted)
        self.status.publish(replace(before, connected=True, since=since, error="", complete=complete, wanted=wanted))
        if complete == wanted and before.complete != wanted:
            log.info("zone=%s has everything that the global has for it", self._zone)

    def _down(self, reason: str, *, is_away: bool) -> None:
        """Note why there is no connection, and say it unless it was said before.

        ``is_away``: nothing is wrong but that the global cannot be reached. That is worth one warning, so after a lost
        connection it is not warned of again.
        """
        before = self.status.value
        if before.connected:
            if reason == STOPPING:
                log.info("zone=%s leaves its global: %s", self._zone, reason)
            else:
                log.warning("zone=%s lost its global: %s; trying again", self._zone, reason)
            self._has_lost = True
            self._metrics.connected.set(0)
            self._metrics.ended.inc()
        elif before.error == reason:
            return
        elif reason != STOPPING:
            level = logging.INFO if self._has_lost and is_away else logging.WARNING
            log.log(level, "zone=%s cannot reach its global: %s; trying again", self._zone, reason)
        self._publish_down(reason)

    def _publish_down(self, reason: str) -> None:
        before = self.status.value
        since = self._now() if before.connected else before.since
        self.status.publish(replace(before, connected=False, since=since, error=reason, complete=frozenset()))

    def _answered(self, kind: str, error: str) -> None:
        refused = [Refusal(ResourceKey(kind, "", ""), error)] if error else []
        self.quarantine.after_batch(self._zone, Direction.SENT, kind, refused, complete=True)


def interval_s(answer: bytes) -> float:
    """The interval in a ``ZoneHealthCheckResponse``, kept within reason; 0 if there is none.

    Raises:
        ValueError: it is no such message.
    """
    seconds = 0.0
    for number, duration in fields.submessages(answer):
        if number == 1:
            for part, _, value in fields.fields(duration):
                if isinstance(value, int):
                    seconds += {1: 1.0, 2: 1e-9}.get(part, 0.0) * fields.signed(value)
    return min(max(seconds, MIN_HEALTH_CHECK_S), HEALTH_CHECK_S) if seconds > 0 else 0.0
