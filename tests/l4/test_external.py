"""External services: out by the egress, which ends mesh mTLS for them, or straight from the outbound."""

import datetime as dt
import ssl

import pytest
import trio
from cryptography import x509 as cx
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshd.kinds.external_service import DataSource, ExternalService
from meshd.l4.render import Settings
from meshd.l4.tls import pem_path
from meshd.model.resource import Resource, ResourceKey
from meshd.runtime.latest import Latest
from meshd.topology.view import Reach
from tests.l4.lab import (
    Allow,
    application,
    dataplane,
    echo,
    egress,
    endpoint,
    is_cut,
    running,
    says,
    service,
    talk,
    view,
)
from tests.ports import free_port


def self_signed(host: str) -> bytes:
    """Certificate, then key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = cx.Name([cx.NameAttribute(cx.NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        cx.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(cx.SubjectAlternativeName([cx.DNSName(host)]), critical=False)
        .add_extension(cx.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def external(port: int, tls: dict[str, object] | None = None) -> Resource:
    body = {"tags": {"kuma.io/service": "api"}, "networking": {"address": f"localhost:{port}", "tls": tls or {}}}
    return Resource(ResourceKey("ExternalService", "default", "api"), ExternalService.model_validate(body))


def real(port: int):
    return endpoint(port, address="localhost", reach=Reach.EXTERNAL)


@pytest.mark.parametrize("mode", ["STRICT", None])
async def test_without_egress_the_outbound_connects_to_the_real_address_by_name(mode):
    port = free_port()
    async with application(echo) as app:
        target = service("api", real(app.port), external=external(app.port))
        async with running(dataplane("shop", gateway="shop", outbound=[(port, "api")]), view(target, mode=mode)):
            assert await talk(port, b"plain") == b"plain"


async def by_egress(app_port: int, resource: Resource, permit=None, data: bytes = b"x") -> tuple[bytes | None, object]:
    port, egress_port = free_port(), free_port()
    near = service("api", endpoint(egress_port, zone="", reach=Reach.EGRESS), external=resource)
    far = service("api", real(app_port), external=resource)
    async with (
        running(egress(egress_port), view(egress=[far]), permit=permit) as leave,
        running(dataplane("shop", gateway="shop", outbound=[(port, "api")]), view(near)),
    ):
        try:
            answer = await talk(port, data)
        except trio.BrokenResourceError:
            answer = None
        return answer, leave


async def test_egress_ends_mesh_mtls_and_checks_the_permission():
    async with application(echo) as app:
        answer, leave = await by_egress(app.port, external(app.port), Allow(frozenset({"shop"})), b"out")
        assert answer == b"out"
        assert leave.count("verdicts_total", verdict="allowed") == 1
        answer, leave = await by_egress(app.port, external(app.port), Allow(frozenset({"other"})))
        assert not answer
        assert leave.count("verdicts_total", verdict="denied") == 1
        assert len(app.hits) == 1


async def test_egress_without_the_zone_egress_identity_is_not_trusted():
    """A plain instance that listens where the egress should be shows another identity."""
    port, other = free_port(), free_port()
    near = service("api", endpoint(other, zone="", reach=Reach.EGRESS), external=external(1))
    async with (
        application(echo) as app,
        running(dataplane("web", inbound=[(other, app.port, "web")]), view()),
        running(dataplane("shop", gateway="shop", outbound=[(port, "api")]), view(near)) as out,
    ):
        assert await is_cut(talk(port, b"secret"))
        assert out.count("upstream_attempts_total", outcome="tls") == 1


@pytest.mark.parametrize(
    ("server", "tls", "works"),
    [
        ("localhost", {}, True),
        ("api.example", {"serverName": "api.example"}, True),
        ("api.example", {}, False),
        ("api.example", {"skipHostnameVerification": True}, True),
    ],
)
async def test_tls_origination(server, tls, works):
    pem = self_signed(server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pem_path(pem) as path:
        context.load_cert_chain(path)
    seen: list[str] = []
    context.sni_callback = lambda _, name, __: seen.append(name)

    async def serve(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, context, server_side=True)
        try:
            await secure.send_all(b"got " + await secure.receive_some())
            await secure.aclose()
        except trio.BrokenResourceError:
            pass

    async with application(serve) as app:
        authority = {"caCert": {"inlineString": pem.decode().partition("-----BEGIN PRIVATE")[0]}}
        answer, _ = await by_egress(app.port, external(app.port, {"enabled": True, **authority, **tls}), data=b"x")
    assert answer == (b"got x" if works else None) or (not works and not answer)
    assert seen[0] == (tls.get("serverName") or "localhost")


async def test_unreadable_tls_material_closes_connections_and_says_why(caplog):
    caplog.set_level("WARNING")
    async with application(says(b"never")) as app:
        resource = external(app.port, {"enabled": True, "caCert": {"secret": "gone"}})
        answer, _ = await by_egress(app.port, resource)
        assert not answer
        assert app.hits == []
    assert "cannot be read here" in caplog.text


def said(caplog) -> list[tuple[str, str]]:
    """What was logged of the external service."""
    return [(r.levelname, r.getMessage()) for r in caplog.records if "external service 'api'" in r.getMessage()]


async def test_a_refused_external_service_is_said_once_with_each_reason_and_so_is_its_return(caplog):
    caplog.set_level("INFO")
    held: dict[str, bytes] = {}

    def read(_: str, source: DataSource) -> bytes:
        if source.secret not in held:
            raise ValueError(f"no Secret '{source.secret}'")
        return held[source.secret]

    port, changes = free_port(), Latest(0)
    resource = external(1, {"enabled": True, "caCert": {"secret": "ca"}})
    target = view(service("api", real(1), external=resource), service("web", endpoint(2)), mode=None)
    here = dataplane("shop", gateway="shop", outbound=[(port, "api"), (free_port(), "api"), (free_port(), "web")])
    async with running(here, target, settings=Settings(read_source=read), material=changes) as out:

        async def now(material: bytes | None) -> list[tuple[str, str]]:
            caplog.clear()
            if material is not None:
                held["ca"] = material
            changes.publish(changes.value + 1)
            await trio.sleep(0.05)
            return said(caplog)

        ((level, text),) = said(caplog)
        assert level == "WARNING"
        assert "shop" in text
        assert text.endswith("'api' are refused: no Secret 'ca'")
        assert await now(None) == []
        ((level, text),) = await now(b"nonsense")
        assert (level, "caCert does not load" in text) == ("WARNING", True)
        assert await is_cut(talk(port))
        assert out.count("connections_total", outcome="unavailable") == 1
        ((level, text),) = await now(b"\n")
        assert (level, text.endswith("caCert is empty")) == ("WARNING", True)
        pem = self_signed("localhost").partition(b"-----BEGIN PRIVATE")[0]
        ((level, text),) = await now(pem)
        assert (level, text.endswith("external service 'api' can be reached again")) == ("INFO", True)
        assert await now(pem) == []


async def test_name_that_does_not_resolve_is_an_attempt_that_failed():
    port = free_port()
    target = service("api", endpoint(1, address="no-such-host.invalid", reach=Reach.EXTERNAL), external=external(1))
    async with running(dataplane("shop", gateway="shop", outbound=[(port, "api")]), view(target)) as out:
        assert await is_cut(talk(port))
        assert out.count("connections_total", outcome="unavailable") == 1


async def test_a_secret_that_changes_is_in_force_for_the_next_connection():
    """Secrets are not in the view: it stays the very same object."""
    pem = self_signed("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pem_path(pem) as path:
        context.load_cert_chain(path)

    async def serve(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, context, server_side=True)
        await secure.send_all(b"in")
        await secure.aclose()

    held: dict[str, bytes] = {}

    def read(_: str, source: DataSource) -> bytes:
        if source.secret not in held:
            raise ValueError(f"no Secret '{source.secret}'")
        return held[source.secret]

    port, changes = free_port(), Latest(0)
    async with application(serve) as app:
        resource = external(app.port, {"enabled": True, "caCert": {"secret": "ca"}})
        target = view(service("api", real(app.port), external=resource), mode=None)
        async with running(
            dataplane("shop", gateway="shop", outbound=[(port, "api")]),
            target,
            settings=Settings(read_source=read),
            material=changes,
        ):
            assert await is_cut(talk(port))
            held["ca"] = pem.partition(b"-----BEGIN PRIVATE")[0]
            changes.publish(1)
            await trio.sleep(0.05)
            assert await talk(port) == b"in"
            held["ca"] = self_signed("localhost").partition(b"-----BEGIN PRIVATE")[0]
            changes.publish(2)
            await trio.sleep(0.05)
            assert await is_cut(talk(port))
