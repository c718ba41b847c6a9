"""What ``retryOn`` may say, and how Envoy says it.

Source: Kuma ``pkg/plugins/policies/meshretry/api/v1alpha1/meshretry.go`` (names, not texts).
"""

from collections.abc import Mapping

from meshd.policies.mesh_retry.spec import GrpcRetryOn

HTTP_CONDITIONS: Mapping[str, str] = {
    "5xx": "5xx",
    "GatewayError": "gateway-error",
    "Reset": "reset",
    "Retriable4xx": "retriable-4xx",
    "ConnectFailure": "connect-failure",
    "EnvoyRatelimited": "envoy-ratelimited",
    "RefusedStream": "refused-stream",
    "Http3PostConnectFailure": "http3-post-connect-failure",
}
"""Conditions on what came of a request."""
METHODS: Mapping[str, str] = {
    f"HttpMethod{name.capitalize()}": name
    for name in ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
}
"""Only requests with these methods are tried again."""
GRPC_CONDITIONS: Mapping[GrpcRetryOn, str] = {
    GrpcRetryOn.CANCELED: "cancelled",  # Envoy knows no "canceled", which Kuma 2.14 sends
    GrpcRetryOn.DEADLINE_EXCEEDED: "deadline-exceeded",
    GrpcRetryOn.INTERNAL: "internal",
    GrpcRetryOn.RESOURCE_EXHAUSTED: "resource-exhausted",
    GrpcRetryOn.UNAVAILABLE: "unavailable",
}
"""Conditions on the status of a gRPC call."""
