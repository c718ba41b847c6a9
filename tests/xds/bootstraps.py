"""Bootstrap cases: requests with the settings and resources they meet, and the documents that come of them."""

import base64
import json
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import yaml

from meshd.ca.server_certificate import ServerNames
from meshd.cli.known import registry
from meshd.model.codec import decode_document
from meshd.model.resource import ResourceKey
from meshd.rpc import HttpRequest
from meshd.xds.bootstrap_answer import BootstrapSettings
from meshd.xds.door import answer

CASES = Path(__file__).parents[1] / "cases" / "xds" / "bootstrap"
CA = (CASES / "ca.pem").read_bytes()
NAMES = ServerNames(frozenset({"cp.example", "localhost"}), frozenset(map(ip_address, ["10.0.0.7", "fd00::2"])))
MESH = {"type": "Mesh", "name": "default"}
DATAPLANE = {
    "type": "Dataplane",
    "mesh": "default",
    "name": "web-1",
    "networking": {"address": "10.0.0.7", "inbound": [{"port": 80, "tags": {"kuma.io/service": "web"}}]},
}
REQUEST = {"mesh": "default", "name": "web-1", "proxyType": "dataplane", "dataplaneToken": "t", "workdir": "/w"}


def settings_of(**changes):
    if "xds_connect_timeout" in changes:
        changes["xds_connect_timeout"] = timedelta(seconds=changes["xds_connect_timeout"])
    return BootstrapSettings(**{"names": NAMES, "ca_pem": CA, "xds_port": 5678, **changes})


def asked(request, *, host="cp.example:5678", stored=(MESH, DATAPLANE), accept="application/json", **changes):
    """The answer to a bootstrap request (a document, or the body as it is) where these resources are stored."""
    resources = {r.key: r for r in (decode_document(d, registry()) if isinstance(d, dict) else d for d in stored)}

    def lookup(key: ResourceKey):
        return resources.get(key)

    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    headers = (("accept", accept), ("content-type", "application/json"))
    http = HttpRequest("POST", "/bootstrap", host=host, headers=headers, body=body, peer="10.0.0.9:1")
    return answer(http, settings_of(**changes), lookup, registry())


def document_of(response):
    """The bootstrap document in an answer."""
    assert response.status == 200, response
    return json.loads(base64.b64decode(json.loads(response.body)["bootstrap"]))


def case(name):
    """The answer to the request of a case."""
    wanted = yaml.safe_load((CASES / f"{name}.input.yaml").read_text())
    stored = (MESH, *wanted.get("stored", ()))
    return asked(wanted["request"], host=wanted["host"], stored=stored, **wanted.get("settings", {}))


def names():
    return sorted(p.name.removesuffix(".input.yaml") for p in CASES.glob("*.input.yaml"))
