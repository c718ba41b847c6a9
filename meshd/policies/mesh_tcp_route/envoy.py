"""Where the connections of an Envoy to a service go.

Source: Kuma ``pkg/plugins/policies/meshtcproute/plugin`` (behaviour, not code).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from meshd.model.resource import Resource, Spec
from meshd.policies.mesh_tcp_route.spec import MeshTCPRoute, RuleConf
from meshd.rules.backend_ref import BackendRef
from meshd.rules.explain import merged
from meshd.rules.outbound import ToEntry, conf_of, to_entries
from meshd.rules.target_ref import Kind, TargetRef
from meshd.xds.backends import Subset, backends_of, subsets_of
from meshd.xds.shaping import Destination, Routes, Shaper


class TcpRouteShaper(Shaper):
    """See the module."""

    def routes(
        self, matched: Sequence[Resource], destination: Destination, protocols: Mapping[str, str]
    ) -> Routes | None:
        """The shares that the most specific policy about the destination says."""
        del protocols
        conf = conf_of(to_entries(matched, to_items), destination.service)
        return Routes(tcp=backends_of(conf.backend_refs or ())) if conf is not None else None

    def subsets(self, policies: Sequence[Resource]) -> Iterable[Subset]:
        """The parts of services that any policy sends connections to."""
        return subsets_of(ref for policy in policies for ref in _refs(policy.spec))


def to_items(spec: Spec) -> list[tuple[TargetRef, RuleConf]]:
    """The entries of ``to``; one without a rule says that its destination is to be left as it is."""
    return [
        (item.target_ref, item.rules[0].default if item.rules else _unchanged(item.target_ref))
        for item in cast("MeshTCPRoute", spec).to or ()
    ]


def merged_document(entries: Sequence[ToEntry[RuleConf]]) -> dict[str, Any]:
    """The shares that entries about one destination come to, as the rule that says them, in JSON."""
    return {"default": merged(entries)}


def _unchanged(ref: TargetRef) -> RuleConf:
    return RuleConf(backend_refs=(BackendRef(kind=Kind.MESH_SERVICE, name=ref.name),))


def _refs(spec: Spec) -> Iterator[BackendRef]:
    for item in cast("MeshTCPRoute", spec).to or ():
        for rule in item.rules:
            yield from rule.default.backend_refs or ()
