"""``IdentityService``: keeps the credentials of every proxy of a zone fresh."""

import functools
import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import trio
from prometheus_client import CollectorRegistry, Counter, Gauge

from meshd.ca import rotation, x509
from meshd.ca.authority import Authority, Materials, authority_of, references, trust_of
from meshd.ca.identity import Credentials, Identity, TrustBundle, no_credentials
from meshd.ca.offload import Offload
from meshd.ca.signing import data_of
from meshd.ca.vault import Vault
from meshd.model.errors import InvalidError
from meshd.model.resource import Resource, ResourceKey
from meshd.runtime.latest import Latest
from meshd.store.store import Store

log = logging.getLogger(__name__)

LOOK_AGAIN = timedelta(seconds=60)
"""The longest sleep while there are identities: clocks may be set, and machines suspended."""
SHORTEST = timedelta(seconds=1)
"""The shortest time between two certificates of one proxy, however short their life."""
GRACE = timedelta(seconds=5)
"""How long a CA may be unusable before it is an error: a Mesh comes before the Secrets of its CA, never long."""
FILES_AGAIN = timedelta(seconds=30)
"""How soon a change in a file that a Mesh refers to is seen."""


@dataclass(slots=True, eq=False)
class Slot:
    """One proxy in one mesh: what it should be called, what it has, and the cell that its users watch.

    ``issuer`` is the PEM of the CA that signed ``identity``; ``loaded`` says that the disk was asked.
    """

    mesh: str
    owner: str
    uris: tuple[str, ...]
    cell: Latest[Credentials]
    identity: Identity | None = None
    issuer: bytes = b""
    loaded: bool = False


@dataclass(slots=True, eq=False)
class MeshState:
    """The CA of a mesh as last read. ``authority`` None: no mTLS, or a CA that cannot be used (then ``problem``).

    ``problem_since`` is when the CA stopped being usable, ``said`` the problem that is in the log. ``is_known`` says
    that the Mesh existed at some time since the start.
    """

    authority: Authority | None = None
    since: datetime | None = None
    trust: rotation.Trust | None = None
    trust_loaded: bool = False
    is_known: bool = False
    problem: str = ""
    problem_since: datetime | None = None
    said: str = ""
    has_files: bool = False
    dirty: bool = True
    slots: dict[str, Slot] = field(default_factory=dict)


class IdentityService:
    """Issues, stores, reuses and renews the identities that were asked for by ``credentials``.

    Identities are kept under ``state_dir`` (None: nowhere) and reused by the next process while the CA and the URIs
    are the same; a certificate past half its life is used while its successor is made. A CA that cannot be used
    takes nothing away: what was issued is served until it expires, with an error in the log and
    ``meshd_ca_authority_broken`` at 1. Disabling mTLS takes everything away, at once.

    ``offload`` runs file access and signing; a test in virtual time runs them in place (``offload.in_place``).
    """

    name = "identities"

    def __init__(
        self,
        store: Store,
        *,
        state_dir: Path | None,
        now: Callable[[], datetime],
        rng: random.Random,
        registry: CollectorRegistry,
        offload: Offload = trio.to_thread.run_sync,
    ) -> None:
        self._store = store
        self._vault = Vault(state_dir)
        self._now = now
        self._rng = rng
        self._offload = offload
        self._limiter = rotation.Limiter()
        self._meshes: dict[str, MeshState] = {}
        self._wake = trio.Event()
        self._issued = Counter(
            "meshd_ca_identities_issued", "Certificates issued.", ["mesh", "reason"], registry=registry
        )
        self._failures = Counter("meshd_ca_issue_failures", "Certificates not issued.", ["mesh"], registry=registry)
        self._unsaved = Counter("meshd_ca_unsaved", "Files of identities not written.", registry=registry)
        self._seconds_left = Gauge(
            "meshd_ca_identity_seconds_left",
            "Seconds until a proxy's certificate expires; 0 without one.",
            ["mesh", "owner"],
            registry=registry,
        )
        self._broken = Gauge(
            "meshd_ca_authority_broken", "1 while the CA of a mesh cannot be used.", ["mesh"], registry=registry
        )
        self._root_left = Gauge(
            "meshd_ca_root_seconds_left", "Seconds until the CA of a mesh expires.", ["mesh"], registry=registry
        )
        Gauge("meshd_ca_circuits_open", "CAs left alone because many proxies failed.", registry=registry).set_function(
            self._limiter.open_circuits
        )

    def credentials(self, mesh: str, owner: str, uris: tuple[str, ...]) -> Latest[Credentials]:
        """The cell with the credentials of ``owner`` (unique in the mesh) in ``mesh``, with these URI SANs.

        The same owner gets the same cell; asked again with other URIs, it gets a new certificate in that cell. The
        first value is ``no_credentials`` until the service has run. Costs nothing when nothing is new.
        """
        state = self._meshes.setdefault(mesh, MeshState())
        slot = state.slots.get(owner)
        if slot is None:
            slot = state.slots[owner] = Slot(mesh, owner, uris, Latest(no_credentials(mesh)))
            self._seconds_left.labels(mesh, owner).set_function(functools.partial(self._left, slot))
            self._wake.set()
        elif slot.uris != uris:
            slot.uris = uris
            self._wake.set()
        return slot.cell

    async def release(self, mesh: str, owner: str) -> None:
        """Forget an owner that is gone for good, and its key on disk. A proxy that only restarts keeps both."""
        state = self._meshes.get(mesh)
        slot = state.slots.pop(owner, None) if state else None
        if state is None or slot is None:
            return
        self._seconds_left.remove(mesh, owner)
        if not state.slots:
            del self._meshes[mesh]
            self._forget_gauges(mesh)
        await self._on_disk(functools.partial(self._vault.forget, mesh, owner))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve what was asked for, say so, and go on until cancelled."""
        await self._on_disk(functools.partial(self._vault.prune, self._now()))
        with self._store.watch(("Mesh", "Secret")) as feed:
            async with trio.open_nursery() as nursery:

                async def notice() -> None:
                    while True:
                        for key in await feed.take():
                            state = self._meshes.get(key.name if key.kind == "Mesh" else key.mesh)
                            if state is not None:
                                state.dirty = True
                        self._wake.set()

                nursery.start_soon(notice)
                wake_at = await self._round()
                task_status.started()
                while True:
                    with trio.move_on_after(self._pause(wake_at)):
                        await self._wake.wait()
                    wake_at = await self._round()

    def _pause(self, wake_at: datetime | None) -> float:
        if wake_at is None:
            return math.inf
        return min(max((wake_at - self._now()).total_seconds(), 0.0), LOOK_AGAIN.total_seconds())

    async def _round(self) -> datetime | None:
        """Do all that is due; returns when something is due again (None: not before something changes)."""
        self._wake = trio.Event()
        wake_at: list[datetime] = []
        for mesh, state in list(self._meshes.items()):
            if not state.slots:
                continue
            if state.dirty or state.has_files:
                state.dirty = False
                await self._read_authority(mesh, state)
            wake_at += self._say_problem(mesh, state)
            now = self._now()
            if state.trust is not None:
                await self._set_trust(mesh, state, rotation.advance(state.trust, state.trust.pem, now))
                wake_at += [at for at in (state.trust.next_change if state.trust else None,) if at]
            if state.has_files:
                wake_at.append(now + FILES_AGAIN)
            for slot in list(state.slots.values()):
                wake_at += await self._serve(state, slot)
        return min(wake_at, default=None)

    async def _read_authority(self, mesh: str, state: MeshState) -> None:
        resource = self._store.get(ResourceKey("Mesh", "", mesh))
        if not state.trust_loaded:
            state.trust_loaded = True
            state.trust = await self._offload(functools.partial(self._vault.load_trust, mesh))
        if resource is None:
            authority, trust_pem, problem = None, b"", ""
            state.has_files = False
            if not state.is_known:
                # not synced yet: its roots on disk wait for it
                state.trust, state.trust_loaded = None, False
        else:
            state.is_known = True
            materials = await read_materials(self._store, resource, self._offload)
            state.has_files = bool(materials.files)
            try:
                authority, problem = authority_of(resource, materials), ""
            except InvalidError as error:
                authority, problem = None, str(error)
            trust_pem = trust_of(resource, materials).pem
        self._note_problem(mesh, state, problem)
        if problem:
            state.authority = None
            return  # what was issued goes on
        await self._set_trust(mesh, state, rotation.advance(state.trust, trust_pem, self._now()))
        if authority != state.authority:
            self._limiter.forget(mesh)
            if authority is None or state.authority is None or authority.pair != state.authority.pair:
                state.since = state.trust.since if state.trust else None
            if authority is not None:
                ends = authority.signer.certificate.not_valid_after_utc
                self._root_left.labels(mesh).set_function(functools.partial(self._until, ends))
        state.authority = authority

    def _note_problem(self, mesh: str, state: MeshState, problem: str) -> None:
        state.problem = problem
        if not problem:
            state.problem_since = None
        elif state.problem_since is None:
            state.problem_since = self._now()
        self._broken.labels(mesh).set(1 if problem else 0)

    def _say_problem(self, mesh: str, state: MeshState) -> list[datetime]:
        """Log what became of the CA, once; returns when to come again if that is too early to say."""
        if state.problem == state.said:
            return []
        if state.problem_since is None:
            log.info("mesh '%s': its CA can be used again", mesh)
        elif self._now() < state.problem_since + GRACE:
            return [state.problem_since + GRACE]
        else:
            log.error("%s; identities go on until they expire", state.problem)
        state.said = state.problem
        return []

    async def _set_trust(self, mesh: str, state: MeshState, trust: rotation.Trust | None) -> None:
        if trust != state.trust:
            state.trust = trust
            await self._on_disk(functools.partial(self._vault.save_trust, mesh, trust))

    async def _serve(self, state: MeshState, slot: Slot) -> list[datetime]:
        """Bring one slot up to date; returns when to look at it again."""
        if not slot.loaded and state.authority is not None:
            await self._load(state, slot)
        if state.authority is None and not state.problem:
            slot.identity = None
            publish(state, slot)
            return []
        wake_at: list[datetime] = []
        now = self._now()
        if state.authority is not None:
            at, reason = self._due(state, state.authority, slot, now)
            if at <= now:
                wait = self._limiter.wait(slot.mesh, slot.owner, now)
                if wait:
                    at = now + wait
                else:
                    at = await self._issue(state, state.authority, slot, reason)
            wake_at.append(at)
        now = self._now()
        if slot.identity is not None and slot.identity.not_after <= now:
            log.error("mesh '%s': the certificate of '%s' expired and there is no new one", slot.mesh, slot.owner)
            slot.identity = None
        if slot.identity is not None:
            wake_at.append(slot.identity.not_after)
        publish(state, slot)
        return wake_at

    def _due(
        self, state: MeshState, authority: Authority, slot: Slot, now: datetime
    ) -> tuple[datetime, rotation.Reason]:
        is_current = slot.issuer == authority.pair.cert_pem
        return rotation.due(
            slot.identity,
            slot.uris,
            is_current=is_current,
            root_ends=authority.signer.certificate.not_valid_after_utc,
            since=state.since or now,
            life=authority.life,
            now=now,
        )

    async def _issue(self, state: MeshState, authority: Authority, slot: Slot, reason: rotation.Reason) -> datetime:
        """Issue, save and take a new certificate, or note the failure; returns when to look again."""
        uris, now = slot.uris, self._now()
        try:
            identity = await self._offload(
                functools.partial(x509.issue, authority.signer, slot.mesh, uris, now, authority.life)
            )
        except (InvalidError, ValueError) as error:
            # the CA is out of its time, or an URI cannot be in a certificate
            self._limiter.failed(slot.mesh, slot.owner, now, self._rng.uniform(0.75, 1))
            self._failures.labels(slot.mesh).inc()
            log.error("mesh '%s': no certificate for '%s': %s", slot.mesh, slot.owner, error)  # noqa: TRY400
            return now + self._limiter.wait(slot.mesh, slot.owner, now)
        self._limiter.succeeded(slot.mesh, slot.owner)
        self._issued.labels(slot.mesh, reason.value).inc()
        log.info("mesh '%s': certificate for '%s' (%s) until %s", slot.mesh, slot.owner, reason, identity.not_after)
        # saved before it is shown: what a peer has seen survives a crash
        await self._on_disk(functools.partial(self._vault.save, slot.owner, identity))
        if slot.owner not in state.slots:  # released meanwhile
            await self._on_disk(functools.partial(self._vault.forget, slot.mesh, slot.owner))
        slot.identity, slot.issuer = identity, authority.pair.cert_pem
        at, _ = self._due(state, authority, slot, self._now())
        return max(at, now + SHORTEST)

    async def _load(self, state: MeshState, slot: Slot) -> None:
        """Take the identity of an earlier process if it still is what would be issued now."""
        slot.loaded = True
        found = await self._offload(functools.partial(self._vault.load, slot.mesh, slot.owner))
        now = self._now()
        authority = state.authority
        if found is None or authority is None or found.uris != slot.uris or not found.not_before <= now:
            return
        if now < found.not_after and x509.is_issued_by(found, authority.signer):
            slot.identity, slot.issuer = found, authority.pair.cert_pem

    async def _on_disk(self, write: Callable[[], object]) -> None:
        """Run a write to disk; a disk that is full or gone costs churn after a restart, never an identity now."""
        try:
            await self._offload(write)
        except OSError as error:
            self._unsaved.inc()
            log.error("an identity or root is not saved, the next start issues anew: %s", error)  # noqa: TRY400

    def _left(self, slot: Slot) -> float:
        return self._until(slot.identity.not_after) if slot.identity is not None else 0.0

    def _until(self, end: datetime) -> float:
        return max((end - self._now()).total_seconds(), 0.0)

    def _forget_gauges(self, mesh: str) -> None:
        for gauge in (self._broken, self._root_left):
            gauge.labels(mesh)  # so that it is there to be removed
            gauge.remove(mesh)


def publish(state: MeshState, slot: Slot) -> None:
    """Show the users of a slot what it has now, if that is new."""
    pem = state.trust.bundle if state.trust is not None else b""
    credentials = Credentials(slot.identity, TrustBundle(slot.mesh, pem))
    if credentials != slot.cell.value:
        slot.cell.publish(credentials)


async def read_materials(store: Store, mesh: Resource, offload: Offload = trio.to_thread.run_sync) -> Materials:
    """Everything that the backends of a Mesh refer to, as it is now in the store and on this host."""
    wanted = references(mesh)
    secrets: dict[str, bytes] = {}
    for name in wanted.secrets:
        resource = store.get(ResourceKey("Secret", mesh.key.name, name))
        if resource is not None:
            secrets[name] = data_of(resource)
    files = {path: await offload(functools.partial(read_file, path)) for path in wanted.files}
    return Materials(secrets, files)


def read_file(path: str) -> bytes | str:
    """The content of a file, or why it cannot be read. Blocking."""
    file = Path(path)
    try:
        if file.exists() and not file.is_file():  # a pipe would never end
            return "it is no regular file"
        return file.read_bytes()
    except OSError as error:
        return error.strerror or type(error).__name__
