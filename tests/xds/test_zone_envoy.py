"""Real Envoys as ZoneIngress and ZoneEgress."""

import ssl
from collections import Counter

import pytest
import trio

from meshd.ca.identity import egress_uris
from meshd.ca.origination import inline_source, pem_path
from meshd.model.steps import finished
from meshd.policies.mesh_traffic_permission import POLICY
from meshd.rules import match
from meshd.topology.view import Reach
from meshd.xds.abilities import Abilities
from meshd.xds.resources import XdsResource
from meshd.xds.zone_egress import EgressRenderer
from meshd.xds.zone_ingress import IngressRenderer
from tests.l4 import pki
from tests.l4.lab import LOCAL, application, egress, endpoint, ingress, service, view
from tests.l4.test_external import self_signed
from tests.policies.mtp import entry, mtp
from tests.ports import free_port
from tests.xds import real
from tests.xds.test_zone_egress import api

pytestmark = pytest.mark.e2e
SHOP = real.client_context(pki.identity("default", "shop"))
BATCH = real.client_context(pki.identity("default", "batch"))


def server(name: str):
    """An instance: ends mesh TLS and says its name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown = pki.identity("default", name)
    with pem_path(shown.chain_pem + shown.key_pem) as path:
        context.load_cert_chain(path)
    return secured(context, name.encode())


def secured(context: ssl.SSLContext, text: bytes):
    async def handler(stream):
        secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            got = await secure.receive_some()
            await secure.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi" if got.startswith(b"GET") else text)
            await secure.aclose()
        except (trio.BrokenResourceError, ssl.SSLError):
            pass

    return handler


def resources(renderer, listener):
    return [*(XdsResource(type_url, made) for type_url, made in renderer.layer.items()), listener]


def as_ingress(port, *services, subsets=()):
    renderer = IngressRenderer("a")
    finished(renderer.update({"default": view(ingress=services)}, None, {"default": subsets}))
    return resources(renderer, renderer.listener(ingress(port), Abilities()))


async def test_an_ingress_finds_services_and_subsets_in_any_case(tmp_path):
    port = free_port()
    subsets = [("Web", (("version", v),)) for v in ("V1", "v2", "v3")]
    async with application(server("one")) as one, application(server("two")) as two, application(server("db")) as db:
        web = service("Web", endpoint(one.port, version="V1"), endpoint(two.port, version="v2"))
        documents = as_ingress(port, web, service("db", endpoint(db.port)), subsets=subsets)

        async def says(sni: str) -> bytes:
            return await real.ask(port, SHOP, b"x", sni)

        async with real.envoy(tmp_path, documents):
            for sni in ("Web{mesh=default,version=V1}", "web{mesh=default,version=v1}"):
                assert [await says(sni) for _ in range(4)] == [b"one"] * 4
            assert [await says("WEB{mesh=default,version=v2}") for _ in range(4)] == [b"two"] * 4
            assert {await says("Web{mesh=default}") for _ in range(4)} == {b"one", b"two"}
            assert await says("db{mesh=default}") == b"db"
            for unknown in ("Web{mesh=default,version=v3}", "Web{mesh=default,version=v4}", "Web{mesh=other}", "x"):
                assert await says(unknown) == b""
            assert await real.ask(port, None, b"GET / HTTP/1.1\r\n\r\n") == b""


async def test_an_ingress_leaves_a_dead_instance_and_keeps_to_weights(tmp_path):
    port = free_port()
    async with application(server("one")) as one, application(server("two")) as two:
        dead = [endpoint(free_port()) for _ in range(2)]
        web = service("web", endpoint(one.port, weight=2), endpoint(two.port), *dead)
        async with real.envoy(tmp_path, as_ingress(port, web)):
            tally = Counter([await real.ask(port, SHOP, b"x") for _ in range(60)])
    assert set(tally) == {b"one", b"two"}
    assert tally[b"one"] == pytest.approx(40, abs=4)


async def test_an_ingress_with_nothing_to_offer_says_so(tmp_path):
    port = free_port()
    async with real.envoy(tmp_path, as_ingress(port)):
        assert await real.ask(port, None, b"hello there") == b'{"proxy":".ingress","zone":"a"}'


def as_egress(port, *services, policies=()):
    def shape(_, draft):
        POLICY.shaper.inbound(draft, match.of_tags(policies, draft.inbound.tags))

    renderer = EgressRenderer(shape, inline_source, ipv6=False, system_ca="/etc/ssl/certs/ca-certificates.crt")
    finished(renderer.update({"default": view(egress=services)}, None, {}))
    listener = renderer.listener(egress(port), Abilities(), {"default"})
    return [*resources(renderer, listener), *real.secrets(*egress_uris("default"))]


ALLOW_SHOP = mtp("shop", {"from": [entry("Allow", "MeshService", name="shop")]})
REQUEST = b"GET / HTTP/1.1\r\nhost: api.mesh\r\nx-kuma-tags: &team=a&\r\nconnection: close\r\n\r\n"


def outside(name: str, host: str, port: int, protocol: str = "tcp", **tls):
    resource = api(f"{host}:{port}", name, tls, **{"kuma.io/protocol": protocol})
    made = service(name, endpoint(port, address=host, zone="", reach=Reach.EXTERNAL), external=resource)
    return type(made)(name, protocol, made.endpoints, 0, {}, resource)


async def test_an_egress_passes_on_and_opens_what_is_outside(tmp_path):
    port, heard = free_port(), []

    async def plain(stream):
        heard.append(await stream.receive_some())  # b"" of a client that is refused: Envoy connects before it asks
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")

    async with application(server("remote")) as remote, application(plain) as out:
        documents = as_egress(
            port,
            service("web", endpoint(remote.port, reach=Reach.INGRESS)),
            outside("api", "localhost", out.port, "http"),
            outside("db", LOCAL, out.port),
            policies=[ALLOW_SHOP],
        )
        async with real.envoy(tmp_path, documents):
            assert await real.ask(port, BATCH, b"x", "web{mesh=default}") == b"remote"
            assert (await real.ask(port, SHOP, REQUEST, "api{mesh=default}")).startswith(b"HTTP/1.1 200")
            assert (await real.ask(port, BATCH, REQUEST, "api{mesh=default}")).startswith(b"HTTP/1.1 403")
            assert (await real.ask(port, SHOP, b"x", "db{mesh=default}")).startswith(b"HTTP/1.1 200")
            assert await real.ask(port, BATCH, b"x", "db{mesh=default}") == b""
            assert await real.ask(port, None, REQUEST) == b""
            assert await real.ask(port, real.client_context(None), REQUEST, "api{mesh=default}") == b""
    request, raw = filter(None, heard)
    assert raw == b"x"
    assert f"host: localhost:{out.port}".encode() in request or b"host: localhost\r\n" in request
    assert b"x-kuma-tags" not in request
    assert b"x-forwarded-client-cert" not in request


async def test_tls_is_originated_and_verified(tmp_path):
    port = free_port()
    local, wild, foreign = self_signed("localhost"), self_signed("*.example"), self_signed("localhost")

    def ca(pem: bytes) -> dict:
        return {"caCert": {"inlineString": pem.decode().partition("-----BEGIN PRIVATE")[0]}}

    def listening(pem: bytes):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = lambda _, name, __: seen.append(name)
        with pem_path(pem) as path:
            context.load_cert_chain(path)
        return application(secured(context, b"outside"))

    seen: list[str | None] = []
    async with listening(local) as a, listening(wild) as b:
        documents = as_egress(
            port,
            outside("right", "localhost", a.port, enabled=True, **ca(local)),
            outside("http", "localhost", a.port, "http", enabled=True, **ca(local)),
            outside("named", LOCAL, b.port, enabled=True, serverName="api.example", **ca(wild)),
            outside("address", LOCAL, a.port, enabled=True, **ca(local)),
            outside("unnamed", LOCAL, a.port, enabled=True, skipHostnameVerification=True, **ca(local)),
            outside("other-name", "localhost", b.port, enabled=True, **ca(wild)),
            outside("other-ca", "localhost", a.port, enabled=True, **ca(foreign)),
            outside("host-ca", "localhost", a.port, enabled=True),
            outside("unreadable", "localhost", a.port, enabled=True, caCert={"secret": "gone"}),
            policies=[ALLOW_SHOP],
        )
        async with real.envoy(tmp_path, documents):

            async def says(name: str, data: bytes = b"x") -> bytes:
                return await real.ask(port, SHOP, data, f"{name}{{mesh=default}}")

            for name in ("right", "named", "unnamed"):
                assert await says(name) == b"outside", name
            assert seen == ["localhost", "api.example", None]
            assert (await says("http", REQUEST)).startswith(b"HTTP/1.1 200")
            for name in ("address", "other-name", "other-ca", "host-ca", "unreadable"):
                assert await says(name) == b"", name
