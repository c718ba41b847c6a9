"""A control plane's API over a memory store, without sockets."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import httpx
import yaml
from prometheus_client import CollectorRegistry

from meshd.cli.known import decode, registry
from meshd.config import load_files
from meshd.model.codec import decode_document
from meshd.model.resource import ResourceKey
from meshd.policies import discover
from meshd.policies.initial import initial_policies
from meshd.rest.api import Api, Metrics, no_config, nobody_to_ask
from meshd.rest.routes import api_app
from meshd.store.memory import MemoryStore
from meshd.store.store import Put

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)

GLOBAL = {"mode": "global", "store": {"type": "memory"}, "multizone": {"global": {"kds": {"tlsEnabled": False}}}}
STANDALONE = {"mode": "zone", "store": {"type": "memory"}, "multizone": {"zone": {"name": "zone-a"}}}


def federated(**zone):
    return {
        "mode": "zone",
        "store": {"type": "memory"},
        "multizone": {"zone": {"name": "zone-a", "globalAddress": "grpc://127.0.0.1:1", **zone}},
    }


@cache
def _load(text: str, directory: Path):
    path = directory / "config.yaml"
    path.write_text(text)
    (loaded,) = load_files([path], {"HOME": "/nowhere"}, decode())
    return loaded.config


class Plane:
    """An API and its store; ``get``, ``put``, ``delete``, ``post`` are awaited."""

    def __init__(
        self,
        tmp_path,
        config,
        peer="127.0.0.1",
        host="127.0.0.1:5681",
        explain_name=None,
        inspect=nobody_to_ask,
        config_of=no_config,
        dns_status=None,
    ):
        self.config = _load(yaml.safe_dump(config), tmp_path)
        self.syncs = {}
        self.store = MemoryStore(lambda: NOW)
        self.metrics = CollectorRegistry()
        self.api = Api(
            self.store,
            registry(),
            self.config,
            lambda: NOW,
            "instance-1",
            "host-1",
            lambda: {"zones": {"a": "online"}},
            self.syncs.get,
            lambda mesh: initial_policies(discover(), mesh, self.config.zone_name),
            explain_name,
            inspect,
            config_of,
            [(policy.type, policy.sections) for policy in discover()],
            dns_status=dns_status,
        )
        transport = httpx.ASGITransport(api_app(self.api, Metrics(self.metrics)), client=(peer, 40000))
        self.client = httpx.AsyncClient(transport=transport, base_url=f"http://{host}")

    async def add(self, *documents):
        """Store documents as if they had come by another way than the API."""
        for document in documents:
            await self.store.write([Put(decode_document(document, registry()))])

    async def put(self, document, **options):
        return await self.client.put(path_of(document), json=document, **options)

    async def get(self, path, **options):
        return await self.client.get(path, **options)

    async def delete(self, path, **options):
        return await self.client.delete(path, **options)

    async def post(self, path, body, **options):
        return await self.client.post(path, json=body, **options)

    def stored(self, kind, mesh, name):
        return self.store.get(ResourceKey(kind, mesh, name))


def path_of(document):
    type_ = registry()[document["type"]]
    mesh = f"/meshes/{document['mesh']}" if "mesh" in document else ""
    return f"{mesh}/{type_.path}/{document['name']}"


MESH = {"type": "Mesh", "name": "default"}


def dataplane(name="web-1", service="web", port=8080, **more):
    inbound = {"port": port, "servicePort": port + 1, "tags": {"kuma.io/service": service, "kuma.io/protocol": "tcp"}}
    return {
        "type": "Dataplane",
        "mesh": "default",
        "name": name,
        "networking": {"address": "10.0.0.1", "inbound": [inbound]},
        **more,
    }


def permission(name="allow", **more):
    spec = {"targetRef": {"kind": "Mesh"}, "from": [{"targetRef": {"kind": "Mesh"}, "default": {"action": "Allow"}}]}
    return {"type": "MeshTrafficPermission", "mesh": "default", "name": name, "spec": spec, **more}


INGRESS = {"type": "ZoneIngress", "name": "in", "networking": {"address": "10.0.0.1", "port": 10001}}
