"""What the kernel says about this host's addresses."""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

from meshd.runtime.addresses import local_addresses, parse_if_inet6, parse_ifconf


def test_loopback_is_always_there():
    assert IPv4Address("127.0.0.1") in local_addresses()
    assert list(local_addresses()) == sorted(local_addresses(), key=lambda a: (a.version, a))


def entry(name, address):
    return struct.pack("@16s2x2x4s16x", name.encode(), socket.inet_aton(address))


def test_addresses_of_ifconf_are_read_and_half_an_entry_is_not():
    data = entry("lo", "127.0.0.1") + entry("eth0:1", "10.0.0.7") + b"half"
    assert list(parse_ifconf(data)) == [IPv4Address("127.0.0.1"), IPv4Address("10.0.0.7")]


def test_ipv6_addresses_without_link_local():
    text = """\
00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000002 02 40 00 80     eth0
fe8000000000000000fc00fffe000001 02 40 20 80     eth0
nonsense
"""
    assert list(parse_if_inet6(text)) == [IPv6Address("::1"), IPv6Address("fd00::2")]
