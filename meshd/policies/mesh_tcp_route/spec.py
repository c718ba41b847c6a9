"""The spec of a MeshTCPRoute, field for field as Kuma 2.14 has it."""

from meshd.model.resource import Spec
from meshd.rules.backend_ref import BackendRef
from meshd.rules.target_ref import TargetRef


class RuleConf(Spec):
    """Where connections go, by weight."""

    backend_refs: tuple[BackendRef, ...] | None = None


class Rule(Spec):
    """There are no conditions on TCP connections, so a destination has one rule at most."""

    default: RuleConf


class To(Spec):
    """Where connections to some destinations go."""

    target_ref: TargetRef
    rules: tuple[Rule, ...]


class MeshTCPRoute(Spec):
    """``target_ref`` are the clients."""

    target_ref: TargetRef | None = None
    to: tuple[To, ...] | None = None
