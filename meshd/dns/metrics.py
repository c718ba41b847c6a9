"""What the resolver counts: plain dictionaries, since a query must not pay for a metrics library."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from meshd.dns.quick import Counted
from meshd.dns.top import Ranking, merged

Counts = dict[str, list[Any]]
"""By family, pairs of a key's parts and a number: what JSON can carry."""
LATENCY_S = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05)
"""Upper bounds of the histogram's buckets, in seconds."""


STATE_GAUGES = {
    "forwarding": ("meshd_dns_forwarding", "Questions that upstreams are asked now."),
    "cache_entries": ("meshd_dns_cache_entries", "Answers of upstreams that are kept."),
    "cache_bytes": ("meshd_dns_cache_bytes", "Bytes of kept answers, about."),
}


@dataclass(frozen=True, slots=True)
class State:
    """What one server has now: numbers by the keys of ``STATE_GAUGES``, which upstreams are up, and its top names."""

    gauges: Mapping[str, int]
    upstreams: Mapping[str, bool]
    top: Ranking

    def as_json(self) -> dict[str, Any]:
        """As what JSON can carry."""
        return {"gauges": dict(self.gauges), "upstreams": dict(self.upstreams), "top": self.top}


def state_of(said: Mapping[str, Any]) -> State:
    """The other way round.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    return State(
        {name: int(said["gauges"][name]) for name in STATE_GAUGES},
        {str(address): bool(is_up) for address, is_up in said["upstreams"].items()},
        [(str(name), str(rcode), int(count)) for name, rcode, count in said["top"]],
    )


class Tally(Collector):
    """Counts of one resolver; written by its loop, read by whoever collects. All label sets are bounded.

    ``queries`` by (type, rcode, path): path is ``slow`` or ``forwarded``, or ``fast``, which is counted in ``fast``.
    ``dropped`` by reason, ``upstream`` by (address, event), ``tcp`` and ``workers`` by event, ``cache`` by what it was
    good for, ``log`` by what became of a line of the query log. ``gauges`` are read at collection time, and so are
    ``states``: of each server that answers now, in whichever process, by any key. ``top_size`` of their top names are
    told, as a metric only those that ``is_known`` says are ours: what clients make up would be ever new series.
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
        self.log: dict[str, int] = {}
        self.states: dict[object, Callable[[], State]] = {}
        self.top_size = 0
        self.is_known: Callable[[str], bool] = lambda _: False
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
            "log": self.log,
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

    def logged(self, event: str, count: int) -> None:
        """Count what became of lines of the query log: written, dropped, failed."""
        self.log[event] = self.log.get(event, 0) + count

    def connection(self, event: str) -> None:
        """Count what became of a TCP connection."""
        self.tcp[event] = self.tcp.get(event, 0) + 1

    def answered(self) -> dict[tuple[str, str, str], int]:
        """All answers by (type, rcode, path)."""
        fast = {(qtype, rcode, "fast"): count for (qtype, rcode), count in self.fast.copy().items()}
        return {**self.queries.copy(), **fast}

    def state(self) -> State:
        """What all servers have, as one; an upstream is up if nobody finds it down."""
        states = [read() for read in self.states.copy().values()]
        upstreams: dict[str, bool] = {}
        for state in states:
            for address, is_up in state.upstreams.items():
                upstreams[address] = upstreams.get(address, True) and is_up
        return State(
            {name: sum(state.gauges[name] for state in states) for name in STATE_GAUGES},
            upstreams,
            merged((state.top for state in states), self.top_size),
        )

    def collect(self) -> Iterator[Metric]:
        """The counts as Prometheus families."""
        yield counted("queries", "DNS queries answered.", ("type", "rcode", "path"), self.answered())
        latency = HistogramMetricFamily("meshd_dns_answer_seconds", "From receipt by UDP to answer, forwarding aside.")
        buckets, total = [], 0
        for bound, count in zip((*map(str, LATENCY_S), "+Inf"), self.latency_counts.copy(), strict=True):
            total += count
            buckets.append((bound, total))
        latency.add_metric((), buckets, self.latency_sum_s)
        yield latency
        yield counted("dropped", "DNS packets that got no answer.", ("reason",), self.dropped)
        yield counted(
            "upstream_events", "What upstreams did with forwarded queries.", ("upstream", "event"), self.upstream
        )
        yield counted("tcp_connections", "DNS connections by what became of them.", ("event",), self.tcp)
        yield counted("workers", "DNS worker processes by what became of them.", ("event",), self.workers)
        yield counted("forwarded_questions", "Questions to upstreams by what became of them.", ("event",), self.cache)
        yield counted("query_log_lines", "Lines of the query log by what became of them.", ("event",), self.log)
        state = self.state()
        is_up = GaugeMetricFamily("meshd_dns_upstream_up", "Whether an upstream answers.", labels=("upstream",))
        for address, answers in state.upstreams.items():
            is_up.add_metric((address,), float(answers))
        yield is_up
        top = GaugeMetricFamily(
            "meshd_dns_top_name_queries", "Queries of the last minute for the names asked for most.", labels=("name",)
        )
        for own, rcode, times in state.top:
            if rcode == "NOERROR" and self.is_known(own):
                top.add_metric((own,), times)
        yield top
        for key, (title, words) in STATE_GAUGES.items():
            yield GaugeMetricFamily(title, words, value=state.gauges[key])
        for name, (text, read) in self.gauges.copy().items():
            yield GaugeMetricFamily(name, text, value=read())


def counted(name: str, text: str, labels: Sequence[str], counts: Mapping[Any, int]) -> Metric:
    """Counts as a family. A key is the value of the one label, or a tuple of those of several."""
    family = CounterMetricFamily(f"meshd_dns_{name}", text, labels=labels)
    for key, count in dict(counts).items():
        family.add_metric(key if isinstance(key, tuple) else (key,), count)
    return family
