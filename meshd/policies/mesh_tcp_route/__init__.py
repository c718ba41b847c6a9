"""MeshTCPRoute: where the connections to a service go, split by weight.

``spec.py`` is what a user writes, ``validate.py`` what the schema cannot say. README.md tells users.
"""

from meshd.model.resource_type import ResourceType, Scope
from meshd.policies import TRAVELS, Policy
from meshd.policies.mesh_tcp_route.envoy import TcpRouteShaper, merged_document, to_items
from meshd.policies.mesh_tcp_route.spec import MeshTCPRoute
from meshd.policies.mesh_tcp_route.validate import validate
from meshd.rules.explain import Sections

TYPE = ResourceType(
    kind="MeshTCPRoute",
    path="meshtcproutes",
    short="mtcpr",
    scope=Scope.MESH,
    flow=TRAVELS,
    spec=MeshTCPRoute,
    doc="Where the connections to a service go.",
    flat=False,
    validate=validate,
    is_policy=True,
)

POLICY = Policy(type=TYPE, order=200, shaper=TcpRouteShaper(), sections=Sections(to=to_items, merge=merged_document))

__all__ = ["POLICY", "TYPE", "MeshTCPRoute"]
