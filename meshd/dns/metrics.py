"""What the resolver counts: plain dictionaries, since a query must not pay for a metrics library."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from meshd.dns.quick import Counted

Counts = dict[str, list[Any]]
"""By family, pairs of a key's parts and a number: what JSON can carry."""
LATENCY_S = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05)
"""Upper bounds of the histogram's buckets, in seconds."""


class Tally(Collector):
    """Counts of one resolver; written by its loop, read by whoever collects. All label sets are bounded.

    ``queries`` by (type, rcode, path): path is ``slow`` or ``forwarded``, or ``fast``, which is counted in ``fast``.
    ``dropped`` by reason, ``upstream`` by (address, event), ``tcp`` and ``workers`` by event, ``cache`` by what it was
    good for. ``gauges`` and ``upstreams`` (which are up) are read at collection time.
    """

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self.queries: dict[tuple[str, str, str], int] = {}
        self.dropped: dict[str, int] = {}
        self.upstream: dict[tuple[str, str], int] = {}
        self.tcp: dict[str, int] = {}
        self.fast: Counter[Counted] = Counter()
        """Answers by the fast road."""
        self.latency_counts = [0] * (len(LATENCY_S) + 1)
        self.latency_sum_s = 0.0
        self.workers: dict[str, int] = {}
        self.cache: dict[str, int] = {}
        self.upstreams: Callable[[], Mapping[str, bool]] = dict
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        if registry is not None:
            registry.register(self)

    def query(self, qtype: str, rcode: str, path: str, count: int = 1) -> None:
        """Count answered queries."""
        key = (qtype, rcode, path)
        self.queries[key] = self.queries.get(key, 0) + count

    def worker(self, event: str) -> None:
        """Count what became of a worker process: started, ended."""
        self.workers[event] = self.workers.get(event, 0) + 1

    def snapshot(self) -> Counts:
        """All that was counted, for ``absorb`` in another process."""
        counts: Counts = {
            family: [[list(key) if isinstance(key, tuple) else [key], count] for key, count in values.copy().items()]
            for family, values in self._families().items()
        }
        counts["latency"] = [[[i], count] for i, count in enumerate(self.latency_counts)]
        counts["latency_sum_s"] = [[[], self.latency_sum_s]]
        return counts

    def absorb(self, before: Counts, now: Counts) -> None:
        """Add what another tally counted between two of its snapshots."""
        known = {(family, *key): count for family, values in before.items() for key, count in values}
        families = self._families()
        for family, values in now.items():
            for key, count in values:
                more = count - known.get((family, *key), 0)
                if family == "latency":
                    self.latency_counts[key[0]] += more
                elif family == "latency_sum_s":
                    self.latency_sum_s += more
                elif more:
                    target: dict[Any, int] = families[family]
                    own = key[0] if len(key) == 1 else tuple(key)
                    target[own] = target.get(own, 0) + more

    def _families(self) -> dict[str, dict[Any, int]]:
        return {
            "queries": self.queries,
            "dropped": self.dropped,
            "upstream": self.upstream,
            "tcp": self.tcp,
            "cache": self.cache,
            "fast": self.fast,
        }

    def took(self, seconds: float, count: int) -> None:
        """Count the time from the receipt of a batch of so many queries until it was answered, the forwarded aside."""
        self.latency_counts[bisect_left(LATENCY_S, seconds)] += count
        self.latency_sum_s += seconds * count

    def drop(self, reason: str, count: int = 1) -> None:
        """Count a packet that got no answer, or not a whole one."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

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

    def answered(self) -> dict[tuple[str, str, str], int]:
        """All answers by (type, rcode, path)."""
        fast = {(qtype, rcode, "fast"): count for (qtype, rcode), count in self.fast.copy().items()}
        return {**self.queries.copy(), **fast}

    def collect(self) -> Iterator[Metric]:
        """The counts as Prometheus families."""
        queries = CounterMetricFamily("meshd_dns_queries", "DNS queries answered.", labels=("type", "rcode", "path"))
        for labels, count in self.answered().items():
            queries.add_metric(labels, count)
        yield queries
        latency = HistogramMetricFamily("meshd_dns_answer_seconds", "From receipt by UDP to answer, forwarding aside.")
        buckets, total = [], 0
        for bound, count in zip((*map(str, LATENCY_S), "+Inf"), self.latency_counts.copy(), strict=True):
            total += count
            buckets.append((bound, total))
        latency.add_metric((), buckets, self.latency_sum_s)
        yield latency
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
        workers = CounterMetricFamily(
            "meshd_dns_workers", "DNS worker processes by what became of them.", labels=("event",)
        )
        for event, count in self.workers.copy().items():
            workers.add_metric((event,), count)
        yield workers
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
