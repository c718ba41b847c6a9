"""When an identity is replaced, which roots overlap meanwhile, and how failing is slowed down.

A certificate is renewed at half its life, so that a control plane may be away for the other half, and at once when its
Mesh gives certificates another life; the other settings of a backend do not show in a certificate. When the CA of a
mesh changes, every control plane first trusts both roots and only then, ``SETTLE`` later, signs with the new one: by
then the other zones trust it too, and no connection fails in between. The old root is trusted for ``OVERLAP`` and
no longer, because a CA may be replaced for having leaked; disabling mTLS forgets it at once.
"""

import enum
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from meshd.ca.authority import joined
from meshd.ca.identity import Identity
from meshd.ca.x509 import SKEW

SETTLE = timedelta(seconds=5)
OVERLAP = timedelta(hours=1)
WHOLE = timedelta(seconds=1)

FIRST_BACKOFF = timedelta(seconds=5)
MAX_BACKOFF = timedelta(minutes=5)
BREAKER_PROXIES = 10
"""So many different proxies must fail before a whole CA is left alone: one bad proxy never stops the others."""
COOLDOWN = MAX_BACKOFF


class Reason(enum.StrEnum):
    """Why a certificate is issued; a metric label."""

    FIRST = "first"
    URIS = "uris"
    AUTHORITY = "authority"
    LIFE = "life"
    HALF_LIFE = "half-life"


def half_life(identity: Identity) -> datetime:
    """When half the life of a certificate is over, counted from its issue and not from its back-dated beginning."""
    return identity.not_before + SKEW + (identity.not_after - identity.not_before - SKEW) / 2


def due(
    identity: Identity | None,
    uris: tuple[str, ...],
    *,
    is_current: bool,
    root_ends: datetime,
    since: datetime,
    life: timedelta,
    now: datetime,
) -> tuple[datetime, Reason]:
    """When the next certificate must be issued, and why; a time that is not after ``now`` means at once.

    ``is_current`` says whether the identity was signed by the CA in force, which is in force since ``since`` and
    ends at ``root_ends``: a certificate that lasts as long as its CA cannot be made longer by another. ``life`` is what
    its Mesh gives a certificate now.
    """
    if identity is None or identity.not_after <= now:
        return now, Reason.FIRST
    if identity.uris != uris:
        return now, Reason.URIS
    if not is_current:
        return min(since + SETTLE, identity.not_after), Reason.AUTHORITY
    # Read from the certificate, so that it holds over a restart; its times are in whole seconds.
    if abs(min(identity.not_before + SKEW + life, root_ends) - identity.not_after) > WHOLE:
        return now, Reason.LIFE
    if identity.not_after >= root_ends:
        return identity.not_after, Reason.HALF_LIFE
    return half_life(identity), Reason.HALF_LIFE


@dataclass(frozen=True, slots=True)
class Retired:
    """A root that no longer signs but is trusted until ``until``."""

    pem: bytes
    until: datetime


@dataclass(frozen=True, slots=True)
class Trust:
    """The roots of a mesh: ``pem`` in force since ``since``, and those before it that are not forgotten yet."""

    pem: bytes
    since: datetime
    retired: tuple[Retired, ...] = ()

    @property
    def bundle(self) -> bytes:
        """All of them as one PEM text, the one in force first."""
        return joined([self.pem, *(r.pem for r in self.retired)])

    @property
    def next_change(self) -> datetime | None:
        """When the first retired root is to be forgotten."""
        return min((r.until for r in self.retired), default=None)


def advance(trust: Trust | None, pem: bytes, now: datetime) -> Trust | None:
    """The trust after the roots in force became ``pem`` (maybe the same; empty: no mTLS) at ``now``."""
    if not pem:
        return None
    if trust is None:
        return Trust(pem, since=now)
    retired = tuple(r for r in trust.retired if r.until > now and r.pem != pem)
    if trust.pem == pem:
        return replace(trust, retired=retired)
    return Trust(pem, since=now, retired=(Retired(trust.pem, now + OVERLAP), *retired))


@dataclass(slots=True)
class Failures:
    """Failures of one proxy."""

    count: int
    next_try: datetime
    last: datetime


@dataclass(slots=True)
class Circuit:
    """Failures with one CA, by proxy; while ``open_until`` is ahead nobody tries, after it one does."""

    proxies: dict[str, Failures] = field(default_factory=dict)
    open_until: datetime | None = None
    probing_until: datetime | None = None


class Limiter:
    """Slows down issuing that fails: exponential backoff per proxy, and a circuit breaker per CA.

    The breaker opens when ``BREAKER_PROXIES`` different proxies failed within ``COOLDOWN``; after that time one proxy
    probes, and any success closes it. Every attempt that was allowed must be recorded. ``jitter`` (0.75 to 1) scales a
    backoff, so that proxies that failed together do not try again together.

    Source: Kuma ``pkg/core/xds/issuer`` (behaviour), defaults of ``general.certGeneration*``.
    """

    def __init__(self) -> None:
        self._circuits: dict[str, Circuit] = {}

    def wait(self, authority: str, proxy: str, now: datetime) -> timedelta:
        """How long this proxy must still wait before it may try; zero: try now and record the outcome."""
        circuit = self._circuits.get(authority)
        if circuit is None:
            return timedelta()
        if circuit.open_until is not None:
            if circuit.open_until > now:
                return circuit.open_until - now
            if circuit.probing_until is not None and circuit.probing_until > now:
                return circuit.probing_until - now
            circuit.probing_until = now + COOLDOWN
            return timedelta()
        failures = circuit.proxies.get(proxy)
        return max(failures.next_try - now, timedelta()) if failures else timedelta()

    def succeeded(self, authority: str, proxy: str) -> None:
        """Record a success: it closes the circuit."""
        circuit = self._circuits.get(authority)
        if circuit is None:
            return
        circuit.proxies.pop(proxy, None)
        circuit.open_until = circuit.probing_until = None
        if not circuit.proxies:
            del self._circuits[authority]

    def failed(self, authority: str, proxy: str, now: datetime, jitter: float) -> None:
        """Record a failure."""
        circuit = self._circuits.setdefault(authority, Circuit())
        before = circuit.proxies.get(proxy)
        count = before.count + 1 if before else 1
        delay = min(FIRST_BACKOFF * 2 ** min(count - 1, 16), MAX_BACKOFF)
        circuit.proxies[proxy] = Failures(count, now + delay * jitter, now)
        circuit.proxies = {p: f for p, f in circuit.proxies.items() if now - f.last <= COOLDOWN}
        if circuit.probing_until is not None or len(circuit.proxies) >= BREAKER_PROXIES:
            circuit.open_until = now + COOLDOWN
            circuit.probing_until = None

    def forget(self, authority: str) -> None:
        """The CA changed: what failed before says nothing any more."""
        self._circuits.pop(authority, None)

    def open_circuits(self) -> int:
        """How many CAs are left alone now."""
        return sum(circuit.open_until is not None for circuit in self._circuits.values())
