"""The MeshCircuitBreaker that a new mesh begins with: Envoy's own limits, written down.

Source: Kuma ``pkg/defaults/mesh/meshcircuitbreaker.go`` (values).
"""

from meshd.model.resource import Resource, ResourceKey
from meshd.policies.mesh_circuit_breaker.spec import Conf, ConnectionLimits, MeshCircuitBreaker, To
from meshd.rules.target_ref import WHOLE_MESH

AT_ONCE = 1024
LIMITS = ConnectionLimits(max_connections=AT_ONCE, max_pending_requests=AT_ONCE, max_requests=AT_ONCE, max_retries=3)
SPEC = MeshCircuitBreaker(
    target_ref=WHOLE_MESH, to=(To(target_ref=WHOLE_MESH, default=Conf(connection_limits=LIMITS)),)
)


def initial(mesh: str) -> tuple[Resource, ...]:
    """One for all."""
    return (Resource(ResourceKey("MeshCircuitBreaker", mesh, f"mesh-circuit-breaker-all-{mesh}"), SPEC),)
