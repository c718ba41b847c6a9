"""MeshCircuitBreaker: limits on what goes on at once, and leaving out instances that fail.

``spec.py`` is what a user writes, ``validate.py`` what the schema cannot say. ``initial.py`` is what a new mesh begins
with. README.md tells users.
"""

from meshd.model.resource_type import ResourceType, Scope
from meshd.policies import TRAVELS, Policy
from meshd.policies.mesh_circuit_breaker.envoy import CircuitBreakerShaper, from_items, inbound_items, to_items
from meshd.policies.mesh_circuit_breaker.initial import initial
from meshd.policies.mesh_circuit_breaker.spec import MeshCircuitBreaker
from meshd.policies.mesh_circuit_breaker.validate import validate
from meshd.rules.explain import Sections

TYPE = ResourceType(
    kind="MeshCircuitBreaker",
    path="meshcircuitbreakers",
    short="mcb",
    scope=Scope.MESH,
    flow=TRAVELS,
    spec=MeshCircuitBreaker,
    doc="Limits on what goes on at once, and which failing instances are left out.",
    flat=False,
    validate=validate,
    is_policy=True,
)

SECTIONS = Sections(to=to_items, clients=from_items, inbound=inbound_items)
POLICY = Policy(type=TYPE, order=1300, initial=initial, shaper=CircuitBreakerShaper(), sections=SECTIONS)

__all__ = ["POLICY", "TYPE", "MeshCircuitBreaker"]
