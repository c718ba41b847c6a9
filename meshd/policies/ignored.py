"""Which policies a proxy of the built-in engine takes no notice of, so that this can be said."""

from collections.abc import Callable, Iterator, Sequence

from meshd.kinds.dataplane import Dataplane
from meshd.kinds.without_effect import IDLE_POLICIES, NO_EFFECT
from meshd.model.errors import Violation
from meshd.model.resource import Resource
from meshd.policies import Policy
from meshd.rules import match

REASON = "has no effect here: the built-in engine carries bytes and has timeouts and retries of its own; use Envoy"


def without_engine(policies: Sequence[Policy]) -> tuple[str, ...]:
    """The kinds that have no effect on the built-in engine."""
    return (*(policy.type.kind for policy in policies if policy.permit_for is None), *IDLE_POLICIES)


def idle(stored: Callable[[str, str], Sequence[Resource]], dataplane: Resource) -> Iterator[Violation]:
    """A violation for each policy about ``dataplane`` of a kind that has no effect at all, with Envoy either."""
    for resource in match.without_effect(lambda kind: stored(kind, dataplane.key.mesh), dataplane):
        yield Violation(f"{resource.key.kind} {resource.display_name}", NO_EFFECT)


def ignored(
    policies: Sequence[Policy], stored: Callable[[str, str], Sequence[Resource]], dataplane: Resource
) -> tuple[Violation, ...]:
    """A violation for each policy about ``dataplane`` that the built-in engine does not follow.

    ``stored`` gives the policies of a kind and mesh. Those that a mesh began with are not worth a word while they are
    as they were: nobody asked for them, and the engine's own behaviour is much the same.
    """
    if not isinstance(dataplane.spec, Dataplane):
        return ()
    kinds = without_engine(policies)
    return (
        *idle(stored, dataplane),
        *(
            Violation(f"{policy.type.kind} {resource.display_name}", REASON)
            for policy in policies
            if policy.type.kind in kinds
            for resource in stored(policy.type.kind, dataplane.key.mesh)
            if not match.is_shadow(resource)
            and match.selects_proxy(resource, dataplane)
            and not _is_initial(policy, resource)
        ),
    )


def _is_initial(policy: Policy, resource: Resource) -> bool:
    made = policy.initial(resource.key.mesh)
    return any(m.key.name == resource.display_name and m.spec == resource.spec for m in made)
