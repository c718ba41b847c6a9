"""``CaKeeper``: makes the keys and certificate authorities that are missing, and never touches one that is there."""

import functools
import logging
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import trio
from prometheus_client import CollectorRegistry, Counter, Gauge

from meshd.ca import access, authority, envoy_admin, rsa_pem, signing, tokens, x509
from meshd.ca.offload import Offload
from meshd.kinds.mesh import CertificateAuthorityBackend
from meshd.kinds.secret import Secret
from meshd.model.errors import ConflictError, NotFoundError, UnavailableError
from meshd.model.resource import Resource, ResourceKey
from meshd.runtime.supervisor import retrying
from meshd.store.store import Create, Store

log = logging.getLogger(__name__)

WATCHED = ("Mesh", "Secret", "GlobalSecret")


@dataclass(frozen=True, slots=True)
class MissingKey:
    """A signing key of a family that has none; ``owner`` is its Mesh."""

    family: signing.Family
    owner: ResourceKey | None


@dataclass(frozen=True, slots=True)
class MissingRoot:
    """A builtin CA of which neither certificate nor key exists."""

    mesh: str
    backend: CertificateAuthorityBackend


@dataclass(frozen=True, slots=True)
class MissingAdminToken:
    """The token of the first administrator."""


@dataclass(frozen=True, slots=True)
class MissingEnvoyAdminCa:
    """The CA of the way to the admin API of this zone's Envoys."""


Missing = MissingKey | MissingRoot | MissingAdminToken | MissingEnvoyAdminCa


@dataclass(frozen=True, slots=True)
class Broken:
    """What the keeper will not repair, because that would replace something that is in use."""

    subject: str
    reason: str


def missing(store: Store, *, federated: bool, has_proxies: bool) -> tuple[tuple[Missing, ...], tuple[Broken, ...]]:
    """What a control plane should have and has not, in the order to make it, and what is broken.

    A federated zone makes only what it needs for its own REST API and for its own proxies; the rest comes from the
    global by KDS.

    Source: reference/kds.md 8.5.
    """
    wanted: list[Missing] = []
    broken: list[Broken] = []
    damaged = store.unreadable()
    families: list[tuple[signing.Family, ResourceKey | None]] = [(signing.USER, None)]
    if not federated:
        families.append((signing.ZONE, None))
        families += [(signing.dataplane_family(m.key.name), m.key) for m in store.list("Mesh")]
    for family, owner in families:
        if signing.serials(store.list(family.kind, family.mesh or None), family.prefix):
            continue
        lost = [
            k for k in damaged if k.kind == family.kind and k.mesh == family.mesh and k.name.startswith(family.prefix)
        ]
        if lost:
            broken.append(unreadable(f"signing key '{family.prefix}'", lost[0]))
        else:
            wanted.append(MissingKey(family, owner))
    if store.get(ResourceKey("GlobalSecret", "", signing.ADMIN_TOKEN)) is None:
        wanted.append(MissingAdminToken())
    if has_proxies:
        check_envoy_admin(store, wanted, broken)
    for mesh in () if federated else store.list("Mesh"):
        for backend in authority.spec_of(mesh).mtls.backends:
            if backend.type == authority.BUILTIN:
                check_root(store, mesh, backend, wanted, broken)
    return tuple(wanted), tuple(broken)


def check_envoy_admin(store: Store, wanted: list[Missing], broken: list[Broken]) -> None:
    """Add the CA of the Envoys' admin API to ``wanted`` if it is not there, to ``broken`` if it is no good."""
    key = envoy_admin.CA_SECRET
    resource = store.get(key)
    subject = f"CA of the Envoys' admin API: {key}"
    if key in store.unreadable():
        broken.append(unreadable(subject, key))
    elif resource is None:
        wanted.append(MissingEnvoyAdminCa())
    elif isinstance(resource.spec, Secret) and (reason := envoy_admin.trouble_with(resource.spec.data)):
        broken.append(Broken(subject, f"{reason}; write a good one, or delete it for a new one"))


def check_root(
    store: Store,
    mesh: Resource,
    backend: CertificateAuthorityBackend,
    wanted: list[Missing],
    broken: list[Broken],
) -> None:
    """Add a builtin backend to ``wanted`` if it has no CA, to ``broken`` if it has half of one or cannot have one."""
    name = mesh.key.name
    secrets = (authority.builtin_cert_secret(name, backend.name), authority.builtin_key_secret(name, backend.name))
    there = [s for s in secrets if store.get(ResourceKey("Secret", name, s)) is not None]
    problems = authority.check_builtin(name, backend, "backend")
    subject = f"mesh '{name}': builtin CA '{backend.name}'"
    if len(there) == len(secrets):
        return
    lost_keys = [k for k in (ResourceKey("Secret", name, s) for s in secrets) if k in store.unreadable()]
    if lost_keys:
        broken.append(unreadable(subject, lost_keys[0]))
    elif there:
        lost = next(s for s in secrets if s not in there)
        reason = f"Secret '{there[0]}' is there but '{lost}' is not; restore it, or delete both for a new CA"
        broken.append(Broken(subject, reason))
    elif problems:
        broken.append(Broken(subject, "; ".join(str(p) for p in problems)))
    else:
        wanted.append(MissingRoot(name, backend))


def unreadable(subject: str, key: ResourceKey) -> Broken:
    """What is there and damaged: a new one in its place would be trusted by nobody who knows the old one."""
    return Broken(subject, f"{key} is stored but cannot be read; write it anew, and delete it then for a new one")


class CaKeeper:
    """Keeps the keys of a control plane complete: level-triggered from the store, at start and at every change.

    On a global and a standalone zone: per Mesh the dataplane token signing key and the builtin CAs; the zone and user
    token signing keys; the admin user token. On a federated zone (``federated``) only the last two. Where there are
    proxies (``has_proxies``), in zones, also the CA by which the admin API of Envoys is reached. What exists is
    never overwritten, also not what another writer creates at the same moment. Secrets of a Mesh belong to it.
    Keys are made by ``offload``, in a worker thread; a test in virtual time, whose clock does not wait for threads,
    makes them in place (``in_place``).
    """

    name = "ca keeper"

    def __init__(
        self,
        store: Store,
        *,
        federated: bool,
        has_proxies: bool,
        now: Callable[[], datetime],
        rng: random.Random,
        registry: CollectorRegistry,
        offload: Offload = trio.to_thread.run_sync,
    ) -> None:
        self._store = store
        self._federated = federated
        self._has_proxies = has_proxies
        self._offload = offload
        self._now = now
        self._rng = rng
        self._known_broken: frozenset[Broken] = frozenset()
        self._made = Counter("meshd_ca_keys_made", "Keys, CAs and admin tokens made.", ["what"], registry=registry)
        self._broken = Gauge("meshd_ca_broken", "Builtin CAs that need an administrator.", registry=registry)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Complete the keys, say so, and go on until cancelled; a store that is away is tried again."""
        started = False

        async def attempt() -> None:
            nonlocal started
            with self._store.watch(WATCHED) as feed:
                while True:
                    await self.complete()
                    if not started:
                        started = True
                        task_status.started()
                    await feed.take()

        await retrying(attempt, (UnavailableError,), name=self.name, rng=self._rng)

    async def complete(self) -> None:
        """Make everything that is missing now; what cannot be made is left for the next change of the store."""
        given_up: set[str] = set()
        while True:
            wanted, broken = missing(self._store, federated=self._federated, has_proxies=self._has_proxies)
            self._report(frozenset(broken))
            item = next((i for i in wanted if repr(i) not in given_up), None)
            if item is None:
                return
            try:
                await self._make(item)
            except (ConflictError, NotFoundError) as error:
                # somebody made it first or its Mesh is gone, and the feed will say so; or the key to sign with is bad
                log.warning("%s: %s", self.name, error)
                given_up.add(repr(item))

    def _report(self, broken: frozenset[Broken]) -> None:
        for problem in sorted(broken - self._known_broken, key=str):
            log.error("%s: %s", problem.subject, problem.reason)
        self._known_broken = broken
        self._broken.set(len(broken))

    async def _make(self, item: Missing) -> None:
        match item:
            case MissingKey(family, owner):
                data = await self._offload(rsa_pem.new_private_key)
                await self._create([(family.key(), data)], owner, family.what + " signing key")
            case MissingRoot(mesh, backend):
                await self._make_root(mesh, backend)
            case MissingEnvoyAdminCa():
                data = envoy_admin.new_ca(self._now())
                await self._create([(envoy_admin.CA_SECRET, data)], None, "CA of the Envoys' admin API")
            case MissingAdminToken():
                claims = tokens.UserClaims(access.ADMIN, (access.ADMIN,))
                key = signing.signing_key(self._store, signing.USER)
                token = tokens.issue(
                    claims, key, token_id=str(uuid.uuid4()), valid_for=tokens.MAX_LIFE, now=self._now()
                )
                secret = ResourceKey("GlobalSecret", "", signing.ADMIN_TOKEN)
                await self._create([(secret, token.encode())], None, "admin user token")

    async def _make_root(self, mesh: str, backend: CertificateAuthorityBackend) -> None:
        bits, life = authority.root_bits(backend, []), authority.root_life(backend, [])
        now = self._now()
        pair = await self._offload(functools.partial(x509.new_root, mesh, now, bits=bits, life=life))
        secrets = [
            (ResourceKey("Secret", mesh, authority.builtin_cert_secret(mesh, backend.name)), pair.cert_pem),
            (ResourceKey("Secret", mesh, authority.builtin_key_secret(mesh, backend.name)), pair.key_pem),
        ]
        # in one write, so that certificate and key are always of one pair
        await self._create(secrets, ResourceKey("Mesh", "", mesh), "builtin CA")

    async def _create(self, secrets: list[tuple[ResourceKey, bytes]], owner: ResourceKey | None, what: str) -> None:
        resources = [Resource(key, Secret(data=data), owner=owner) for key, data in secrets]
        await self._store.write([Create(resource) for resource in resources])
        self._made.labels(what).inc()
        log.info("made %s: %s", what, ", ".join(str(key) for key, _ in secrets))
