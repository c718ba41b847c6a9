"""Envoys that were started from a bootstrap of ours are asked at their own addresses, and by nobody else."""

import base64
import json
import ssl

import httpx
import pytest

from meshd.envoy.binary import wheel_binary
from tests.e2e.lab import Lab, eventually
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

OF = {"Dataplane": ("dataplane", "/meshes/default/dataplanes"), "ZoneIngress": ("ingress", "/zoneingresses")}
MINE, YOURS = "127.0.0.2", "127.0.0.3"


def dataplane(port, admin):
    inbound = {"port": port, "tags": {"kuma.io/service": "web"}}
    networking = {"address": MINE, "admin": {"port": admin}, "inbound": [inbound]}
    return {"type": "Dataplane", "mesh": "default", "name": "web-1", "networking": networking}


def ingress(port, admin):
    networking = {"address": YOURS, "port": port, "admin": {"port": admin}}
    return {"type": "ZoneIngress", "name": "in-1", "networking": networking}


def anybody():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class World:
    """A zone, and proxies that only have its address and a token, as under kuma-dp."""

    def __init__(self, lab):
        self.lab = lab
        self.zone = lab.configure_zone("z", federated=False)
        lab.start("z")

    def token(self, what, body):
        answer = httpx.post(f"{self.lab.url('z')}/tokens/{what}", json={"validFor": "1h", **body})
        answer.raise_for_status()
        return answer.text

    def bootstrap(self, resource):
        kind, name = resource["type"], resource["name"]
        body = {"name": name, "mesh": "default"} if kind == "Dataplane" else {"zone": "z", "scope": ["ingress"]}
        workdir = self.lab.dir / name
        workdir.mkdir()
        request = {
            "mesh": resource.get("mesh", ""),
            "name": name,
            "proxyType": OF[kind][0],
            "dataplaneToken": self.token("dataplane" if kind == "Dataplane" else "zone", body),
            "dataplaneResource": json.dumps(resource),
            "workdir": str(workdir),
        }
        door = f"https://127.0.0.1:{self.zone.dp}/bootstrap"
        answer = httpx.post(door, json=request, headers={"accept": "application/json"}, verify=anybody())
        assert answer.status_code == 200, answer.text
        return request["dataplaneToken"], base64.b64decode(answer.json()["bootstrap"])

    def start(self, resource):
        """Start the Envoy of a proxy; its token, and the process."""
        token, document = self.bootstrap(resource)
        path = self.lab.dir / f"{resource['name']}.json"
        path.write_bytes(document)
        command = [wheel_binary(), "-c", path, "--disable-hot-restart", "--concurrency", "1", "-l", "warn"]
        return token, self.lab.spawn(resource["name"], list(map(str, command)))

    def ask(self, resource, what):
        return httpx.get(f"{self.lab.url('z')}{OF[resource['type']][1]}/{resource['name']}/{what}", timeout=15)

    def answered(self, resource, what):
        answer = self.ask(resource, what)
        return answer if answer.status_code == 200 else None


def test_envoys_at_their_own_addresses(tmp_path):
    pytest.importorskip("envoy")
    with Lab(tmp_path, "memory") as lab:
        world = World(lab)
        proxies = [dataplane(free_port(), free_port()), ingress(free_port(), free_port())]
        started = [world.start(resource) for resource in proxies]
        for resource, (token, _) in zip(proxies, started, strict=True):
            dump = eventually(lambda resource=resource: world.answered(resource, "xds?include_eds=true"), 20)
            assert resource["name"] in dump.text
            assert token not in dump.text
            encoded = str(base64_texts(dump.json()))
            assert "BEGIN CERTIFICATE" in encoded
            assert "PRIVATE KEY" not in encoded
            assert b"kuma:envoy:admin" in world.answered(resource, "clusters").content
            assert "stats" in world.answered(resource, "stats?format=json&usedonly=false").json()

        [web, (_, process)] = proxies[0], started[0]
        admin = f"{MINE}:{web['networking']['admin']['port']}"
        for path in ("/config_dump", "/stats", "/clusters", "/quitquitquit", "/"):
            assert httpx.post(f"http://{admin}{path}").status_code == 404
        with pytest.raises((httpx.ReadError, httpx.ConnectError), match=r"(?i)certificate.required"):
            httpx.get(f"https://{admin}/stats", verify=anybody())

        lab.delete("z", "/globalsecrets/envoy-admin-ca")
        eventually(lambda: world.answered(web, "clusters"))

        process.kill()
        gone = world.ask(web, "stats")
        assert gone.status_code == 503
        reason = f"Dataplane default/web-1: admin interface {admin}: /stats?usedonly: connection refused"
        assert gone.json()["detail"].startswith(reason)


def base64_texts(value):
    """What is encoded in a config dump."""
    if isinstance(value, dict):
        found = base64.b64decode(value["inline_bytes"]) if "inline_bytes" in value else None
        return [found, *(text for inner in value.values() for text in base64_texts(inner))]
    return [text for inner in value for text in base64_texts(inner)] if isinstance(value, list) else []
