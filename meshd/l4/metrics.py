"""What the engine counts. One ``Metrics`` per registry, shared by all engines of a control plane."""

from prometheus_client import CollectorRegistry, Counter, Gauge

UPSTREAM = ("proxy", "mesh", "service", "upstream", "zone")
"""The labels that name an upstream."""


class Metrics:
    """Counters per listener and per upstream. ``proxy`` is the name of the proxy resource.

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
