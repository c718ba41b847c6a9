"""One folder per policy: spec, validation, what it does to the engine's routes, and a README with tested examples.

Adding a policy touches its folder and its tests, nothing else: ``discover`` finds every package here that has a
``POLICY``.
"""

import importlib
import itertools
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field

from meshd.l4.table import PermitFor
from meshd.model.resource import Resource
from meshd.model.resource_type import Flow, ResourceType
from meshd.rules.explain import Sections
from meshd.xds.shaping import Shaper

TRAVELS = Flow.GLOBAL_TO_ZONE | Flow.ZONE_TO_GLOBAL | Flow.ACROSS_ZONES | Flow.ZONE_LOCAL | Flow.HASHED
"""How policies travel by KDS."""


def nothing(_: str) -> tuple[Resource, ...]:
    """The ``initial`` of a policy of which a new mesh gets none."""
    return ()


@dataclass(frozen=True, slots=True)
class Policy:
    """What a policy gives the rest of the program.

    ``type`` is its registry entry. ``order`` is when it takes effect among the policies (Kuma's numbers).
    ``permit_for`` is there for a policy that decides who may connect; at most one policy does. ``initial`` makes the
    ones that a new mesh of that name begins with, without labels (see ``initial.py``).
    ``shaper`` changes what an Envoy is sent. ``sections`` is how its spec is read by who asks what it says.
    """

    type: ResourceType
    order: int
    permit_for: PermitFor | None = None
    initial: Callable[[str], tuple[Resource, ...]] = nothing
    shaper: Shaper | None = None
    sections: Sections = field(default_factory=Sections)


def discover() -> tuple[Policy, ...]:
    """Every policy of this package, in the order they take effect.

    Raises:
        ValueError: two policies claim the same order, or both decide who may connect.
    """
    found: list[Policy] = []
    for info in pkgutil.iter_modules(__path__):
        if not info.ispkg:
            continue
        module = importlib.import_module(f"{__name__}.{info.name}")
        found.append(module.POLICY)
    found.sort(key=lambda policy: policy.order)
    for one, next_ in itertools.pairwise(found):
        if one.order == next_.order:
            raise ValueError(f"policies {one.type.kind} and {next_.type.kind} both have order {one.order}")
    permitting = [policy.type.kind for policy in found if policy.permit_for is not None]
    if len(permitting) > 1:
        raise ValueError(f"policies {', '.join(permitting)} all decide who may connect; only one may")
    return tuple(found)
