"""What the keeper counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class KeeperMetrics:
    """The counters of one keeper, in the registry of its control plane."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.changes = Counter("meshd_topology_changes_total", "Changed resources taken in", registry=registry)
        self.rebuild_seconds = Histogram(
            "meshd_topology_rebuild_seconds",
            "From taking changes in to the views being published, waiting for the store included",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1),
            registry=registry,
        )
        self.published = Counter("meshd_topology_views_published_total", "Views that changed", registry=registry)
        self.services = Gauge("meshd_topology_services", "Services of a mesh", ("mesh",), registry=registry)
        self.vips = Gauge("meshd_topology_vips", "Virtual IPs in use", registry=registry)
        self.without_vip = Gauge(
            "meshd_topology_names_without_vip", "Names that got no virtual IP: none was free", registry=registry
        )
        self.store_away = Counter(
            "meshd_topology_store_unavailable_total", "Writes that failed since the store was away", registry=registry
        )
