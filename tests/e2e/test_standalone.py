"""A zone without a global, and what becomes of it when it gets one."""

import pytest

from tests.e2e import lab as lab_
from tests.e2e.lab import Lab, builtin, eventually, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def service(lab, name, mesh_name="default"):
    """A running application and the proxy entry of its Dataplane; both have the service's name."""
    application, inbound = free_port(), free_port()
    lab.application(name, application)
    return builtin(lab_.dataplane(f"{name}-1", name, inbound, application, mesh_name=mesh_name)), inbound


def denied(lab, zone, name):
    try:
        lab.fetch(zone, name)
    except OSError:
        return True
    return False


def test_another_mesh_and_domain_and_every_mode_of_mtls(tmp_path):
    with Lab(tmp_path, "memory") as lab:
        payments, inbound = service(lab, "payments", "second")
        owner = builtin(lab_.vip_client("client", mesh_name="second"), vips=True)
        zone = lab.configure_zone("solo", federated=False, proxies=[owner, payments])
        zone.config["dnsServer"] |= {"domain": "corp.mesh", "mesh": "second"}
        lab.rewrite("solo")
        lab.start("solo")
        lab.put("solo", lab_.mesh("second", mtls=False))
        assert lab.fetch("solo", "payments.corp.mesh") == "payments"
        assert lab.dig("solo", "payments.mesh") == []
        lab.put("solo", lab_.mesh("second", mode="PERMISSIVE"))
        eventually(lambda: denied(lab, "solo", "payments.corp.mesh"))
        assert lab_.ask("127.0.0.1", inbound) == "payments"
        lab.put("solo", lab_.allow_all(mesh_name="second"))
        eventually(lambda: lab.fetch("solo", "payments.corp.mesh") == "payments")
        lab.put("solo", lab_.mesh("second"))
        eventually(lambda: lab_.ask("127.0.0.1", inbound) is None)
        assert lab.fetch("solo", "payments.corp.mesh") == "payments"
        lab.put("solo", lab_.mesh("second", mtls=False))
        eventually(lambda: lab_.ask("127.0.0.1", inbound) == "payments")
        eventually(lambda: lab.fetch("solo", "payments.corp.mesh") == "payments")


def test_a_standalone_zone_that_gets_a_global(tmp_path):
    """Its Dataplanes stay, the global's meshes win, and a CA of its own stays until it is deleted."""
    with Lab(tmp_path) as lab:
        lab.configure_global()
        lab.start("global")
        lab.put("global", lab_.mesh())
        lab.put("global", lab_.allow_all())
        proxies = [builtin(lab_.vip_client("client"), vips=True), service(lab, "payments")[0]]
        zone = lab.configure_zone("solo", federated=False, proxies=proxies)
        lab.start("solo")
        for resource in (lab_.mesh(), lab_.mesh("second"), lab_.allow_all("own")):
            lab.put("solo", resource)
        eventually(lambda: lab.fetch("solo", "payments.mesh") == "payments")
        vip = lab.resolve("solo", "payments.mesh")

        zone.process.stop()
        zone.config["multizone"]["zone"] |= {
            "globalAddress": f"grpc://127.0.0.1:{lab.kds}",
            "kds": {"tokenFile": str(lab.dir / "solo.token")},
        }
        lab.rewrite("solo")
        lab.mint_zone_token("solo")
        lab.start("solo")
        eventually(lambda: lab.online("solo"))
        eventually(lambda: [m["name"] for m in lab.get("solo", "/meshes")["items"]] == ["default"])
        assert "Mesh second was made here, the global has none: deleted" in zone.process.text()
        assert lab.resolve("solo", "payments.mesh") == vip
        assert lab.fetch("solo", "payments.mesh") == "payments"

        lab.put("solo", lab_.allow_all("own"), expect=[405])
        lab.delete("solo", "/meshes/default/meshtrafficpermissions/own")

        def held():
            return {q["name"] for q in lab.get("solo", "/_kds")["quarantine"]}

        own = {f"default.ca-builtin-{part}-ca-1" for part in ("cert", "key")} | {
            "dataplane-token-signing-key-default-1"
        }
        assert held() == own
        for name in own:
            assert lab.get("solo", f"/meshes/default/secrets/{name}")["data"]
            lab.delete("solo", f"/meshes/default/secrets/{name}")
        eventually(lambda: held() == set(), 15)
        for name in own:
            secret = f"/meshes/default/secrets/{name}"
            assert lab.get("solo", secret)["data"] == lab.get("global", secret)["data"]
        eventually(lambda: "(authority)" in zone.process.text(), 15)
        eventually(lambda: lab.fetch("solo", "payments.mesh") == "payments", 15)
