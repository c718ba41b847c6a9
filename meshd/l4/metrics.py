"""What the engine counts. One ``Metrics`` per registry, shared by all engines of a control plane."""

import contextlib
from collections.abc import Set as AbstractSet
from typing import TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Gauge

UPSTREAM = ("proxy", "mesh", "service", "upstream", "zone")
"""The labels that name an upstream."""

SERIES_KEPT = 512
"""So many series are not worth looking whether their listeners and upstreams are still there."""

MetricT = TypeVar("MetricT", Counter, Gauge)


class Metrics:
    """Counters per listener and per upstream. ``proxy`` is its ``Dataplane/<mesh>/<name>``, or ``ZoneIngress/<name>``.

    ``listener`` is its kind and address: ``inbound:127.0.0.1:8080``.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        listener = ("proxy", "listener")
        self.connections = Counter(
            "meshd_l4_connections",
            "Connections ended, by how: done, reset, tls, denied, unroutable, unavailable, slow, idle, drained, full",
            (*listener, "outcome"),
            registry=registry,
        )
        self.open = Gauge("meshd_l4_open_connections", "Connections open now", listener, registry=registry)
        self.received = Counter(
            "meshd_l4_received_bytes", "Application bytes from the client side", listener, registry=registry
        )
        self.sent = Counter("meshd_l4_sent_bytes", "Application bytes to the client side", listener, registry=registry)
        self.verdicts = Counter(
            "meshd_l4_verdicts",
            "Clients judged by a permission: allowed, denied, shadow_denied",
            (*listener, "rule", "verdict"),
            registry=registry,
        )
        self.attempts = Counter(
            "meshd_l4_upstream_attempts",
            "Attempts by outcome: ok, refused, eof, timeout, tls, error",
            (*UPSTREAM, "outcome"),
            registry=registry,
        )
        self.upstream_open = Gauge(
            "meshd_l4_upstream_open_connections", "Connections to an upstream open now", UPSTREAM, registry=registry
        )
        self.upstream_received = Counter(
            "meshd_l4_upstream_received_bytes", "Application bytes from an upstream", UPSTREAM, registry=registry
        )
        self.upstream_sent = Counter(
            "meshd_l4_upstream_sent_bytes", "Application bytes to an upstream", UPSTREAM, registry=registry
        )
        self.listeners = Gauge(
            "meshd_l4_listeners", "Listeners by state: bound, failed", ("proxy", "state"), registry=registry
        )
        self.of_upstreams: frozenset[Counter | Gauge] = frozenset(
            {self.attempts, self.upstream_open, self.upstream_received, self.upstream_sent}
        )


class Series:
    """The series of one proxy, so that those of what is gone can go too."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._kept = SERIES_KEPT
        self._children: dict[tuple[Counter | Gauge, tuple[str, ...]], Counter | Gauge] = {}

    def child(self, metric: MetricT, *labels: str) -> MetricT:
        """``metric.labels(*labels)``, remembered: asking the library costs more than counting."""
        key = (metric, labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return cast("MetricT", child)

    @property
    def are_many(self) -> bool:
        """Whether there are twice as many as were left the last time."""
        return len(self._children) > 2 * self._kept

    def keep(self, listeners: AbstractSet[str], upstreams: AbstractSet[tuple[str, ...]]) -> None:
        """Drop those of all other listeners and upstreams."""
        for metric, labels in list(self._children):
            if metric in self._metrics.of_upstreams:
                is_gone = labels[: len(UPSTREAM)] not in upstreams
            else:
                is_gone = metric is not self._metrics.listeners and labels[1] not in listeners
            if is_gone:
                self._remove(metric, labels)
        self._kept = max(SERIES_KEPT, len(self._children))

    def forget_all(self) -> None:
        """Drop every one."""
        for metric, labels in list(self._children):
            self._remove(metric, labels)

    def _remove(self, metric: Counter | Gauge, labels: tuple[str, ...]) -> None:
        del self._children[metric, labels]
        with contextlib.suppress(KeyError):  # one of this name that came after it may have
            metric.remove(*labels)
