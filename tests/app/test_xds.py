import pytest

from meshd.app.xds import Door, bound_by
from meshd.model.errors import UnavailableError
from meshd.xds.resources import CLUSTER, LISTENER
from meshd.xds.shaping import Shaper
from tests.topology import builders as b
from tests.xds.test_keeper import REDIRECTED, World, http, idle, key


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "outbound:",
        "outbound:999.1.1.1:80",
        "outbound:1.2.3.4:99999",
        "outbound:1.2.3.4:0",
        "outbound:1.2.3.4:080",
        "outbound:01.2.3.4:80",
        "outbound:1.2.3:80",
        "outbound:1.2.3.4:80\n",
        "outbound:\u0661.2.3.4:80",
        "outbound:[::1]:80",
        "inbound:1.2.3.4:80",
        "xoutbound:1.2.3.4:80",
        CLUSTER,
    ],
)
def test_names_that_are_no_outbound_listeners_are_bound_nowhere(odd):
    assert bound_by([odd]).single == frozenset()
    assert bound_by([odd, "outbound:240.0.0.1:80"]).single == {("240.0.0.1", 80)}


START = (b.mesh(), http("web-1", "web"), http("api-1", "api", "10.0.0.2"))


async def test_a_control_plane_that_serves_no_proxies_sends_nothing():
    assert await Door().config_of(key("web-1"), False) is None


async def test_what_a_connected_proxy_is_sent(nursery, autojump_clock):
    world, door = World(START), Door()
    door.renderer = world.keeper
    await nursery.start(world.keeper.run)
    world.keeper.attach(key("web-1"), REDIRECTED)
    await idle()
    autojump_clock.autojump_threshold = float("inf")  # a thread makes documents of it
    found = await door.config_of(key("web-1"), False)
    assert {"api", "web"} <= found[CLUSTER].keys()
    assert found[LISTENER]["inbound:10.0.0.1:8080"]["trafficDirection"] == "INBOUND"
    assert await door.config_of(key("api-1"), False) is None


class Nonsense(Shaper):
    """Writes what Envoy does not have."""

    def inbound(self, draft, matched):  # noqa: ARG002  # the hook's signature
        draft.listener["nonsense"] = True


async def test_what_cannot_be_rendered_is_said(nursery, autojump_clock):
    world, door = World(START, shapers=(("MeshTimeout", Nonsense()),)), Door()
    door.renderer = world.keeper
    await nursery.start(world.keeper.run)
    world.keeper.attach(key("web-1"), REDIRECTED)
    await idle()
    with pytest.raises(
        UnavailableError, match=r"Dataplane default/web-1: its configuration cannot be rendered: .*nonse"
    ):
        await door.config_of(key("web-1"), False)
