"""``to``: what a client's proxy does with traffic to a destination, or to one that a route takes.

A destination is a ``kuma.io/service``: ``MeshService`` references name its value, also for an ExternalService. The
kinds that are resources of their own (MeshExternalService, MeshMultiZoneService) mean none of them.

Source: Kuma ``pkg/plugins/policies/core/rules/outbound`` (behaviour, not code). Kuma sorts entries for a
``kuma.io/service`` by policy and place alone; here, as in Kuma for its MeshServices, an entry about one service beats
one about the mesh in policies that are equally specific.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from meshd.model.resource import Resource, Spec
from meshd.rules import match as matching
from meshd.rules.merge import merge_confs
from meshd.rules.target_ref import SPECIFICITY, Kind, TargetRef

ConfT = TypeVar("ConfT")
SpecT = TypeVar("SpecT", bound=Spec)


@dataclass(frozen=True, slots=True)
class ToEntry(Generic[ConfT]):
    """An entry of ``to``, the policy it stands in, and its place there."""

    ref: TargetRef
    conf: ConfT
    policy: Resource
    index: int

    def is_about(self, service: str, routes: Iterable[Resource] = ()) -> bool:
        """Whether it is about traffic to a service that comes by a route made of these MeshHTTPRoutes, if any."""
        top = matching.top_level(self.policy)
        if top.kind is Kind.MESH_HTTP_ROUTE:
            return self.ref.kind is Kind.MESH and any(matching.names(top, self.policy, route) for route in routes)
        match self.ref.kind:
            case Kind.MESH:
                return True
            case Kind.MESH_SERVICE:
                return self.ref.name == service
            case Kind.MESH_HTTP_ROUTE:
                return any(matching.names(self.ref, self.policy, route) for route in routes)
            case _:
                return False


def to_entries(
    policies: Sequence[Resource], items: Callable[[Spec], Sequence[tuple[TargetRef, ConfT]]]
) -> tuple[ToEntry[ConfT], ...]:
    """The entries of policies sorted least specific first, in that order too."""
    found = [
        ToEntry(ref, conf, policy, index) for policy in policies for index, (ref, conf) in enumerate(items(policy.spec))
    ]
    return tuple(sorted(found, key=lambda entry: (matching.rank(entry.policy), _rank(entry.ref))))


def conf_of(entries: Sequence[ToEntry[SpecT]], service: str, routes: Iterable[Resource] = ()) -> SpecT | None:
    """The merge of all entries about traffic to a service (by a route made of ``routes``), None if there is none."""
    confs = [entry.conf for entry in entries if entry.is_about(service, routes)]
    return merge_confs(confs) if confs else None


def _rank(ref: TargetRef) -> tuple[int, int]:
    return SPECIFICITY[ref.kind], int(ref.kind is Kind.MESH_SERVICE and bool(ref.section_name))
