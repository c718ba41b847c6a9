"""MeshHTTPRoute: where HTTP requests go, by path, method, headers and query, and what is done to them on the way.

``spec.py`` is what a user writes, ``validate.py`` and ``validate_filters.py`` what the schema cannot say. README.md
tells users.
"""

from meshd.model.resource_type import ResourceType, Scope
from meshd.policies import TRAVELS, Policy
from meshd.policies.mesh_http_route.envoy import HttpRouteShaper, to_items
from meshd.policies.mesh_http_route.merge import conditions, merged_document
from meshd.policies.mesh_http_route.spec import MeshHTTPRoute
from meshd.policies.mesh_http_route.validate import validate
from meshd.rules.explain import Sections

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

SECTIONS = Sections(to=to_items, merge=merged_document, conditions=conditions)
POLICY = Policy(type=TYPE, order=100, shaper=HttpRouteShaper(), sections=SECTIONS)

__all__ = ["POLICY", "TYPE", "MeshHTTPRoute"]
