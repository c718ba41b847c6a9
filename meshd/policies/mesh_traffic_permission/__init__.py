"""MeshTrafficPermission: which clients may use an inbound, or an external service through an egress.

``spec.py`` is what a user writes, ``validate.py`` what the schema cannot say, ``permit.py`` the decision,
``rbac.py`` the same decision for an Envoy to make. README.md tells users.
"""

from meshd.model.resource_type import ResourceType, Scope
from meshd.policies import TRAVELS, Policy
from meshd.policies.mesh_traffic_permission.permit import from_items, inbound_items, permit_for
from meshd.policies.mesh_traffic_permission.rbac import RbacShaper
from meshd.policies.mesh_traffic_permission.spec import MeshTrafficPermission
from meshd.policies.mesh_traffic_permission.validate import validate
from meshd.rules.explain import Sections

TYPE = ResourceType(
    kind="MeshTrafficPermission",
    path="meshtrafficpermissions",
    short="mtp",
    scope=Scope.MESH,
    flow=TRAVELS,
    spec=MeshTrafficPermission,
    doc="Which clients may connect to which services.",
    flat=False,
    validate=validate,
    is_policy=True,
)

SECTIONS = Sections(clients=from_items, inbound=inbound_items)
POLICY = Policy(type=TYPE, order=1100, permit_for=permit_for, shaper=RbacShaper(), sections=SECTIONS)

__all__ = ["POLICY", "TYPE", "MeshTrafficPermission", "permit_for"]
