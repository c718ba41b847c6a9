"""What goes first when mTLS of a mesh is turned on or off, so that no connection fails meanwhile. Pure.

On, in mode PERMISSIVE: inbounds take both kinds of connections from the start; who calls a service begins with TLS when
all instances of it that are connected have had a certificate for a while. Off: who calls ends TLS at once, and inbounds
take both kinds for a while. In mode STRICT what is not TLS is refused at once, as was asked for.

Only a change that is seen counts: a control plane that starts finds meshes as they are.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshd.kinds.mesh import CertificateAuthorityBackend, Mode

LEAD_S = 3.0
"""How long what goes first has to reach its proxies. They are not asked whether it has; most have it in some hundredths
of a second."""

Backend = CertificateAuthorityBackend | None


@dataclass(frozen=True, slots=True)
class Instance:
    """A Dataplane that is connected, and since when (any clock) it has had a certificate, None if it has none."""

    mesh: str
    services: tuple[str, ...]
    certified_at: float | None


@dataclass(frozen=True, slots=True)
class Ending:
    """mTLS that was turned off: inbounds take what ``backend`` certified, and plaintext, until ``until``."""

    backend: CertificateAuthorityBackend
    until: float


class Turning:
    """Follows the meshes of a zone. ``see`` them all, then ``update``, again when ``due_at`` says."""

    def __init__(self) -> None:
        self._backends: dict[str, Backend] = {}
        self._plain: dict[str, frozenset[str]] = {}
        self._ending: dict[str, Ending] = {}

    def see(self, backends: Mapping[str, Backend], now: float) -> None:
        """The enabled backends of all meshes, by mesh."""
        for mesh in self._backends.keys() - backends.keys():
            self._plain.pop(mesh, None)
            self._ending.pop(mesh, None)
        for mesh, backend in backends.items():
            before = self._backends.get(mesh, backend)
            if before is None and backend is not None:
                self._ending.pop(mesh, None)
                if backend.mode is Mode.PERMISSIVE:
                    self._plain[mesh] = frozenset()
            elif backend is None and before is not None:
                self._plain.pop(mesh, None)
                permissive = before.model_copy(update={"mode": Mode.PERMISSIVE})
                self._ending[mesh] = Ending(permissive, now + LEAD_S)
            elif backend is not None and backend.mode is not Mode.PERMISSIVE:
                self._plain.pop(mesh, None)
        self._backends = dict(backends)

    def update(self, instances: Iterable[Instance], now: float) -> Mapping[str, frozenset[str]]:
        """The meshes of which something changes now, with the services to which clients' TLS begins or does not yet."""
        changed: dict[str, frozenset[str]] = {}
        for mesh in [m for m, ending in self._ending.items() if ending.until <= now]:
            del self._ending[mesh]
            changed[mesh] = frozenset()
        if not self._plain:
            return changed
        waiting: dict[str, set[str]] = {mesh: set() for mesh in self._plain}
        for instance in instances:
            if instance.mesh in waiting and not _has_led(instance.certified_at, now):
                waiting[instance.mesh].update(instance.services)
        for mesh, services in waiting.items():
            if services != self._plain[mesh]:
                changed[mesh] = self._plain[mesh] ^ services
            self._plain[mesh] = frozenset(services)
            if not services:
                del self._plain[mesh]
        return changed

    def due_at(self, instances: Iterable[Instance], now: float) -> float:
        """When something changes next although nothing happens; infinity: never."""
        due = min((ending.until for ending in self._ending.values()), default=math.inf)
        if self._plain:
            certified = (
                i.certified_at for i in instances if i.mesh in self._plain and not _has_led(i.certified_at, now)
            )
            due = min(due, min((at + LEAD_S for at in certified if at is not None), default=math.inf))
        return due

    @property
    def is_busy(self) -> bool:
        """Whether anything is being turned on or off."""
        return bool(self._plain or self._ending)

    def is_plain(self, mesh: str, service: str) -> bool:
        """Whether clients do not use TLS to a service although its mesh has it."""
        return service in self._plain.get(mesh, ())

    def ending(self, mesh: str) -> CertificateAuthorityBackend | None:
        """What inbounds with a certificate still take in a mesh that has turned mTLS off."""
        found = self._ending.get(mesh)
        return found.backend if found is not None else None


def _has_led(certified_at: float | None, now: float) -> bool:
    return certified_at is not None and certified_at + LEAD_S <= now
