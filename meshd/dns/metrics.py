"""What the resolver counts: plain dictionaries, since a query must not pay for a metrics library."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry


class Tally(Collector):
    """Counts of one resolver; written by its loop, read by whoever collects. All label sets are bounded.

    ``queries`` by (type, rcode, path): path is ``fast``, ``slow`` or ``forwarded``. ``dropped`` by reason, ``upstream``
    by (address, event), ``tcp`` by event, ``cache`` by what it was good for. ``gauges`` and ``upstreams`` (which
    are up) are read at collection time.
    """

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self.queries: dict[tuple[str, str, str], int] = {}
        self.dropped: dict[str, int] = {}
        self.upstream: dict[tuple[str, str], int] = {}
        self.tcp: dict[str, int] = {}
        self.cache: dict[str, int] = {}
        self.upstreams: Callable[[], Mapping[str, bool]] = dict
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        if registry is not None:
            registry.register(self)

    def query(self, qtype: str, rcode: str, path: str, count: int = 1) -> None:
        """Count answered queries."""
        key = (qtype, rcode, path)
        self.queries[key] = self.queries.get(key, 0) + count

    def drop(self, reason: str) -> None:
        """Count a packet that got no answer."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def asked(self, upstream: str, event: str) -> None:
        """Count what an upstream did."""
        key = (upstream, event)
        self.upstream[key] = self.upstream.get(key, 0) + 1

    def cached(self, event: str) -> None:
        """Count what became of a question to the upstreams: hit, miss, stale, shared, prefetch, probe."""
        self.cache[event] = self.cache.get(event, 0) + 1

    def connection(self, event: str) -> None:
        """Count what became of a TCP connection."""
        self.tcp[event] = self.tcp.get(event, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """The counts as Prometheus families."""
        queries = CounterMetricFamily("meshd_dns_queries", "DNS queries answered.", labels=("type", "rcode", "path"))
        for labels, count in self.queries.copy().items():
            queries.add_metric(labels, count)
        yield queries
        dropped = CounterMetricFamily("meshd_dns_dropped", "DNS packets that got no answer.", labels=("reason",))
        for reason, count in self.dropped.copy().items():
            dropped.add_metric((reason,), count)
        yield dropped
        upstream = CounterMetricFamily(
            "meshd_dns_upstream_events", "What upstreams did with forwarded queries.", labels=("upstream", "event")
        )
        for labels_of_event, count in self.upstream.copy().items():
            upstream.add_metric(labels_of_event, count)
        yield upstream
        tcp = CounterMetricFamily(
            "meshd_dns_tcp_connections", "DNS connections by what became of them.", labels=("event",)
        )
        for event, count in self.tcp.copy().items():
            tcp.add_metric((event,), count)
        yield tcp
        cache = CounterMetricFamily(
            "meshd_dns_forwarded_questions", "Questions to upstreams by what became of them.", labels=("event",)
        )
        for event, count in self.cache.copy().items():
            cache.add_metric((event,), count)
        yield cache
        is_up = GaugeMetricFamily("meshd_dns_upstream_up", "Whether an upstream answers.", labels=("upstream",))
        for address, answers in self.upstreams().items():
            is_up.add_metric((address,), float(answers))
        yield is_up
        for name, (text, read) in self.gauges.copy().items():
            yield GaugeMetricFamily(name, text, value=read())
