"""Names, CAs and leaves of servers; a TLS client has the last word."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509

from meshd.ca.server_certificate import (
    ServerNames,
    ends_soon,
    is_usable,
    issue_server,
    may_sign,
    names_of,
    new_authority,
    wanted_names,
)
from meshd.ca.x509 import KeyPair, check_pair, load_signer
from tests.ca.test_x509 import NOW


def names(*dns, addresses=()):
    return ServerNames(frozenset(dns), frozenset(map(ip_address, addresses)))


@pytest.mark.parametrize(
    ("hostname", "addresses", "xds_host", "expected"),
    [
        ("VM-7", ["127.0.0.1", "::1"], "", names("vm-7", "localhost", addresses=["127.0.0.1", "::1"])),
        ("vm-7.", [], "CP.example", names("vm-7", "localhost", "cp.example")),
        ("", ["10.0.0.7"], "192.0.2.1", names("localhost", addresses=["10.0.0.7", "192.0.2.1"])),
        ("hôte", [], "", names("localhost")),
        ("10.0.0.1", [], "", names("localhost")),
    ],
)
def test_what_a_host_is_called(hostname, addresses, xds_host, expected):
    assert wanted_names(hostname, map(ip_address, addresses), xds_host) == expected


CERTIFICATE = names("cp.example", "*.wild.example", addresses=["10.0.0.7", "fd00::2"])


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("cp.example", True),
        ("CP.Example.", True),
        ("a.wild.example", True),
        ("a.b.wild.example", False),
        ("wild.example", False),
        ("10.0.0.7", True),
        ("10.0.0.8", False),
        ("fd00::2", True),
        ("[fd00:0::2]", True),
        ("[fd00::3]", False),
        ("", False),
        (".", False),
    ],
)
def test_hosts_of_a_certificate(host, expected):
    assert CERTIFICATE.has(host) is expected


def test_a_certificate_says_its_names_and_that_it_is_no_ca():
    authority = new_authority("meshd zone-a servers", NOW)
    assert check_pair(authority) == ()
    leaf = issue_server(load_signer(authority), CERTIFICATE, NOW)
    assert names_of(leaf.cert_pem) == CERTIFICATE
    assert CERTIFICATE.sorted() == ("10.0.0.7", "fd00::2", "*.wild.example", "cp.example")
    assert (may_sign(leaf.cert_pem), may_sign(authority.cert_pem)) == (False, True)
    assert names_of(authority.cert_pem) == ServerNames()
    assert x509.load_pem_x509_certificate(authority.cert_pem).subject.rfc4514_string() == "CN=meshd zone-a servers"


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused(pem):
    with pytest.raises(ValueError):
        names_of(pem)
    with pytest.raises(ValueError):
        may_sign(pem)


def test_which_leaves_are_used_again():
    signer = load_signer(new_authority("a", NOW))
    leaf = issue_server(signer, CERTIFICATE, NOW)
    other = issue_server(signer, CERTIFICATE, NOW)
    end = signer.certificate.not_valid_after_utc
    assert is_usable(leaf, signer, CERTIFICATE, NOW)
    assert is_usable(leaf, signer, names("cp.example"), NOW)
    assert not is_usable(leaf, signer, names("other.example"), NOW)
    assert not is_usable(leaf, load_signer(new_authority("a", NOW)), CERTIFICATE, NOW)
    assert not is_usable(KeyPair(leaf.cert_pem, other.key_pem), signer, CERTIFICATE, NOW)
    assert not is_usable(KeyPair(leaf.cert_pem, b"junk"), signer, CERTIFICATE, NOW)
    assert not is_usable(KeyPair(b"junk", leaf.key_pem), signer, CERTIFICATE, NOW)
    assert not is_usable(leaf, signer, CERTIFICATE, NOW - timedelta(days=1))
    assert not is_usable(leaf, signer, CERTIFICATE, end - timedelta(days=29))
    assert is_usable(leaf, signer, CERTIFICATE, end - timedelta(days=31))
    assert ends_soon(signer.certificate, end - timedelta(days=29))


@pytest.mark.parametrize("host", ["cp.example", "10.0.0.7"])
def test_a_client_that_trusts_the_ca_accepts_the_leaf(tmp_path, host):
    authority = new_authority("a", datetime.now(UTC))
    leaf = issue_server(load_signer(authority), CERTIFICATE, datetime.now(UTC))
    (tmp_path / "s.pem").write_bytes(leaf.cert_pem + leaf.key_pem)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(tmp_path / "s.pem")
    trusting = ssl.create_default_context(cadata=authority.cert_pem.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname=host)
    server = served.wrap_bio(to_server, to_client, server_side=True)
    done = set()
    while len(done) < 2:
        for side in (client, server):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
    assert client.version() == "TLSv1.3"
