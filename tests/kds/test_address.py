"""Where the global is."""

import pytest

from meshd.kds.address import GlobalAddress, parse
from meshd.model.errors import InvalidError


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("grpcs://global.example:5685", GlobalAddress("global.example", 5685, tls=True), False),
        ("grpc://127.0.0.1", GlobalAddress("127.0.0.1", 5685, tls=False), True),
        ("grpc://[::1]:99", GlobalAddress("::1", 99, tls=False), True),
        ("grpc://localhost:1", GlobalAddress("localhost", 1, tls=False), True),
        ("grpc://localhost.evil.example:1", GlobalAddress("localhost.evil.example", 1, tls=False), False),
    ],
)
def test_addresses(text: str, address: GlobalAddress, loopback: bool) -> None:
    assert parse(text) == address
    assert parse(text).is_loopback is loopback


@pytest.mark.parametrize("text", ["", "kds://a:1", "grpcs://", "global:5685", "grpcs://a:99999", "grpcs://a:1/path"])
def test_what_is_no_address_names_the_setting(text: str) -> None:
    with pytest.raises(InvalidError, match="globalAddress"):
        parse(text)
