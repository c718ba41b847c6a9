"""What is counted of proxies' streams."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, RUNTIME, SECRET

SHORT = {CLUSTER: "cds", ENDPOINTS: "eds", LISTENER: "lds", ROUTES: "rds", SECRET: "sds", RUNTIME: "rtds"}
"""A type in metrics and insights; a peer's own words make no series."""
OTHER = "other"


class Metrics:
    """See the module. Types are those of ``SHORT``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.streams = Gauge("meshd_xds_streams", "Open streams of proxies.", ["service"], registry=registry)
        self.refused = Counter(
            "meshd_xds_refused_streams",
            "Streams of proxies that were refused.",
            ["service", "status"],
            registry=registry,
        )
        self.responses = Counter(
            "meshd_xds_responses", "Responses by what became of them.", ["type", "outcome"], registry=registry
        )
        self.resources = Counter("meshd_xds_resources_sent", "Resources in responses.", ["type"], registry=registry)
        self.registered = Counter(
            "meshd_xds_registrations", "Proxies' resources that came and went with them.", ["event"], registry=registry
        )
        self.health = Counter("meshd_xds_health_transitions", "Inbounds by new state.", ["state"], registry=registry)
