"""What KDS counts. One set a role; names start with ``meshd_kds``."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The counters of one role ("global" or "zone") in the registry of its control plane."""

    def __init__(self, registry: CollectorRegistry, role: str) -> None:
        prefix = f"meshd_kds_{role}"
        self.connected = Gauge(f"{prefix}_connected", "Connections that are online.", registry=registry)
        self.refused_connections = Counter(
            f"{prefix}_refused_connections_total", "Connections refused, by gRPC status.", ["status"], registry=registry
        )
        self.ended = Counter(f"{prefix}_ended_connections_total", "Connections that ended.", registry=registry)
        self.responses = Counter(
            f"{prefix}_responses_total",
            "Discovery responses by kind, direction (sent, received) and outcome (sent, ack, nack).",
            ["kind", "direction", "outcome"],
            registry=registry,
        )
        self.resources = Counter(
            f"{prefix}_resources_total",
            "Resources in discovery responses, by kind and direction.",
            ["kind", "direction"],
            registry=registry,
        )
        self.quarantined = Gauge(
            f"{prefix}_quarantined", "Resources that are refused now, by direction.", ["direction"], registry=registry
        )
        self.relabelled = Counter(
            f"{prefix}_zone_claims_total",
            "Values of other zones that a zone wrote into its specs and that were replaced, by kind.",
            ["kind"],
            registry=registry,
        )
        self.apply_seconds = Histogram(
            f"{prefix}_apply_seconds", "From a response received to its resources stored.", registry=registry
        )
