"""MeshTrafficPermissions made on the global are in force in zone-b, for new and for open connections."""

import socket

import pytest

from tests.e2e import lab as lab_
from tests.e2e.lab import ask, eventually
from tests.e2e.scenario import zones

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def permission(name, entries, target=None):
    return {
        "type": "MeshTrafficPermission", "mesh": "default", "name": name,
        "spec": {"targetRef": target or {"kind": "Mesh"},
                 "from": [{"targetRef": ref, "default": {"action": action}} for ref, action in entries]},
    }  # fmt: skip


def test_allow_deny_by_service_deny_by_tag_for_new_and_open_connections(tmp_path):
    plan = {"zone-a": {"client_tags": {"team": "red"}}, "zone-b": {"instances": 1}}
    with zones(tmp_path, plan) as lab:
        vip = lab.vips["zone-a"]
        path = "/meshes/default/meshtrafficpermissions/deny"

        def works():
            return ask(vip, lab_.VIP_PORT) == "payments-zone-b-0"

        for refs in (
            [({"kind": "Mesh"}, "Allow"), ({"kind": "MeshService", "name": "client-zone-a"}, "Deny")],
            [({"kind": "Mesh"}, "Allow"), ({"kind": "MeshSubset", "tags": {"team": "red"}}, "Deny")],
            [({"kind": "Mesh"}, "Deny")],
        ):
            eventually(works)
            with socket.create_connection((vip, lab_.VIP_PORT), 10) as open_one:
                open_one.sendall(b"GET /stream HTTP/1.0\r\n\r\n")
                assert open_one.recv(100)
                lab.put("global", permission("deny", refs, {"kind": "MeshService", "name": "payments"}))
                open_one.settimeout(10)
                try:
                    while open_one.recv(4096):
                        pass
                except ConnectionResetError:
                    pass
            eventually(lambda: not works())
            lab.delete("global", path)
        eventually(works)
        lab.delete("global", "/meshes/default/meshtrafficpermissions/allow-all")
        eventually(lambda: not works())

        answer = lab.put("zone-b", permission("own", [({"kind": "Mesh"}, "Allow")]), expect=(405,)).json()
        assert answer["status"] == 405
        assert "global" in answer["detail"]
        lab.put("global", lab_.dataplane("x", "x", 1000, 1001), expect=(405,))
        assert not works()
