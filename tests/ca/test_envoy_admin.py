"""The CA of the admin listeners and what is derived from it; TLS has the last word."""

import ssl

import pytest
from cryptography import x509

from meshd.ca.envoy_admin import (
    CA_SECRET,
    client_context,
    new_ca,
    read_ca,
    server_name,
    server_tls,
    stored_ca,
    trouble_with,
)
from meshd.ca.origination import pem_path
from meshd.ca.x509 import KeyPair, load_signer, parse_all
from meshd.kinds.secret import Secret
from meshd.model.resource import Resource, ResourceKey
from meshd.store.memory import MemoryStore
from meshd.store.store import Create
from tests.ca.builders import kuma_like_pair
from tests.ca.test_x509 import NOW

WEB = ResourceKey("Dataplane", "default", "web-1")
IN, OUT = ResourceKey("ZoneIngress", "", "web-1"), ResourceKey("ZoneEgress", "", "web-1")
OURS, OTHER = read_ca(new_ca(NOW)), read_ca(new_ca(NOW))
CAS = pytest.mark.parametrize("ca", [OURS, kuma_like_pair()], ids=["ours", "kuma's"])


def listener(ca, proxy, trusted=None):
    """As Envoy is configured: who comes must show a certificate."""
    shown = server_tls(ca, proxy)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=(trusted or shown.ca_pem).decode())
    with pem_path(shown.chain_pem + shown.key_pem) as path:
        context.load_cert_chain(path)
    return context


def meet(client, server, name):
    """Let the two shake hands; what the server then knows of the client."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(to_client, to_server, False, name)
    callee = server.wrap_bio(to_server, to_client, True)
    done = set()
    for _ in range(4):
        for end in (caller, callee):
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                pass
    assert done == {caller, callee}
    return callee.getpeercert()


@CAS
def test_the_control_plane_and_a_listener_know_each_other(ca):
    peer = meet(client_context(ca), listener(ca, WEB), server_name(WEB))

    assert peer["subjectAltName"] == (("DNS", "kuma-cp"),)


@pytest.mark.parametrize("proxy", [WEB, OUT], ids=str)
def test_a_listener_cannot_answer_for_another_proxy(proxy):
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        meet(client_context(OURS), listener(OURS, proxy), server_name(IN))


def test_a_listener_of_another_zone_is_not_believed():
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(client_context(OURS), listener(OTHER, WEB), server_name(WEB))


def test_a_control_plane_of_another_zone_is_not_let_in():
    stranger = client_context(OTHER)
    stranger.load_verify_locations(cadata=OURS.cert_pem.decode())

    with pytest.raises(ssl.SSLCertVerificationError):
        meet(stranger, listener(OURS, WEB), server_name(WEB))


def test_what_a_listener_shows_is_no_certificate_of_a_client():
    shown = server_tls(OURS, IN)
    thief = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    thief.load_verify_locations(cadata=OURS.cert_pem.decode())
    with pem_path(shown.chain_pem + shown.key_pem) as path:
        thief.load_cert_chain(path)

    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        meet(thief, listener(OURS, WEB), server_name(WEB))


@CAS
def test_the_same_ca_gives_the_same_bytes(ca):
    again = server_tls.__wrapped__(ca, WEB)

    assert again == server_tls(ca, WEB)
    [leaf] = parse_all(again.chain_pem)
    signer = load_signer(ca).certificate
    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (
        signer.not_valid_before_utc,
        signer.not_valid_after_utc,
    )
    assert leaf.subject.rfc4514_string() == "CN=Dataplane default/web-1"


def test_everything_differs_between_proxies_and_between_cas():
    found = [server_tls(ca, proxy) for ca in (OURS, OTHER) for proxy in (WEB, IN, OUT)]

    assert len({tls.key_pem for tls in found}) == len(found)
    leaves = [parse_all(tls.chain_pem)[0] for tls in found]
    assert len({leaf.serial_number for leaf in leaves}) == len(found)
    names = [leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value for leaf in leaves]
    assert len({str(san.get_values_for_type(x509.DNSName)) for san in names}) == 3


def test_a_long_name_is_a_name_all_the_same():
    long = ResourceKey("Dataplane", "m" * 63, "n" * 253)

    meet(client_context(OURS), listener(OURS, long), server_name(long))


@CAS
def test_the_secret_is_certificate_and_key(ca):
    assert read_ca(ca.cert_pem + ca.key_pem) == ca
    assert read_ca(ca.key_pem + ca.cert_pem) == ca
    assert trouble_with(ca.cert_pem + ca.key_pem) == ""


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cert: has no PEM block 'CERTIFICATE'"),
        (OURS.cert_pem, "key: is not a valid unencrypted PEM private key"),
        (OURS.key_pem, "cert: has no PEM block 'CERTIFICATE'"),
        (OTHER.cert_pem + OURS.key_pem, "not a valid key pair"),
        (server_tls(OURS, WEB).chain_pem + server_tls(OURS, WEB).key_pem, "basic constraint 'CA' must be set"),
    ],
    ids=["nothing", "no key", "no certificate", "of two pairs", "no CA"],
)
async def test_a_secret_that_is_no_ca_is_not_used(data, why):
    assert why in trouble_with(data)
    store = MemoryStore(lambda: NOW)
    assert stored_ca(store.get) is None
    await store.write([Create(Resource(CA_SECRET, Secret(data=data)))])
    assert stored_ca(store.get) is None


async def test_the_ca_of_a_zone_is_in_its_store():
    store = MemoryStore(lambda: NOW)
    await store.write([Create(Resource(CA_SECRET, Secret(data=OURS.cert_pem + OURS.key_pem)))])
    assert stored_ca(store.get) == KeyPair(OURS.cert_pem, OURS.key_pem)
