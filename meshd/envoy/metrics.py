"""What is counted of Envoy processes."""

import contextlib

from prometheus_client import CollectorRegistry, Counter, Gauge

from meshd.model.resource import ResourceKey

LABELS = ("kind", "mesh", "name")


class Metrics:
    """Of all Envoys of one role; the labels name the proxy."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._up = Gauge("meshd_envoy_up", "1 while the proxy's Envoy is live, else 0.", LABELS, registry=registry)
        self._restarts = Counter(
            "meshd_envoy_restarts", "Envoys that ended and were started again.", LABELS, registry=registry
        )
        self._dropped = Counter(
            "meshd_envoy_log_lines_dropped", "Lines of Envoy's log that were too many.", LABELS, registry=registry
        )

    def up(self, proxy: ResourceKey, *, is_up: bool) -> None:
        """Say whether a proxy's Envoy is live."""
        self._up.labels(*_labels(proxy)).set(int(is_up))

    def restarted(self, proxy: ResourceKey) -> None:
        """Count an Envoy that ended unasked."""
        self._restarts.labels(*_labels(proxy)).inc()

    def start(self, proxy: ResourceKey) -> None:
        """Show a proxy, with zeros: a rate over its restarts sees the first one."""
        self.up(proxy, is_up=False)
        self._restarts.labels(*_labels(proxy))
        self._dropped.labels(*_labels(proxy))

    def dropped(self, proxy: ResourceKey, lines: int) -> None:
        """Count log lines that were left out."""
        self._dropped.labels(*_labels(proxy)).inc(lines)

    def forget(self, proxy: ResourceKey) -> None:
        """Drop the series of a proxy that does not come back."""
        for metric in (self._up, self._restarts, self._dropped):
            with contextlib.suppress(KeyError):  # it was never started
                metric.remove(*_labels(proxy))


def _labels(proxy: ResourceKey) -> tuple[str, str, str]:
    return proxy.kind, proxy.mesh, proxy.name
