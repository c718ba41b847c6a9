"""Control planes die, zones die: what traffic sees, and what the survivors say."""

import socket
import threading
import time

import pytest

from tests.e2e import lab as lab_
from tests.e2e.lab import ask, builtin, dump, eventually
from tests.e2e.scenario import zone_of, zones
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def stored(lab, zone):
    """Everything a control plane holds that must not change by itself."""
    out = {}
    for path in ("/meshes", "/zoneingresses", "/meshes/default/dataplanes", "/meshes/default/meshtrafficpermissions"):
        items = lab.get(zone, path)["items"]
        out[path] = sorted((i["name"], i.get("modificationTime"), dump(i)) for i in items)
    return out


def test_the_global_is_killed(tmp_path):
    extra_app, extra_port = free_port(), free_port()
    new = lab_.dataplane("orders-1", "orders", extra_port, extra_app)
    watch = {"engine": "builtin", "dataplanes": {"mesh": "default", "names": "orders-*"}}
    plan = {"zone-a": {}, "zone-b": {"instances": 1, "proxies": [watch]}}
    with zones(tmp_path, plan) as lab:
        lab.application("orders-1", extra_app)
        vip = lab.vips["zone-a"]
        before = stored(lab, "zone-a")
        lab.zones["global"].process.kill()
        assert lab.fetch("zone-a", "payments.mesh", vip=vip) == "payments-zone-b-0"
        lab.put("zone-b", new)
        eventually(lambda: lab.fetch("zone-b", "orders.mesh") == "orders-1")
        assert lab.dig("zone-a", "orders.mesh") == []
        assert lab.fetch("zone-a", "payments.mesh", vip=vip) == "payments-zone-b-0"
        lab.start("global")
        eventually(lambda: lab.fetch("zone-a", "orders.mesh") == "orders-1", 30)
        assert lab.resolve("zone-a", "payments.mesh") == vip
        after = stored(lab, "zone-a")
        changed = {p: (before[p], after[p]) for p in before if before[p] != after[p]}
        assert set(changed) <= {"/zoneingresses"}, changed
        lab.delete("zone-b", "/meshes/default/dataplanes/orders-1")
        eventually(lambda: not lab.dig("zone-b", "orders.mesh"))
        eventually(lambda: not lab.dig("zone-a", "orders.mesh"))


@pytest.mark.parametrize("how", ["kill", "stop", "ingress-alone"])
@pytest.mark.parametrize("egress", [False, True], ids=["ingress-only", "through-egress"])
def test_a_zone_goes_away_and_returns(tmp_path, how, egress):
    plan = {"zone-a": {"instances": 1}, "zone-b": {"instances": 1}}
    with zones(tmp_path, plan, egress=egress) as lab:
        vip = lab.vips["zone-a"]
        # A path that was tried before its zone was complete is left alone for a few seconds.
        eventually(lambda: {zone_of(k) for k in lab.spread(vip, 20)} == {"zone-a", "zone-b"}, 15)
        zone_b = lab.zones["zone-b"]
        if how == "kill":
            zone_b.process.kill()
        elif how == "stop":
            zone_b.process.pause()
        else:
            zone_b.process.stop()
            zone_b.config["proxies"] = [p for p in zone_b.config["proxies"] if p["resource"]["type"] != "ZoneIngress"]
            lab.rewrite("zone-b")
            lab.start("zone-b")
        began = time.monotonic()
        latencies = []
        while time.monotonic() - began < 12:
            asked = time.monotonic()
            answer = ask(vip, lab_.VIP_PORT)
            latencies.append((asked - began, time.monotonic() - asked, answer))
            time.sleep(0.02)
        late = [row for row in latencies if row[0] > 10]
        assert late
        assert all(answer == "payments-zone-a-0" for _, _, answer in late), late[:5]
        assert all(answer for _, _, answer in latencies), [row for row in latencies if not row[2]][:5]
        print("slowest request:", max(latency for _, latency, _ in latencies))
        if how != "ingress-alone":
            eventually(lambda: not lab.online("zone-b"), 30)
            (state,) = (z for z in lab.get("global", "/_kds")["zones"] if z["name"] == "zone-b")
            assert state["reason"], state
            print("offline because:", state["reason"])
        if how == "kill":
            lab.start("zone-b")
        elif how == "stop":
            zone_b.process.resume()
        else:
            zone_b.process.stop()
            index = lab.ports["ingress-zone-b-0"]
            zone_b.config["proxies"].append(builtin(lab_.zone_ingress("ingress-zone-b-0", index)))
            lab.rewrite("zone-b")
            lab.start("zone-b")
        eventually(lambda: lab.spread(vip, 10)["payments-zone-b-0"] > 0, 30)
        eventually(lambda: lab.online("zone-b"), 30)


def test_connections_in_use_survive_the_death_of_the_global_and_of_nothing_else(tmp_path):
    with zones(tmp_path, {"zone-a": {}, "zone-b": {"instances": 1}}) as lab:
        vip = lab.vips["zone-a"]
        ticks, ended = [], threading.Event()

        def stream():
            with socket.create_connection((vip, lab_.VIP_PORT), 10) as s:
                s.sendall(b"GET /stream HTTP/1.0\r\n\r\n")
                s.settimeout(5)
                while not ended.is_set():
                    if not s.recv(100):
                        break
                    ticks.append(time.monotonic())

        thread = threading.Thread(target=stream, daemon=True)
        thread.start()
        eventually(lambda: len(ticks) > 3)
        lab.zones["global"].process.kill()
        time.sleep(2)
        count = len(ticks)
        eventually(lambda: len(ticks) > count + 10, 5)
        lab.start("global")
        eventually(lambda: lab.online("zone-b"), 30)
        count = len(ticks)
        eventually(lambda: len(ticks) > count + 10, 5)
        ended.set()
        thread.join(5)
