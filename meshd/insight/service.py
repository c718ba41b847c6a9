"""``ProxyInsights``: says in the store which proxies run here or are connected, and with which certificates."""

import logging
import random
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Protocol, cast

import trio

from meshd.insight.proxies import (
    INSIGHTS,
    Report,
    Run,
    Shown,
    certified,
    connected,
    ended,
    insight_key,
    never_connected,
    reported,
)
from meshd.insight.streams import Stream, streaming, touched
from meshd.kinds.mesh import Mesh
from meshd.model.errors import ConflictError, NotFoundError, UnavailableError, Violation
from meshd.model.resource import Resource, ResourceKey
from meshd.runtime.latest import Latest
from meshd.runtime.supervisor import retrying
from meshd.store.store import Create, Edit, Store, Update

log = logging.getLogger(__name__)

ATTEMPTS = 10
"""How often an insight that others change meanwhile is read again before it is left for later."""

FLUSH_S = 10.0
"""Counts of a stream that is open are at most so old (Kuma's interval); that it opened or closed is said at once."""
GATHER_S = 0.1
"""What is to be said at once is gathered for so long: proxies come and go in crowds."""
BATCH = 25
"""Insights that are written in one transaction."""

GOODBYE_S = 2.0
"""How long the last write may take at shutdown; what it leaves open the next start ends."""


class Cell(Protocol):
    """A ``Latest`` of what a proxy shows."""

    @property
    def version(self) -> int:
        """How many values there have been."""

    @property
    def value(self) -> Shown:
        """The newest."""

    async def newer_than(self, seen: int) -> tuple[int, Shown]:
        """Wait for one above ``seen``."""


class ProxyInsights:
    """A service for the control plane of a zone.

    ``proxies`` are the proxies that run here, which are in the store (a cell: they may come and go). ``credentials_of``
    gives the cell of a Dataplane's credentials, the same one as long as it is in force, or None if it has none; it is
    asked as proxies come and go, and for connected ones whenever their insight is written. ``instance_id`` is new for
    every run of the process. Insights of proxies that do not run here are only closed, at the start: nobody else writes
    to a zone's store, so an open subscription of another run is what a crash left behind.

    Proxies that are connected are told of with ``open``, ``touch`` and ``close``, by who serves their streams.
    """

    def __init__(
        self,
        store: Store,
        proxies: Latest[Mapping[ResourceKey, Report]],
        credentials_of: Callable[[ResourceKey], Cell | None],
        instance_id: str,
        now: Callable[[], datetime],
        rng: random.Random,
    ) -> None:
        self.name = "proxy insights"
        self._store = store
        self._proxies = proxies
        self._credentials_of = credentials_of
        self._followed: dict[ResourceKey, tuple[Cell, trio.CancelScope]] = {}
        self._instance_id = instance_id
        self._now = now
        self._rng = rng
        self._streams: dict[ResourceKey, Stream] = {}
        self._unwritten: set[Stream] = set()
        self._refusals: dict[ResourceKey, tuple[Violation, ...]] = {}
        self._work = trio.Event()
        self._hurry = trio.Event()

    def open(self, stream: Stream) -> None:
        """A proxy has connected."""
        self._streams[stream.proxy] = stream
        self.touch(stream, hurry=True)

    def touch(self, stream: Stream, *, hurry: bool = False) -> None:
        """Something of a stream changed: it is written within ``FLUSH_S``, or soon."""
        self._unwritten.add(stream)
        self._work.set()
        if hurry:
            self._hurry.set()

    def refuse(self, proxy: ResourceKey, reasons: tuple[Violation, ...]) -> None:
        """A proxy has shown who it is, and is not served; its insight says why until a stream of it is."""
        self._refusals[proxy] = reasons
        self._work.set()
        self._hurry.set()

    def close(self, stream: Stream) -> None:
        """A proxy is connected no more by this stream."""
        if stream.disconnected is None:
            stream.disconnected = self._now()
        if self._streams.get(stream.proxy) is stream:
            del self._streams[stream.proxy]
        self.touch(stream, hurry=True)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Close what is stale, then follow the proxies and their certificates until cancelled, then say goodbye.

        Owns a nursery with one task a certificate.
        """
        await self._close_stale()
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._retrying, self._follow_streams)
                await self._retrying(partial(self._follow_proxies, nursery))
        finally:
            with trio.move_on_after(GOODBYE_S, shield=True):
                await self._goodbye()

    async def _retrying(self, attempt: Callable[[], object]) -> None:
        await retrying(attempt, (UnavailableError,), name=self.name, rng=self._rng)  # type: ignore[arg-type]

    async def _follow_streams(self) -> None:
        while True:
            await self._work.wait()
            with trio.move_on_after(FLUSH_S):
                await self._hurry.wait()
            await trio.sleep(GATHER_S)
            self._work, self._hurry = trio.Event(), trio.Event()
            try:
                await self._flush()
            except UnavailableError:
                self._work.set()  # what is unwritten stays so
                raise

    async def _flush(self) -> None:
        """Write the insights of all streams of which something is not written yet."""
        while self._refusals:
            proxy, reasons = next(iter(self._refusals.items()))
            if proxy not in self._streams:
                await self._change(proxy, partial(self._refused, proxy, reasons))
            if self._refusals.get(proxy) is reasons:
                del self._refusals[proxy]
        while self._unwritten:
            streams = sorted(self._unwritten, key=lambda s: (s.proxy, s.connected))[:BATCH]
            await self._write_streams(streams)

    async def _write_streams(self, streams: list[Stream]) -> None:
        self._unwritten.difference_update(streams)
        for stream in streams:
            touched(stream, self._now())
        try:
            edits: dict[ResourceKey, Edit] = {}
            alone = []
            for stream in streams:
                stored = self._store.get(insight_key(stream.proxy))
                changed = self._of_stream(stream, stored)
                if stream.proxy in edits:
                    alone.append(stream)  # an earlier stream of the same proxy: one after the other
                elif changed is not None:
                    edits[stream.proxy] = Update(changed) if stored is not None else Create(changed)
            try:
                await self._store.write(list(edits.values()))
            except (ConflictError, NotFoundError):
                alone = streams
            for stream in alone:
                await self._change(stream.proxy, partial(self._of_stream, stream))
        except UnavailableError:
            self._unwritten.update(streams)
            raise

    def _of_stream(self, stream: Stream, stored: Resource | None) -> Resource | None:
        """The insight of a connected proxy; None if its resource is gone, which has taken the insight along."""
        if self._store.get(stream.proxy) is None:
            return None
        shown = streaming(stream, stored, self._instance_id, self._proxies.value.get(stream.proxy, Report()).refused)
        if stream.proxy.kind == "Dataplane" and stream.disconnected is None:
            cell = self._credentials_of(stream.proxy)
            if cell is not None:
                shown = self._certify(stream.proxy.mesh, cell.value, shown) or shown
        return shown

    def _refused(self, proxy: ResourceKey, reasons: tuple[Violation, ...], stored: Resource | None) -> Resource | None:
        if self._store.get(proxy) is None:
            return None
        return reported(stored or never_connected(proxy), reasons)

    async def _follow_proxies(self, certificates: trio.Nursery) -> None:
        said: dict[ResourceKey, Report] = {}
        with self._store.watch(tuple(INSIGHTS)) as feed:
            while True:
                seen, wanted = self._proxies.version, self._proxies.value
                present = {p: r for p, r in wanted.items() if self._store.get(p) is not None}
                for proxy in sorted(p for p, report in present.items() if said.get(p) != report):
                    await self._change(proxy, partial(self._show, proxy, present[proxy]))
                for proxy in sorted(p for p in said.keys() - wanted.keys() if not said[p].has_stream):
                    await self._change(proxy, lambda stored: ended(stored, "", self._now()) if stored else None)
                said = present
                self._follow_certificates(certificates)
                # wakes when the set changes, and when a proxy's resource comes into the store
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._wake, nursery, partial(self._proxies.newer_than, seen))
                    nursery.start_soon(self._wake, nursery, feed.take)

    def _follow_certificates(self, nursery: trio.Nursery) -> None:
        """Follow the credentials of the Dataplanes that are there now, and of no others."""
        reports = self._proxies.value
        ours = [p for p in reports if p.kind == "Dataplane" and not reports[p].has_stream]
        here = [p for p in ours if self._store.get(p) is not None]
        cells = {proxy: cell for proxy in here if (cell := self._credentials_of(proxy)) is not None}
        for proxy, (cell, scope) in list(self._followed.items()):
            if cells.get(proxy) is not cell:
                scope.cancel()
                del self._followed[proxy]
        for proxy in sorted(cells.keys() - self._followed.keys()):
            scope = trio.CancelScope()
            self._followed[proxy] = (cells[proxy], scope)
            nursery.start_soon(self._follow_certificate, proxy, cells[proxy], scope)

    @staticmethod
    async def _wake(nursery: trio.Nursery, wait: Callable[[], object]) -> None:
        await wait()  # type: ignore[misc]
        nursery.cancel_scope.cancel()

    def _show(self, proxy: ResourceKey, report: Report, stored: Resource | None) -> Resource | None:
        """The insight of a proxy that is here: online if it is carried, and what of it is not."""
        mine = getattr(stored.spec, "subscriptions", ()) if stored is not None else ()
        is_open = any(s.is_open and s.control_plane_instance_id == self._instance_id for s in mine)
        refused = report.refused
        if report.has_stream:
            if stored is None and not refused:
                return None
            stream = self._streams.get(proxy)
            refused += stream.reasons if stream is not None else ()
            shown = stored if stored is not None else never_connected(proxy)
        elif report.is_carried and not is_open:
            run = Run(self._instance_id, str(uuid.UUID(int=self._rng.getrandbits(128), version=4)))
            shown = connected(proxy, stored, run, self._now())
        elif stored is None:
            shown = never_connected(proxy)
        else:
            shown = stored if report.is_carried else ended(stored, "", self._now())
        return reported(shown, refused, None if report.has_stream else {})

    async def _follow_certificate(self, proxy: ResourceKey, cell: Cell, scope: trio.CancelScope) -> None:
        async def attempt() -> None:
            with self._store.watch((proxy.kind + "Insight", "Mesh")) as feed:
                while True:
                    seen, credentials = cell.version, cell.value
                    if self._store.get(insight_key(proxy)) is not None:
                        await self._change(proxy, partial(self._certify, proxy.mesh, credentials))
                    # also when the insight is created, and when the mesh takes another CA into use
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._wake, nursery, partial(cell.newer_than, seen))
                        nursery.start_soon(self._wake, nursery, feed.take)

        with scope:
            await self._retrying(attempt)

    def _certify(self, mesh_name: str, credentials: Shown, stored: Resource | None) -> Resource | None:
        if stored is None:
            return None
        mesh = self._store.get(ResourceKey("Mesh", "", mesh_name))
        spec = cast("Mesh", mesh.spec) if mesh is not None else None
        backend = spec.enabled_backend() if spec is not None else None
        supported = tuple(b.name for b in spec.mtls.backends) if spec is not None else ()
        return certified(stored, credentials, backend.name if backend else "", supported, self._now())

    async def _close_stale(self) -> None:
        edits: list[Edit] = []
        for kind in INSIGHTS:
            for stored in self._store.list(f"{kind}Insight"):
                closed = ended(stored, self._instance_id, self._now())
                if closed is not stored:
                    edits.append(Update(closed))
        if edits:
            log.info("ended subscriptions that an earlier run left open: count=%d", len(edits))
            await self._store.write(edits)

    async def _goodbye(self) -> None:
        """End this run's subscriptions; a store that is away or busy must not hold up the shutdown."""
        for stream in list(self._streams.values()):
            self.close(stream)
        try:
            await self._flush()
        except UnavailableError as error:
            log.warning("cannot note that proxies are not connected any more: %s", error)
        for proxy in sorted(p for p, report in self._proxies.value.items() if not report.has_stream):
            try:
                await self._change(proxy, lambda stored: ended(stored, "", self._now()) if stored else None)
            except UnavailableError as error:
                log.warning("cannot note that %s has stopped: %s", proxy, error)

    async def _change(self, proxy: ResourceKey, change: Callable[[Resource | None], Resource | None]) -> None:
        """Write what ``change`` makes of the insight as it is now; nothing if it is None or the same.

        The state and the certificate of a proxy are written by tasks of their own. Who comes second reads again; so
        does who finds the insight gone, and is done if its proxy is.
        """
        for _ in range(ATTEMPTS):
            stored = self._store.get(insight_key(proxy))
            changed = change(stored)
            if changed is None or changed is stored:
                return
            try:
                await self._store.write([Update(changed) if stored is not None else Create(changed)])
            except (ConflictError, NotFoundError) as error:
                if self._store.get(proxy) is None:
                    return
                log.debug("%s: %s; reading it again", proxy, error)
            else:
                return
        raise UnavailableError(f"the insight of {proxy} was changed by others {ATTEMPTS} times while it was written")
