"""One world a combination, shared by all cases of a run that are about it."""

import pytest

from tests.conformance.world import world as world_of


@pytest.fixture(scope="session")
def shared(request, tmp_path_factory):
    """The world of a combination. ``over`` says of which."""
    pytest.importorskip("envoy")
    with world_of(tmp_path_factory.mktemp(request.param.name), request.param) as made:
        yield made


@pytest.fixture
def world(shared):
    """The same, as it was at the start."""
    shared.reset()
    return shared
