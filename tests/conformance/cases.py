"""What the cases have in common: over which combinations they run, and the policies they put."""

import pytest


def over(*combinations):
    """Run a case over these combinations; those of one run one after the other, in one test process."""
    params = [pytest.param(c, id=c.name, marks=pytest.mark.xdist_group(c.name)) for c in combinations]
    return pytest.mark.parametrize("shared", params, indirect=True, scope="session")


def policy(kind, name, **spec):
    return {"type": kind, "mesh": "default", "name": name, "spec": spec}


def to(kind, name, service, **conf):
    """A policy about what all clients do with a service."""
    return policy(kind, name, to=[{"targetRef": {"kind": "MeshService", "name": service}, **conf}])
