"""Which endpoint a connection goes to: smooth weighted round robin, the best live priority, passive ejection.

Everything is a function of its arguments; times are seconds of any steady clock.

An endpoint that failed is *ejected* for a while. When the while is over it is *due*: one connection tries it, and the
others keep away until that one has told how it went.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from meshd.l4.table import Cluster, Path
from meshd.topology.view import Endpoint

FIRST_EJECTION_S = 1.0
MAX_EJECTION_S = 5.0
"""So that a zone that returns is used again within a few seconds, at the price of one slow attempt in that time."""

PROBE_S = 5.0
"""How long others wait for a probe that never told how it went."""

Subset = tuple[tuple[str, str], ...]
"""The tags of the instances that are meant; none: all of them."""

MAX_OFFSET_STEPS = 256
"""Bounds how far in a wheel starts; more would not spread listeners any better."""

MAX_OFFSET_WORK = 8192
"""Bounds the work of it, in endpoints looked at: a few milliseconds, once for a listener and service."""


@dataclass(frozen=True, slots=True)
class Ejection:
    """An endpoint that failed ``failures`` times in a row and is kept out until ``until``.

    ``is_probe``: one connection is trying it, the others wait for what it finds.
    """

    failures: int
    until: float
    is_probe: bool = False


def after_failure(previous: Ejection | None, now: float) -> Ejection:
    """One more failure: out for 1 s, 2 s, 4 s, 5 s, 5 s...

    Failures of connections that began before the last ejection are one event, not many.
    """
    if previous is not None and now < previous.until:
        return previous
    failures = (previous.failures if previous is not None else 0) + 1
    return Ejection(failures, now + min(FIRST_EJECTION_S * 2.0 ** min(failures - 1, 10), MAX_EJECTION_S))


def probing(ejection: Ejection, now: float) -> Ejection:
    """The same endpoint while one connection tries it: out for everybody else."""
    return Ejection(ejection.failures, now + PROBE_S, is_probe=True)


def after_failed_probe(probed: Ejection, now: float) -> Ejection:
    """The connection that tried it failed."""
    return after_failure(Ejection(probed.failures, now), now)


def is_live(ejection: Ejection | None, now: float) -> bool:
    """Whether a connection may be sent there: never ejected, or due."""
    return ejection is None or ejection.until <= now


def candidates(
    cluster: Cluster, ejections: Mapping[Path, Ejection], tried: Collection[Path], now: float
) -> tuple[Endpoint, ...]:
    """The endpoints to choose among: the live ones of the best priority that has any.

    When none is alive they all count, best priority first: being wrong about all of them is likelier than all being
    dead, and there is nothing to lose. Those in ``tried`` have had their turn in this connection.
    """
    left = [e for e in cluster.endpoints if cluster.path(e) not in tried]
    live = [e for e in left if is_live(ejections.get(cluster.path(e)), now)] if ejections else left
    pool = live or left
    best = min((e.priority for e in pool), default=0)
    return tuple(e for e in pool if e.priority == best)


@dataclass(frozen=True, slots=True)
class Wheel:
    """The state of smooth weighted round robin for one listener: how much each path is owed, in weight.

    The sum is constant, so shares are exact over every full turn, and as even as possible within one.
    """

    owed: Mapping[Path, int] = field(default_factory=dict)


def turn(wheel: Wheel, cluster: Cluster, among: Iterable[Endpoint]) -> tuple[Endpoint, Wheel]:
    """The next endpoint of ``among`` (at least one) and the wheel after it.

    Paths that are gone are forgotten; one that is out for a while keeps what it is owed.

    Source: nginx's smooth weighted round robin (algorithm, not code).
    """
    owed = dict(wheel.owed)
    total = 0
    best: Endpoint | None = None
    best_path: Path | None = None
    for endpoint in among:
        path = cluster.path(endpoint)
        total += endpoint.weight
        owed[path] = owed.get(path, 0) + endpoint.weight
        if best_path is None or owed[path] > owed[best_path]:
            best, best_path = endpoint, path
    if best is None or best_path is None:
        raise ValueError(f"service '{cluster.name}': no endpoint to choose from")
    owed[best_path] -= total
    if len(owed) > 2 * len(cluster.endpoints):
        known = {cluster.path(e) for e in cluster.endpoints}
        owed = {path: value for path, value in owed.items() if path in known}
    return best, Wheel(owed)


def started(cluster: Cluster, offset: int) -> Wheel:
    """A wheel ``offset`` turns in, so that listeners that start together do not all begin at the same endpoint."""
    wheel = Wheel()
    pool = candidates(cluster, {}, (), 0.0)
    if pool:
        for _ in range(offset % max(1, min(MAX_OFFSET_STEPS, MAX_OFFSET_WORK // len(pool)))):
            _, wheel = turn(wheel, cluster, pool)
    return wheel


@dataclass(frozen=True, slots=True)
class Pick:
    """Where an attempt goes; ``is_last``: every other endpoint has had its turn in this connection."""

    endpoint: Endpoint
    path: Path
    is_last: bool


class Balancer:
    """The wheels and ejections of one engine: holds the values above and replaces them; ``now`` is an argument.

    Listeners have a wheel for each service, and for each part of one that is asked for; they share what is known of
    endpoints.
    """

    def __init__(self, offset: Callable[[], int]) -> None:
        self._offset = offset
        self._wheels: dict[tuple[str, str, str, Subset], Wheel] = {}
        self.ejections: dict[Path, Ejection] = {}

    def next(self, listener: str, cluster: Cluster, tried: Collection[Path], now: float) -> Pick | None:
        """Where ``listener`` sends its next attempt, None when all of ``cluster`` have been ``tried``."""
        pool = candidates(cluster, self.ejections, tried, now)
        if not pool:
            return None
        key = (listener, cluster.mesh, cluster.name, cluster.subset)
        wheel = self._wheels.get(key)
        if wheel is None:
            wheel = started(cluster, self._offset())
        endpoint, self._wheels[key] = turn(wheel, cluster, pool)
        path = cluster.path(endpoint)
        ejection = self.ejections.get(path)
        if ejection is not None and is_live(ejection, now):
            self.ejections[path] = probing(ejection, now)
        return Pick(endpoint, path, is_last=len(cluster.endpoints) - len(tried) == 1)

    def succeeded(self, path: Path) -> None:
        """An attempt on ``path`` worked: whatever was held against it is forgotten."""
        self.ejections.pop(path, None)

    def failed(self, path: Path, now: float) -> None:
        """An attempt on ``path`` failed."""
        previous = self.ejections.get(path)
        if previous is not None and previous.is_probe:
            self.ejections[path] = after_failed_probe(previous, now)
        else:
            self.ejections[path] = after_failure(previous, now)

    def abandoned(self, path: Path, now: float) -> None:
        """An attempt on ``path`` ended without telling anything: a probe is due again."""
        previous = self.ejections.get(path)
        if previous is not None and previous.is_probe:
            self.ejections[path] = Ejection(previous.failures, now)

    @property
    def wheels(self) -> int:
        """How many listeners and services a state is kept for."""
        return len(self._wheels)

    def ejected_services(self) -> frozenset[tuple[str, str]]:
        """The (mesh, name) of the services of which an endpoint has something held against it."""
        return frozenset((mesh, name) for mesh, _, name in (path.service.partition("/") for path in self.ejections))

    def keep(self, paths: Collection[Path], listeners: Collection[tuple[str, str, str]]) -> None:
        """Forget all but these: the endpoints, and the (listener, mesh, service) triples, of the table in force."""
        self.ejections = {p: e for p, e in self.ejections.items() if p in paths}
        self._wheels = {k: w for k, w in self._wheels.items() if k[:3] in listeners}
