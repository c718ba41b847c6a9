"""Who may connect: by service and by tag, for what is new and for what is open."""

import pytest

from tests.conformance.asking import ask, ends, stream
from tests.conformance.cases import over, policy
from tests.conformance.world import ALL
from tests.e2e.lab import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ALL_CLIENTS = ({"kind": "Mesh"}, "Allow")
DENIED = {
    "service": {"kind": "MeshService", "name": "client"},
    "tag": {"kind": "MeshSubset", "tags": {"team": "red"}},
}


@over(*ALL)
@pytest.mark.parametrize("by", DENIED)
def test_a_client_is_denied_and_allowed_again(world, by):
    # http where the inbound knows requests: the answer is 403. Elsewhere the connection ends without one.
    refused = {"far": 403 if world.engine("b-0") == "envoy" else 0, "far-raw": 0}
    for service, status in refused.items():
        entries = [{"targetRef": ref, "default": {"action": a}} for ref, a in (ALL_CLIENTS, (DENIED[by], "Deny"))]
        denial = policy("MeshTrafficPermission", f"deny-{service}", targetRef={"kind": "MeshService", "name": service})
        denial["spec"]["from"] = entries
        with stream(world.places[service]) as open_one:
            world.put(denial)
            eventually(lambda s=service, status=status: ask(world.places[s]).status == status)
            assert ends(open_one)
        assert ask(world.places["web"]).is_ok
        world.delete(f"/meshes/default/meshtrafficpermissions/deny-{service}")
        eventually(lambda s=service: ask(world.places[s]).is_ok)
