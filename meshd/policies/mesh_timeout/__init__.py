"""MeshTimeout: how long connections, requests and streams may take, at the client and at the server.

``spec.py`` is what a user writes, ``validate.py`` what the schema cannot say. ``initial.py`` is what a new mesh begins
with. README.md tells users.
"""

from meshd.model.resource_type import ResourceType, Scope
from meshd.policies import TRAVELS, Policy
from meshd.policies.mesh_timeout.envoy import TimeoutShaper, from_items, inbound_items, to_items
from meshd.policies.mesh_timeout.initial import initial
from meshd.policies.mesh_timeout.spec import MeshTimeout
from meshd.policies.mesh_timeout.validate import validate
from meshd.rules.explain import Sections

TYPE = ResourceType(
    kind="MeshTimeout",
    path="meshtimeouts",
    short="mt",
    scope=Scope.MESH,
    flow=TRAVELS,
    spec=MeshTimeout,
    doc="How long connections, requests and streams may take.",
    flat=False,
    validate=validate,
    is_policy=True,
)

SECTIONS = Sections(to=to_items, clients=from_items, inbound=inbound_items)
POLICY = Policy(type=TYPE, order=1000, initial=initial, shaper=TimeoutShaper(), sections=SECTIONS)

__all__ = ["POLICY", "TYPE", "MeshTimeout"]
