"""What leaves in an orderly way costs nothing: an instance, and a whole zone."""

import signal
from contextlib import ExitStack, contextmanager

import pytest

from tests.conformance.asking import traffic
from tests.conformance.cases import over
from tests.conformance.test_failover import all_answer, during, lost
from tests.conformance.world import BUILTIN, BY_TURNS, ENVOY
from tests.e2e.lab import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@contextmanager
def long_requests(world):
    """Bytes that take their time, several at once: some are under way wherever something ends. None may be lost."""
    with ExitStack() as stack:
        loops = [stack.enter_context(traffic(world.places["raw"], "/slow/700", kept=False)) for _ in range(8)]
        yield
    failed = [r for loop in loops for r in loop.failed]
    print(f"long ones: {sum(len(loop) for loop in loops)}, {len(failed)} failed")
    assert not failed, failed[:5]


def kept_alone(world, service, t):
    """Nothing failed but one connection of bytes that was in use for longer than an engine drains, and is cut."""
    assert not [r for r in t.requests if not r.answer.is_ok], t.failed[:5]
    assert not lost(world, service, t), t.failed[:5]


@over(ENVOY, BUILTIN, BY_TURNS)
def test_an_instance_leaves_and_comes_back(world):
    with long_requests(world):
        found = during(world, lambda: world.lab.delete("zone-b", "/meshes/default/dataplanes/b-1"), 5)
    for service, t in found.items():
        kept_alone(world, service, t)
        late = t.after(t.marked + 3)
        assert "b-1" not in {r.answer.body for r in late if r in t.requests}
    eventually(lambda: "b-1" not in world.envoys(), 15)
    found = during(world, lambda: world.lab.put("zone-b", world.comes_and_goes), 3)
    for t in found.values():
        assert not t.failed, t.failed[:5]
    eventually(lambda: all_answer(world), 30)


@over(BUILTIN, ENVOY)
def test_a_zone_is_stopped_and_started(world):
    """SIGINT also drains the Envoys."""
    process = world.lab.zones["zone-b"].process
    with long_requests(world):
        found = during(world, lambda: process.popen.send_signal(signal.SIGINT), 5)
    assert process.popen.wait(20) == 0
    world.lab.start("zone-b")
    for service, t in found.items():
        kept_alone(world, service, t)
    eventually(lambda: all_answer(world), 60)
