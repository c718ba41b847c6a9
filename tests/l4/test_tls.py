import os
import ssl
from pathlib import Path

import pytest

from meshd.ca.origination import Origination, trouble_with
from meshd.l4.client_hello import ClientHelloReader
from meshd.l4.tls import Contexts, Tls, TlsError, TruncatedError, check_client, check_server, mesh_context
from tests.l4 import pki

MESH = "default"


def pair(client_identity=None, client_trust=None, server_trust=None, sni: bytes | None = b"web{mesh=default}"):
    client = mesh_context(
        client_identity or pki.identity(MESH, "shop"), client_trust or pki.trust(MESH), server_side=False
    )
    server = mesh_context(pki.identity(MESH, "web"), server_trust or pki.trust(MESH), server_side=True)
    return Tls(client, server_side=False, server_name=sni), Tls(server, server_side=True)


def carry(source: Tls, target: Tls, step: int = 1 << 20) -> int:
    data = source.take()
    for at in range(0, len(data), step):
        target.feed(data[at : at + step])
    return len(data)


def shake(client: Tls, server: Tls, step: int = 1 << 20) -> None:
    done = {client: False, server: False}
    for _ in range(10):
        for me, other in ((client, server), (server, client)):
            if not done[me]:
                done[me] = me.handshake()
            carry(me, other, step)
        if all(done.values()):
            return
    raise AssertionError("no progress")


def drain(tls: Tls, size: int = 1 << 18) -> tuple[bytes, bool]:
    """(what arrived, whether the direction has ended)."""
    view, got = memoryview(bytearray(size)), b""
    while count := tls.read_into(view):
        got += view[:count]
    return got, count == 0


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_both_sides_see_each_other(step):
    client, server = pair()
    shake(client, server, step)
    assert server.peer_uris() == ("spiffe://default/shop", "kuma://kuma.io/service/shop")
    assert client.peer_uris()[0] == "spiffe://default/web"
    assert client.alpn() == server.alpn() == "kuma"


def test_sni_longer_than_a_dns_label_with_braces_is_sent_as_it_is():
    name = b"a" * 200 + b"{mesh=default}"
    client, _ = pair(sni=name)
    client.handshake()
    hello = ClientHelloReader().feed(client.take())
    assert hello is not None
    assert hello.server_name == name
    assert hello.alpn == (b"kuma",)


@pytest.mark.parametrize("size", [1, 16 * 1024, 16 * 1024 + 1, 1_000_000])
def test_bytes_arrive_whole_in_both_directions(size):
    client, server = pair()
    shake(client, server)
    sent = os.urandom(size)
    for source, target in ((client, server), (server, client)):
        source.write(memoryview(sent))
        carry(source, target)
        assert drain(target) == (sent, False)


def test_a_small_buffer_reads_in_pieces():
    client, server = pair()
    shake(client, server)
    client.write(b"abcdefgh")
    carry(client, server)
    assert drain(server, 3) == (b"abcdefgh", False)


def test_half_close_ends_one_direction_only():
    client, server = pair()
    shake(client, server)
    client.write(b"request")
    client.close_write()
    carry(client, server)
    assert drain(server) == (b"request", True)
    server.write(b"x" * 100_000)
    carry(server, client)
    assert drain(client) == (b"x" * 100_000, False)
    server.close_write()
    carry(server, client)
    assert drain(client) == (b"", True)
    assert drain(client) == (b"", True)


def test_half_close_while_the_peers_data_waits_unread():
    client, server = pair()
    shake(client, server)
    server.write(b"y" * 50_000)
    carry(server, client)
    client.close_write()
    carry(client, server)
    assert drain(server) == (b"", True)
    server.write(b"z")
    server.close_write()
    carry(server, client)
    assert drain(client, 1000) == (b"y" * 50_000 + b"z", True)


def test_end_without_close_notify_is_a_truncation_after_what_came():
    client, server = pair()
    shake(client, server)
    client.write(b"partial")
    carry(client, server)
    server.feed_eof()
    view = memoryview(bytearray(100))
    assert server.read_into(view) == 7
    with pytest.raises(TruncatedError):
        server.read_into(view)


def test_client_of_another_ca_is_refused():
    client, server = pair(client_identity=pki.identity(MESH, "shop", generation=1))
    with pytest.raises(TlsError, match="certificate refused"):
        shake(client, server)


def test_server_of_another_ca_is_refused_before_any_byte():
    client, server = pair(client_trust=pki.trust(MESH, 1))
    with pytest.raises(TlsError, match="certificate refused"):
        shake(client, server)


def test_client_without_a_certificate_is_refused():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, server = pair()
    client = Tls(context, server_side=False)
    with pytest.raises(TlsError, match="peer did not return a certificate"):
        shake(client, server)


def test_garbage_is_a_tls_error():
    _, server = pair()
    server.feed(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(TlsError, match="http request"):
        server.handshake()


def test_server_must_be_exactly_the_service():
    check_server(("spiffe://default/web",), "spiffe://default/web")
    for uris in ((), ("spiffe://default/web2",), ("spiffe://other/web",), ("SPIFFE://default/web",)):
        with pytest.raises(TlsError, match="not spiffe://default/web"):
            check_server(uris, "spiffe://default/web")


def test_client_must_be_of_the_mesh():
    check_client(("kuma://a/b", "spiffe://default/x"), "default")
    for uris in ((), ("spiffe://default2/x",), ("kuma://default/x",)):
        with pytest.raises(TlsError, match="not of mesh 'default'"):
            check_client(uris, "default")


def test_contexts_are_shared_by_equal_certificates():
    contexts = Contexts()
    one, trust = pki.identity(MESH, "web"), pki.trust(MESH)
    assert contexts.mesh(one, trust, server_side=True) is contexts.mesh(one, trust, server_side=True)
    assert contexts.mesh(one, trust, server_side=True) is not contexts.mesh(one, trust, server_side=False)
    assert contexts.mesh(one, trust, server_side=True) is not contexts.mesh(one, pki.trust(MESH, 1), server_side=True)


def test_no_key_touches_the_disk():
    before = len(list(Path("/proc/self/fd").iterdir()))
    mesh_context(pki.identity(MESH, "web"), pki.trust(MESH), server_side=True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_bad_pem_is_a_value_error_that_names_whose():
    with pytest.raises(ValueError, match="mesh 'default'"):
        mesh_context(pki.identity(MESH, "web"), type(pki.trust(MESH))(MESH, b"nonsense"), server_side=True)
    with pytest.raises(ValueError, match=r"'db\.example'"):
        Contexts().origination(Origination("db.example", "nonsense", "", "", verify_hostname=True))


def test_material_of_an_external_service_is_judged_part_by_part():
    ca, own = pki.trust(MESH).pem.decode(), pki.identity(MESH, "web")
    chain, key = own.chain_pem.decode(), own.key_pem.decode()
    assert trouble_with("", "", "") == trouble_with(ca, chain, key) == ""
    assert trouble_with("nonsense", chain, key).startswith("caCert does not load")
    assert trouble_with(ca, chain, "").startswith("clientCert with clientKey does not load")
    other = pki.identity(MESH, "shop").key_pem.decode()
    assert trouble_with(ca, chain, other).startswith("clientCert with clientKey does not load")
