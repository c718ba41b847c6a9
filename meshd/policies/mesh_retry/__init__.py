"""MeshRetry: which requests and connections are tried again, how often and when.

``spec.py`` is what a user writes, ``validate.py`` what the schema cannot say, ``conditions.py`` the words of
``retryOn``, ``initial.py`` what a new mesh begins with. README.md tells users.
"""

from meshd.model.resource_type import ResourceType, Scope
from meshd.policies import TRAVELS, Policy
from meshd.policies.mesh_retry.envoy import RetryShaper, to_items
from meshd.policies.mesh_retry.initial import initial
from meshd.policies.mesh_retry.spec import MeshRetry
from meshd.policies.mesh_retry.validate import validate
from meshd.rules.explain import Sections

TYPE = ResourceType(
    kind="MeshRetry",
    path="meshretries",
    short="mr",
    scope=Scope.MESH,
    flow=TRAVELS,
    spec=MeshRetry,
    doc="Which requests and connections are tried again.",
    flat=False,
    validate=validate,
    is_policy=True,
)

POLICY = Policy(type=TYPE, order=1400, initial=initial, shaper=RetryShaper(), sections=Sections(to=to_items))

__all__ = ["POLICY", "TYPE", "MeshRetry"]
