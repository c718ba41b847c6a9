"""One ADS stream of one proxy, in either form of the protocol: what it asks for, what it is sent, what it takes."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from meshd.discovery import (
    Answer,
    DeltaRequest,
    DeltaResponse,
    Node,
    Refused,
    Resources,
    Sender,
    StateOfTheWorld,
    StateRequest,
    StateResponse,
    state_wire,
    wire,
)
from meshd.insight.streams import Stream
from meshd.model.errors import PeerError, UnavailableError
from meshd.runtime.steps import one_step, small_step
from meshd.xds.metrics import OTHER, SHORT, Metrics
from meshd.xds.nacks import blame, violations
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ORDER, ROUTES, WILDCARD, ProxyFeed

log = logging.getLogger(__name__)

MAX_TYPES = 32
"""Types that a proxy may ask for on one stream, known here or not; Envoy has under 20."""
MAX_TYPE_URL = 256
MAX_NAMES = 100_000
"""Names of nothing that there is that one stream may make us remember, over all types."""
LARGE_BYTES = 4096
"""A request above that takes its turn: a proxy that comes back tells the version of every resource that it has."""
FEW = 20
"""A response that is about no more resources is a small step."""
RESPONSE_BYTES = 3 * 1024 * 1024
"""A delta response is cut above so much: Envoy's Google gRPC client takes 4 MiB (``xdsGrpcMaxReceiveMessageBytes``)."""
LATE = frozenset({CLUSTER, ENDPOINTS})
"""Clusters and endpoints go only after the listeners and routes that led to them."""
NEEDS = {LISTENER: (CLUSTER,), ROUTES: (CLUSTER,)}
"""What leads to clusters goes after them. Secrets and endpoints do not wait: clusters warm until they have theirs, and
Envoy answers when they are warm."""
RENEWS = {CLUSTER: ENDPOINTS}
"""A cluster that is updated warms until its endpoints come, and Envoy does not ask for what it has asked for."""

Request = DeltaRequest | StateRequest
Response = DeltaResponse | StateResponse


class Machine(Protocol):
    """``Sender`` or ``StateOfTheWorld``."""

    @property
    def types(self) -> tuple[str, ...]:
        """The types that were asked for."""

    @property
    def size(self) -> int:
        """How many names are remembered, at most."""

    def strange(self, request: Any) -> int:
        """How many names of nothing that there is would be remembered with this request."""

    def receive(self, request: Any) -> Answer:
        """Take in one request."""

    def changed(self, type_url: str, names: Iterable[str]) -> None:
        """These changed."""

    @property
    def news(self) -> int:
        """About how many names the next ``poll`` looks at; 0 is certain."""

    def poll(self, now: float, types: Sequence[str], late: Collection[str]) -> Response | None:
        """The next response."""

    def refusals(self) -> Mapping[str, Mapping[str, Refused]]:
        """What is refused."""

    def accepted(self, type_url: str) -> Mapping[str, str]:
        """Versions by name that the proxy has."""


@dataclass(frozen=True, slots=True)
class Form:
    """One of the two forms of the protocol. ``id_path`` leads, by field numbers, to the node's id in a request."""

    name: str
    id_path: tuple[int, ...]
    decode: Callable[[bytes], Request]
    encode: Callable[[Any], Sequence[bytes]]
    machine: Callable[[Resources, str], Machine]


DELTA = Form(
    "delta",
    (1, 1),
    wire.decode_request,
    wire.response_parts,
    lambda resources, instance: Sender(
        resources, instance, blame=blame, limit_bytes=RESPONSE_BYTES, renews=RENEWS, needs=NEEDS
    ),
)
STATE_OF_THE_WORLD = Form(
    "sotw",
    (2, 1),
    state_wire.decode_request,
    state_wire.response_parts,
    lambda resources, instance: StateOfTheWorld(
        resources, instance, whole=WILDCARD, blame=blame, renews=RENEWS, needs=NEEDS
    ),
)


class Pipe(Protocol):
    """The server's end of a call."""

    async def send_parts(self, parts: Sequence[bytes]) -> None:
        """Send one message that comes in parts."""

    async def receive(self) -> bytes | None:
        """The next message, None after a clean end."""


def decoded(form: Form, data: bytes) -> Request:
    """A request of a proxy.

    Raises:
        PeerError: it is none.
    """
    try:
        return form.decode(data)
    except ValueError as error:
        raise PeerError(f"a message that is no discovery request ({form.name}): {error}") from error


class Session:
    """Serves one stream. ``record`` is kept up to date; ``on_answer`` is told the type of every ACK and NACK.

    The feed is the keeper's; this is its one reader.
    """

    def __init__(
        self,
        pipe: Pipe,
        form: Form,
        node: Node,
        feed: ProxyFeed,
        record: Stream,
        *,
        instance_id: str,
        metrics: Metrics,
        on_answer: Callable[[str, Answer], None],
    ) -> None:
        self._pipe = pipe
        self._form = form
        self._node = node
        self._feed = feed
        self._record = record
        self._metrics = metrics
        self._on_answer = on_answer
        self._machine = form.machine(feed, instance_id)
        self._order: tuple[str, ...] = ORDER
        self._work = trio.Event()
        self._ready = trio.Event()
        self._logged: frozenset[tuple[str, str, str]] = frozenset()

    def accepted(self, type_url: str) -> Mapping[str, str]:
        """What the proxy has of a type: versions by name."""
        return self._machine.accepted(type_url)

    async def run(self, first: Request) -> None:
        """Serve until the call ends; always raises.

        Raises:
            PeerError: the proxy broke the protocol.
            UnavailableError, RpcError: the call ended.
        """
        self._feed.wake = self._wake
        self._wake()
        self._take(first)
        del first
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            nursery.start_soon(self._write)

    def _wake(self) -> None:
        self._work.set()
        if self._feed.ready:
            self._ready.set()

    async def _read(self) -> None:
        while True:
            data = await self._pipe.receive()
            if data is None:
                raise UnavailableError("the proxy ended its side of the stream")
            if len(data) < LARGE_BYTES:
                self._take(decoded(self._form, data))
                continue
            await self._ready.wait()  # as it is decoded it takes ten times the room, before it is seen to be known
            async with one_step():
                self._take(decoded(self._form, data))

    def _take(self, request: Request) -> None:
        self._check(request)
        answer = self._machine.receive(request)
        self._work.set()
        if answer is Answer.NONE:
            return
        type_url = request.type_url
        short = SHORT.get(type_url, OTHER)
        counts = self._record.count(short)
        self._metrics.responses.labels(short, answer.value).inc()
        if answer is Answer.ACK:
            counts.acknowledged += 1
        else:
            counts.rejected += 1
        if self._record.refused or answer is Answer.NACK:
            self._note_refused()
        self._on_answer(type_url, answer)

    def _check(self, request: Request) -> None:
        """Bound what a proxy can make us remember, and hold it to who it was at first."""
        if request.node is not None and request.node.id not in ("", self._node.id):
            raise PeerError(
                f"the stream is that of node {self._node.id[:256]!r}; it cannot become {request.node.id[:256]!r}"
            )
        type_url = request.type_url
        if type_url not in self._machine.types:
            if not type_url or len(type_url) > MAX_TYPE_URL:
                raise PeerError(f"a type url of {len(type_url)} characters is asked for: {type_url[:64]!r}")
            if len(self._machine.types) >= MAX_TYPES:
                raise PeerError(f"more than {MAX_TYPES} types are asked for on one stream")
            if type_url not in self._order:
                self._order = (*self._order, type_url)
        if isinstance(request, DeltaRequest):
            more = len(request.subscribe) + len(request.initial_versions)
        else:
            more = len(request.names)
        # Names of what there is are as many as there are services, and are shared. To look for the others takes long.
        if more and self._machine.size + more > MAX_NAMES and self._machine.strange(request) > MAX_NAMES:
            raise PeerError(f"more than {MAX_NAMES} names of nothing that there is are asked for on one stream")

    def _note_refused(self) -> None:
        """Put on record what is refused now; each refusal is logged once."""
        refusals = self._machine.refusals()
        now = frozenset(
            (t, name, refused.version) for t, by_name in refusals.items() for name, refused in by_name.items()
        )
        for type_url, name, version in sorted(now - self._logged):
            reason = " ".join(refusals[type_url][name].reason.split())
            log.warning(
                "%s refuses %s %s version=%s: %s",
                self._record.proxy,
                SHORT.get(type_url, type_url),
                name,
                version,
                reason,
            )
        for type_url, name in sorted({x[:2] for x in self._logged} - {x[:2] for x in now}):
            log.info("%s refuses %s %s no more", self._record.proxy, SHORT.get(type_url, type_url), name)
        self._logged = now
        self._record.refused = violations(refusals)

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            if not self._feed.ready:
                continue  # not rendered yet: that is not the same as having nothing
            while (response := await self._next()) is not None:
                await self._pipe.send_parts(response)

    async def _next(self) -> Sequence[bytes] | None:
        """The next response to what the feed has now, encoded.

        A change concerns a thousand streams at once: they take turns.
        """
        for type_url, names in self._feed.take().items():
            self._machine.changed(type_url, names)
        news = self._machine.news
        if not news:
            return None
        async with one_step() if news > FEW else small_step():
            response = self._machine.poll(trio.current_time(), self._order, LATE)
            if response is None:
                return None
            short = SHORT.get(response.type_url, OTHER)
            self._record.count(short).sent += 1
            self._metrics.responses.labels(short, "sent").inc()
            self._metrics.resources.labels(short).inc(len(response.resources))
            return self._form.encode(response)
