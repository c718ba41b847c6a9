"""Who is asked about its Envoy, and where."""

import pytest

from meshd.app.inspection import Inspector, is_local, node_id, refusal
from meshd.kds.admin.wire import Question, What
from meshd.model.errors import UnavailableError
from meshd.model.resource import ResourceKey
from meshd.xds.server import AdminAt

WEB = ResourceKey("Dataplane", "default", "web-1")
IN = ResourceKey("ZoneIngress", "", "in-1")


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (None, "has no Envoy that is connected"),
        (AdminAt("/tmp/kuma-envoy-admin.sock", "10.0.0.9:1"), "is on another host (10.0.0.9:1)"),
        (AdminAt("", "127.0.0.1:1"), "is at a port, where it is not asked"),
        (AdminAt("/run/docker.sock", "127.0.0.1:1"), "is at '/run/docker.sock', where it is not asked"),
        (AdminAt("kuma-envoy-admin.sock", "127.0.0.1:1"), "where it is not asked"),
        (AdminAt("/tmp/kuma-envoy-admin.sock", "127.0.0.1:1"), ""),
        (AdminAt("/tmp/dp/kuma-envoy-admin-web-1.default.sock", "127.0.0.1:1"), ""),
        (AdminAt("/var/lib/meshd/admin.sock", "127.0.0.1:1"), ""),
    ],
)
def test_who_is_not_asked(at, reason):
    found = refusal(WEB, at, lambda peer: peer.startswith("127."))
    assert (reason in found) if reason else found == ""


@pytest.mark.parametrize(
    ("peer", "local"),
    [("127.0.0.1:80", True), ("127.0.0.9:80", True), ("[::1]:80", True), ("192.0.2.1:80", False), ("memory", False)],
)
def test_peers_of_this_host(peer, local):
    assert is_local(peer) is local


def test_ids_of_nodes():
    assert (node_id(WEB), node_id(IN)) == ("default.web-1", ".in-1")


async def test_a_socket_that_nobody_listens_at_is_a_reason(tmp_path):
    inspector = Inspector(lambda _: AdminAt(str(tmp_path / "admin.sock"), "127.0.0.1:1"))
    with pytest.raises(UnavailableError, match=r"admin\.sock: /server_info: "):
        await inspector.ask(Question(What.STATS, WEB))
