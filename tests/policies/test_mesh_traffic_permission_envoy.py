"""Denial and admission by a real Envoy that has what ``rbac.py`` wrote."""

import pytest
import trio

from meshd.kinds.mesh import Mode
from meshd.policies.mesh_traffic_permission import POLICY
from meshd.rules import match
from meshd.xds.abilities import Abilities
from meshd.xds.inbound import inbounds
from meshd.xds.shaping import InboundDraft
from tests.l4.envoy import stat
from tests.l4.lab import LOCAL, application
from tests.policies.mtp import entry, mtp
from tests.ports import free_port
from tests.topology.builders import dataplane, inbound, mesh
from tests.xds import real

pytestmark = pytest.mark.e2e


def service(name: str, protocol: str) -> str:
    return f"{name}-{protocol}"


def about(name: str, spec: dict) -> list:
    """The policy for the tcp and the http inbound of a name."""
    return [
        mtp(f"{name}-{p}", {"targetRef": {"kind": "MeshService", "name": service(name, p)}, **spec})
        for p in ("tcp", "http")
    ]


def condition(kind: str, value: str) -> dict:
    return {"spiffeID": {"type": kind, "value": value}}


POLICIES = [
    *about("by-service", {"from": [entry("Allow", "MeshService", name="shop")]}),
    *about("by-tag", {"from": [entry("Allow"), entry("Deny", "MeshSubset", tags={"team": "red"})]}),
    *about("all-but", {"from": [entry("Allow"), entry("Deny", "MeshService", name="shop")]}),
    *about(
        "rules",
        {
            "rules": [
                {
                    "default": {
                        "allow": [condition("Prefix", "spiffe://default/")],
                        "deny": [condition("Exact", "spiffe://default/batch")],
                    }
                }
            ]
        },
    ),
]
SHOP = ("spiffe://default/shop", "kuma://kuma.io/service/shop", "kuma://team/blue")
RED = ("spiffe://default/shop", "kuma://kuma.io/service/shop", "kuma://team/red")
BATCH = ("spiffe://default/batch", "kuma://kuma.io/service/batch")
BOTH = ("spiffe://default/batch", "spiffe://default/shop", "kuma://kuma.io/service/batch")
STRANGER = ("spiffe://default/shopping", "kuma://kuma.io/service/shopping")
CLIENTS = {"shop": SHOP, "red": RED, "batch": BATCH, "both": BOTH, "stranger": STRANGER}
LET_IN = {
    "by-service": {"shop", "red", "both"},
    "by-tag": {"shop", "batch", "both", "stranger"},
    "all-but": {"batch", "stranger"},
    "rules": {"shop", "red", "stranger"},
    "nobody": set(),
}
REQUEST = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


async def answer(stream):
    await stream.receive_some()
    await stream.send_all(ANSWER)


def resources(app: int, ports: dict[str, int], mode: Mode):
    dp = dataplane(
        "dp",
        *(
            inbound(name, port, {"kuma.io/protocol": name.rpartition("-")[2]}, servicePort=app)
            for name, port in ports.items()
        ),
        address=LOCAL,
    )
    backend = mesh().spec.enabled_backend().model_copy(update={"mode": mode})

    def shape(draft: InboundDraft) -> None:
        POLICY.shaper.inbound(draft, match.of_inbound(POLICIES, dp, draft.inbound))

    found = {(r.type_url, r.name): r for r in inbounds(dp, backend, Abilities(), shape)}
    return [*found.values(), *real.secrets("spiffe://default/web")]


async def test_strict_inbounds(tmp_path):
    ports = {service(name, p): free_port() for name in LET_IN for p in ("tcp", "http")}
    contexts = {name: real.client_context(real.identity(*uris)) for name, uris in CLIENTS.items()}
    async with application(answer) as app, real.envoy(tmp_path, resources(app.port, ports, Mode.STRICT)):
        for name, let_in in LET_IN.items():
            for client, context in contexts.items():
                tcp = await real.ask(ports[service(name, "tcp")], context, REQUEST)
                assert tcp == (ANSWER if client in let_in else b""), (name, client)
                http = await real.ask(ports[service(name, "http")], context, REQUEST)
                assert http.startswith(b"HTTP/1.1 200" if client in let_in else b"HTTP/1.1 403"), (name, client)
        for port in ports.values():
            assert await real.ask(port, None, REQUEST) == b""
            assert await real.ask(port, real.client_context(None), REQUEST) == b""


async def test_permissive_inbounds_take_plaintext_and_ask_clients_of_the_mesh(tmp_path):
    ports = {service("by-service", p): free_port() for p in ("tcp", "http")}
    contexts = {name: real.client_context(real.identity(*uris)) for name, uris in CLIENTS.items()}
    async with application(answer) as app, real.envoy(tmp_path, resources(app.port, ports, Mode.PERMISSIVE)):
        for port in ports.values():
            assert (await real.ask(port, None, REQUEST)).startswith(b"HTTP/1.1 200")
            assert (await real.ask(port, contexts["shop"], REQUEST)).startswith(b"HTTP/1.1 200")
            assert not (await real.ask(port, contexts["batch"], REQUEST)).startswith(b"HTTP/1.1 200")


async def test_what_a_server_says_first_is_heard_by_every_client_of_the_mesh(tmp_path):
    """Envoy asks with a client's first byte (README). Nothing that a client sends arrives before that."""
    got: list[bytes] = []

    async def greet(stream):
        await stream.send_all(b"welcome")
        got.extend([part async for part in stream])

    ports = {service("by-service", "tcp"): free_port()}
    async with application(greet) as app, real.envoy(tmp_path, resources(app.port, ports, Mode.STRICT)) as running:
        (port,) = ports.values()
        denied = real.client_context(real.identity(*BATCH))
        assert await real.ask(port, denied, b"") == b"welcome"
        assert got == []
        assert await real.ask(port, denied, b"x", to_the_end=True) in (b"", b"welcome")
        assert got == []
        name = f"inbound_127_0_0_1_{port}.rbac.denied"
        assert await trio.to_thread.run_sync(stat, running, name) == 2  # that it ended is asked about too
