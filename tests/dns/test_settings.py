import pytest

from meshd.dns.settings import Address, DnsSettings, parse_address, settings
from meshd.model.errors import InvalidError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:5653", "127.0.0.1:5653"),
        ("[::1]:53", "[::1]:53"),
        ("10.0.0.2", "10.0.0.2:53"),
        ("2001:db8::1", "[2001:db8::1]:53"),
        ("[2001:db8::1]", "[2001:db8::1]:53"),
    ],
)
def test_address_is_parsed(text: str, expected: str) -> None:
    assert str(parse_address(text, 53)) == expected


@pytest.mark.parametrize("text", ["", "localhost:53", "10.0.0.2:x", "10.0.0.2:70000", "10.0.0.2:", "1:2:3", "[::1"])
def test_broken_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_address(text)


def test_all_violations_are_reported_at_once() -> None:
    with pytest.raises(InvalidError) as caught:
        settings("mesh", "nowhere", ["8.8.8.8", "also nowhere"])
    assert [v.field for v in caught.value.violations] == ["dnsServer.listen", "dnsServer.upstreams[1]"]


def test_an_upstream_that_is_ourselves_would_loop_and_is_refused() -> None:
    with pytest.raises(InvalidError, match="is this resolver itself"):
        settings("mesh", "127.0.0.1:5653", ["127.0.0.1:5653"])


@pytest.mark.parametrize("domain", ["", ".", "a..b", "x" * 64])
def test_broken_domain_is_refused(domain: str) -> None:
    with pytest.raises(InvalidError, match="no domain"):
        DnsSettings(domain=domain)


def test_upstream_without_port_means_53() -> None:
    assert settings("Mesh.", "127.0.0.1:0", ["10.0.0.2"]).upstreams == (Address("10.0.0.2", 53),)
