"""What gRPC endpoints count. One object per control plane, shared by its servers and channels."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class RpcMetrics:
    """Counters with the label ``endpoint``: the name of a server or channel (``kds``, ``xds``)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"meshd_rpc_{name}", text, ("endpoint", *labels), registry=registry)

        self.connections = Gauge("meshd_rpc_open_connections", "Open connections", ("endpoint",), registry=registry)
        self.accepted = counter("connections_total", "Connections since the start")
        self.refused = counter(
            "connections_refused_total",
            "Connections ended for what the peer did, by reason: limit, tls, protocol, headers, flood, silent",
            "reason",
        )
        self.calls = counter(
            "calls_total", "Ended calls by path (other: no such method) and gRPC status", "path", "status"
        )
        self.http_requests = counter("http_requests_total", "Answered plain HTTP requests by status", "code")
        self.bugs = counter("handler_bugs_total", "Calls that ended by an unforeseen exception of ours", "path")
        self.messages = counter("messages_total", "Messages", "direction")
        self.message_bytes = counter("message_bytes_total", "Bytes of messages, not compressed", "direction")
