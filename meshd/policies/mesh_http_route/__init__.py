"""MeshHTTPRoute: where HTTP requests go, by path, method, headers and query, and what is done to them on the way.

``spec.py`` is what a user writes, ``validate.py`` and ``validate_filters.py`` what the schema cannot say. README.md
tells users.
"""

from meshd.model.resource_type import ResourceType, Scope
from meshd.policies import TRAVELS, Policy
from meshd.policies.mesh_http_route.envoy import HttpRouteShaper
from meshd.policies.mesh_http_route.spec import MeshHTTPRoute
from meshd.policies.mesh_http_route.validate import validate

TYPE = ResourceType(
    kind="MeshHTTPRoute",
    path="meshhttproutes",
    short="mhttpr",
    scope=Scope.MESH,
    flow=TRAVELS,
    spec=MeshHTTPRoute,
    doc="Where HTTP requests go, and what is done to them on the way.",
    flat=False,
    validate=validate,
    is_policy=True,
)

POLICY = Policy(type=TYPE, order=100, shaper=HttpRouteShaper())

__all__ = ["POLICY", "TYPE", "MeshHTTPRoute"]
