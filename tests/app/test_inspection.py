"""Who is asked about its Envoy, where, and what comes of it."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from meshd.app.inspection import Inspector, Listener, is_local, node_id, way_to
from meshd.ca.envoy_admin import new_ca, read_ca
from meshd.ca.x509 import KeyPair, usage
from meshd.envoy.client import AtSocket
from meshd.insight.proxies import Run
from meshd.insight.proxies import connected as insight_of
from meshd.kds.admin.wire import Question, What
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.mesh import Mesh
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model.errors import UnavailableError
from meshd.model.resource import Resource, ResourceKey
from meshd.model.shape import read_strict
from meshd.xds.service import AdminAt
from tests.ca.test_x509 import NOW
from tests.ports import free_port

WEB = ResourceKey("Dataplane", "default", "web-1")
WEB_INSIGHT = ResourceKey("DataplaneInsight", "default", "web-1")
IN = ResourceKey("ZoneIngress", "", "in-1")
KINDS = {"Dataplane": Dataplane, "ZoneIngress": ZoneIngress, "ZoneEgress": ZoneEgress}
DEFAULT_PORT = 9901
HERE = "127.0.0.1:1"
SOCKET = "/tmp/dp/kuma-envoy-admin.sock"


def proxy(key=WEB, **networking):
    return Resource(key, read_strict(KINDS[key.kind], {"networking": networking}))


def at(socket=SOCKET, port=9901, address="127.0.0.1", peer="10.0.0.9:1"):
    return AdminAt(socket, address, port, peer)


def local(peer):
    return peer.startswith("127.")


@pytest.mark.parametrize(
    ("resource", "said", "expected"),
    [
        (proxy(address="10.0.0.9"), at(), Listener("10.0.0.9", 9901)),
        (proxy(address="10.0.0.9"), at(peer=HERE), Listener("10.0.0.9", 9901)),
        (proxy(address="10.0.0.9"), at(socket=""), Listener("10.0.0.9", 9901)),
        # What it was started with counts; what the resource says comes with its next start.
        (proxy(address="10.0.0.9", admin={"port": 9999}), at(port=9902), Listener("10.0.0.9", 9902)),
        (proxy(address="10.0.0.9", admin={"port": 9999}), None, Listener("10.0.0.9", 9999)),
        (proxy(address="10.0.0.9"), None, Listener("10.0.0.9", DEFAULT_PORT)),
        (proxy(address="web.example", advertisedAddress="192.0.2.9"), at(), Listener("192.0.2.9", 9901)),
        (proxy(IN, address="10.0.0.9", advertisedAddress="192.0.2.9"), at(), Listener("10.0.0.9", 9901)),
        (proxy(IN, address="0.0.0.0", advertisedAddress="192.0.2.9"), at(), Listener("10.0.0.9", 9901)),
        (proxy(IN, address="::", advertisedAddress="192.0.2.9"), None, Listener("192.0.2.9", DEFAULT_PORT)),
        (proxy(ResourceKey("ZoneEgress", "", "o"), address="fd00::9"), at(), Listener("fd00::9", 9901)),
        (proxy(address="127.0.0.9"), at(peer=HERE), Listener("127.0.0.9", 9901)),
        (proxy(address="127.0.0.1"), at(peer=HERE), AtSocket(Path(SOCKET))),
        (proxy(address="localhost"), at(peer=HERE), AtSocket(Path(SOCKET))),
        (proxy(address="10.0.0.9"), at("/v/admin.sock", port=0, peer=HERE), AtSocket(Path("/v/admin.sock"))),
        (proxy(address="127.0.0.1"), at("/tmp/kuma-envoy-admin-web-1.default.sock", peer=HERE),
         AtSocket(Path("/tmp/kuma-envoy-admin-web-1.default.sock"))),
    ],
)  # fmt: skip
def test_where_an_envoy_is_asked(resource, said, expected):
    assert way_to(resource, said, DEFAULT_PORT, local) == expected


@pytest.mark.parametrize(
    ("resource", "said", "reason"),
    [
        (proxy(address="127.0.0.1"), None, "web-1 has no Envoy that is connected to this control plane"),
        (proxy(address="127.0.0.1"), at(), "is on another host (10.0.0.9:1) and its Envoy has no listener"),
        (proxy(address="10.0.0.9"), at(port=0), "is on another host (10.0.0.9:1) and its Envoy has no listener"),
        (proxy(address="10.0.0.9"), at(socket="", address="0.0.0.0"), "has no listener for the control plane"),
        (proxy(address="127.0.0.1"), at(socket="", peer=HERE), "is at a port, where it is not asked"),
        (proxy(address="127.0.0.1"), at("/run/docker.sock", peer=HERE), "is at '/run/docker.sock', where it is not"),
        (proxy(address="127.0.0.1"), at("kuma-envoy-admin.sock", peer=HERE), "where it is not asked"),
        (Resource(ResourceKey("Mesh", "", "m"), Mesh()), None, "Mesh m is no proxy"),
    ],
)
def test_who_is_not_asked(resource, said, reason):
    with pytest.raises(UnavailableError) as error:
        way_to(resource, said, DEFAULT_PORT, local)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("127.0.0.1:80", True),
        ("127.0.0.9:80", True),
        ("[::1]:80", True),
        ("[::ffff:127.0.0.1]:80", True),
        ("192.0.2.1:80", False),
        ("[::ffff:192.0.2.1]:80", False),
        ("memory", False),
    ],
)
def test_peers_of_this_host(peer, local):
    assert is_local(peer) is local


def test_ids_of_nodes():
    assert (node_id(WEB), node_id(IN)) == ("default.web-1", ".in-1")


def inspector(resource, said, ca=None, insight=None):
    async def addresses(host):
        if host.endswith(".example"):
            raise OSError("no such name")
        return (host,)

    def stored(key):
        return {WEB: resource, WEB_INSIGHT: insight}.get(key)

    return Inspector(stored, lambda _: said, lambda: ca, addresses, DEFAULT_PORT)


@pytest.mark.parametrize(
    ("asked", "address", "has_ca", "reason"),
    [
        (IN, "127.0.0.2", True, "ZoneIngress in-1 is not there"),
        (WEB, "127.0.0.2", False, "GlobalSecret envoy-admin-ca is not there, or is no CA: delete it for a new one"),
        (WEB, "web.example", True, "Dataplane default/web-1: no address is known of web.example: no such name"),
    ],
)
async def test_why_nobody_was_asked(asked, address, has_ca, reason):
    ca = read_ca(new_ca(NOW)) if has_ca else None
    with pytest.raises(UnavailableError) as error:
        await inspector(proxy(address=address), at(), ca).ask(Question(What.STATS, asked))
    assert str(error.value) == reason


def weak_ca():
    """An intermediate CA that TLS libraries refuse for its short key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    name, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("weak", "root"))
    certificate = (
        x509.CertificateBuilder(issuer, name, key.public_key(), 7, NOW, NOW + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(rsa.generate_private_key(public_exponent=65537, key_size=2048), hashes.SHA256())
    )
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem = serialization.Encoding.PEM
    return KeyPair(certificate.public_bytes(pem), key.private_bytes(pem, *form))


async def test_a_ca_that_tls_refuses_is_a_reason():
    """And not an error that whoever asks for the global takes for a bug."""
    with pytest.raises(UnavailableError, match=r"GlobalSecret envoy-admin-ca cannot be used: .*ca key too small"):
        await inspector(proxy(address="127.0.0.2"), at(), weak_ca()).ask(Question(What.STATS, WEB))


async def test_a_proxy_without_an_envoy_is_a_reason():
    insight = insight_of(WEB, None, Run("cp-1", "run-1"), NOW)
    with pytest.raises(UnavailableError) as error:
        await inspector(proxy(address="127.0.0.2"), None, insight=insight).ask(Question(What.STATS, WEB))
    assert str(error.value) == "Dataplane default/web-1 is run by the built-in engine, without an Envoy"


@pytest.mark.e2e
@pytest.mark.parametrize("connected", [True, False])
async def test_an_envoy_that_is_gone_is_a_reason(connected):
    port = free_port()
    resource = proxy(address="127.0.0.2", admin={"port": port})
    asked = inspector(resource, at(port=port) if connected else None, read_ca(new_ca(NOW)))

    with pytest.raises(UnavailableError) as error:
        await asked.ask(Question(What.STATS, WEB, used_only=True))

    why = f"Dataplane default/web-1: admin interface 127.0.0.2:{port}: /stats?usedonly: connection refused"
    assert str(error.value) == why + ("" if connected else "; it is not connected to this control plane")


async def test_a_socket_that_nobody_listens_at_is_a_reason(tmp_path):
    asked = inspector(proxy(address="127.0.0.1"), at(str(tmp_path / "admin.sock"), peer=HERE))
    with pytest.raises(UnavailableError, match=r"admin\.sock: /server_info: no such file"):
        await asked.ask(Question(What.STATS, WEB))
