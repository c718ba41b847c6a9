"""Names and shapes that are odd but legal, over the whole path."""

import pytest

from tests.e2e import lab as lab_
from tests.e2e.lab import Lab, builtin, eventually, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MESH = "m" * 63
ZONE = "b" * 63
SERVICES = ("under_score", "Upper.Case_X", "s" * 63, "two")


def test_odd_services_names_and_addresses_between_zones(tmp_path):
    with Lab(tmp_path) as lab:
        lab.configure_global()
        lab.start("global")
        lab.put("global", lab_.mesh(MESH))
        lab.put("global", lab_.allow_all(mesh_name=MESH))
        inbounds = []
        for at, service in enumerate((*SERVICES, "two")):
            application = free_port()
            lab.application(f"app-{at}", application)
            tags = {"kuma.io/service": service, "kuma.io/protocol": "tcp", "odd": f"a_b-c.{at}"}
            inbounds.append(
                {"port": free_port(), "servicePort": application, "serviceAddress": "127.0.0.1", "tags": tags}
            )
        states = ({"state": "NotReady"}, {"state": "Ignored"}, {"health": {"ready": False}})
        down = {
            "servicePort": inbounds[0]["servicePort"],
            "serviceAddress": "127.0.0.1",
            "tags": {"kuma.io/service": "down"},
        }
        inbounds += [{"port": free_port(), **down, **state} for state in states]
        many = {"type": "Dataplane", "mesh": MESH, "name": "many"}
        many["networking"] = {"address": "localhost", "inbound": inbounds}
        ingress = lab_.zone_ingress("ingress", free_port())
        ingress["networking"]["advertisedAddress"] = "localhost"
        owner = builtin(lab_.vip_client("client", mesh_name=MESH), vips=True)
        for zone, proxies in (("zone-a", [owner]), (ZONE, [builtin(many), builtin(ingress)])):
            configured = lab.configure_zone(zone, proxies=proxies)
            configured.config["dnsServer"]["mesh"] = MESH
            lab.rewrite(zone)
            lab.mint_zone_token(zone)
            lab.start(zone)
        for at, service in enumerate(SERVICES[:3]):
            eventually(lambda s=service, at=at: lab.fetch("zone-a", f"{s}.mesh") == f"app-{at}", 15)
        assert lab.dig("zone-a", "under.score.mesh") == lab.dig("zone-a", "under_score.mesh")
        vip = lab.resolve("zone-a", "two.mesh")
        assert lab.spread(vip, 20) == {"app-3": 10, "app-4": 10}
        assert lab.dig("zone-a", "down.mesh") == []


def test_what_is_deleted_in_a_mesh_with_a_dot_in_its_name_goes_everywhere(tmp_path):
    with Lab(tmp_path, "memory") as lab:
        lab.configure_global()
        lab.start("global")
        lab.configure_zone("zone-a")
        lab.mint_zone_token("zone-a")
        lab.start("zone-a")
        lab.put("global", lab_.mesh("team.one"))
        lab.put("global", lab_.allow_all(mesh_name="team.one"))
        places = (("zone-a", "/meshtrafficpermissions"), ("global", "/dataplanes"))
        eventually(lambda: lab.get(*places[0])["items"])
        lab.put("zone-a", lab_.dataplane("api", "api", free_port(), free_port(), mesh_name="team.one"))
        eventually(lambda: lab.get(*places[1])["items"])
        lab.delete("global", "/meshes/team.one/meshtrafficpermissions/allow-all")
        lab.delete("zone-a", "/meshes/team.one/dataplanes/api")
        for place in places:
            eventually(lambda place=place: lab.get(*place)["items"] == [])


def test_an_external_service_is_shown_as_kumactl_wants_it(tmp_path):
    """``kumactl inspect services`` crashes on a service without counts."""
    with Lab(tmp_path, "memory") as lab:
        lab.configure_zone("solo", federated=False)
        lab.start("solo")
        external = {"type": "ExternalService", "mesh": "default", "name": "db", "tags": {"kuma.io/service": "db"}}
        lab.put("solo", external | {"networking": {"address": "db.example:5432"}})
        [shown] = eventually(lambda: lab.get("solo", "/meshes/default/service-insights")["items"])
        assert (shown["dataplanes"], shown["addressPort"]) == ({}, "db.example:5432")
