"""The addresses of this host, as the kernel tells them."""

import array
import fcntl
import logging
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

log = logging.getLogger(__name__)

SIOCGIFCONF = 0x8912
IF_INET6 = Path("/proc/self/net/if_inet6")
_MAX_BYTES = 512 * 1024
_ifreq = struct.Struct("@16s2x2x4s16x")  # 40 bytes where pointers have 8: name, family, port, address, the union's rest


def local_addresses() -> tuple[IPv4Address | IPv6Address, ...]:
    """Every address of every interface, loopback included, sorted; link-local IPv6, which nobody can name, is not.

    Needs no privilege and no netlink. Where the kernel tells nothing (another sandbox), loopback at least.
    """
    found: set[IPv4Address | IPv6Address] = {IPv4Address("127.0.0.1")}
    with suppress(OSError):
        found.update(_ipv4())
    with suppress(OSError):
        found.update(parse_if_inet6(IF_INET6.read_text(encoding="ascii")))
    return tuple(sorted(found, key=lambda a: (a.version, a)))


def _ipv4() -> Iterator[IPv4Address]:
    """Addresses by SIOCGIFCONF. Source: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        size = 64 * _ifreq.size
        while True:
            buffer = array.array("B", bytes(size))
            answer = fcntl.ioctl(probe, SIOCGIFCONF, struct.pack("@iP", size, buffer.buffer_info()[0]))
            used = struct.unpack("@iP", answer)[0]
            if used < size or size >= _MAX_BYTES:  # a full buffer may have been too small
                break
            size *= 4
    yield from parse_ifconf(buffer.tobytes()[:used])


def parse_ifconf(data: bytes) -> Iterator[IPv4Address]:
    """The addresses in what SIOCGIFCONF has filled in."""
    whole = len(data) - len(data) % _ifreq.size
    for _, address in _ifreq.iter_unpack(data[:whole]):
        yield IPv4Address(address)


def parse_if_inet6(text: str) -> Iterator[IPv6Address]:
    """The addresses of ``/proc/net/if_inet6`` that can be named without an interface."""
    for line in text.splitlines():
        digits = line.split(" ", 1)[0]
        if len(digits) == 32:
            address = IPv6Address(int(digits, 16))
            if not address.is_link_local:
                yield address
