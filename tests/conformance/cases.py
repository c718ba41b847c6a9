"""What the cases have in common: over which combinations they run, and the policies they put."""

import pytest


def over(*combinations):
    """Run a case over these combinations; those of one run one after the other, in one test process."""
    params = [pytest.param(c, id=c.name, marks=group(c)) for c in combinations]
    return pytest.mark.parametrize("shared", params, indirect=True, scope="session")


def over_each(*pairs):
    """The same over combinations, each with a way to the other zone: (combination, whether it is by the egress)."""
    params = [
        pytest.param(c, egress, id=f"{c.name}-{'through-egress' if egress else 'ingress-only'}", marks=group(c))
        for c, egress in pairs
    ]
    return pytest.mark.parametrize(("shared", "egress"), params, indirect=["shared"], scope="session")


def group(combination):
    """Keeps the cases of a combination in one test process."""
    return pytest.mark.xdist_group(combination.name)


def policy(kind, name, **spec):
    return {"type": kind, "mesh": "default", "name": name, "spec": spec}


def to(kind, name, service, **conf):
    """A policy about what all clients do with a service."""
    return policy(kind, name, to=[{"targetRef": {"kind": "MeshService", "name": service}, **conf}])
