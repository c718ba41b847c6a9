"""The servers that a resolv.conf names."""

import ipaddress
from collections.abc import Iterator

from meshd.dns.settings import DNS_PORT, Address


def nameservers(text: str) -> tuple[Address, ...]:
    """The servers of its ``nameserver`` lines, each once, in order; what is no address is passed over, as libc does.

    All of them, where libc takes three. Source: resolv.conf(5).
    """
    return tuple(dict.fromkeys(_nameservers(text)))


def _nameservers(text: str) -> Iterator[Address]:
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            yield Address(str(ipaddress.ip_address(words[1])), DNS_PORT)
        except ValueError:
            continue
