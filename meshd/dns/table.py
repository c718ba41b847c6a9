"""The names that are answered. One writer changes it name by name, readers look at it from any thread.

Every change is one assignment in a dictionary, whatever the table's size, and a query looks each of its names up once:
it finds the old answer or the new one, never none in between and never half of each.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from types import MappingProxyType
from typing import Final

from meshd.dns import wire

TTL_S: Final = 30
"""As Kuma's resolver."""
NEGATIVE_TTL_S: Final = 5
"""How long a client may believe that a name is not there: short, since a service may appear any moment."""
SOA_TIMERS: Final = (1, 3600, 1200, 604800, NEGATIVE_TTL_S)
"""Serial, refresh, retry, expire, minimum. Nobody transfers the zone, so its serial says nothing and never moves."""
QUESTION_POINTER: Final = b"\xc0\x0c"
"""A compressed name: that of the question, right behind the header."""
MAPPED: Final = b"\0" * 10 + b"\xff\xff"
"""Prefix of ``::ffff:hhhh:hhhh``, the form in which Kuma serves a VIP to those who ask for AAAA."""
HOSTMASTER: Final = (b"nobody", b"invalid")
IN_ADDR: Final = (b"in-addr", b"arpa")
IP6: Final = (b"ip6", b"arpa")
HEX: Final = b"0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is said of a name: its address (four bytes), and who is behind it.

    ``ports`` are (port, application protocol), by port; ``zones`` are (zone, healthy instances), by zone.
    """

    address: bytes
    ports: tuple[tuple[int, str], ...] = ()
    zones: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be different in a table; None removes a name or a title, and leaves ``is_known`` as it is.

    ``names`` are in wire form; ``titles`` are the names, in wire form, of addresses, in four bytes.
    """

    names: Mapping[bytes, Entry | None] = field(default_factory=dict)
    titles: Mapping[bytes, bytes | None] = field(default_factory=dict)
    is_known: bool | None = None


def _section_head(rtype: int, length: int) -> bytes:
    return QUESTION_POINTER + struct.pack("!HHIH", rtype, wire.CLASS_IN, TTL_S, length)


A_HEAD: Final = _section_head(wire.A, 4)
AAAA_HEAD: Final = _section_head(wire.AAAA, 16) + MAPPED
NOTHING: Final = Entry(b"")
"""What is known of a name that exists only since there are names beneath it (RFC 8020)."""


class NameTable:
    """What is known of names. All keys are names in wire form and lower case.

    ``apex`` is the domain's own name. ``names`` are those beneath it that exist, maybe as ``NOTHING``; ``sections`` has
    for the same names the ready answer section to A, empty for ``NOTHING``: it is what is looked at for most queries,
    so it is found in one step. ``hosts`` are names elsewhere that the mesh has taken over. ``titles`` has the name of
    each VIP. ``recursive``: other names can be asked about here (there are upstreams). ``is_known``:
    false while nobody can say which names there are.
    """

    __slots__ = (
        "_below",
        "apex",
        "apex_labels",
        "count",
        "heads",
        "hosts",
        "is_known",
        "names",
        "recursive",
        "reverse",
        "sections",
        "titles",
    )

    def __init__(self, domain: str, *, recursive: bool, is_known: bool = True, cidr: IPv4Network | None = None) -> None:
        self.apex = wire.name_to_wire(domain)
        self.apex_labels = 1 + sum(1 for _ in ancestors(self.apex))
        self.recursive = recursive
        self.heads = HEADS[recursive]
        self.is_known = is_known
        self.count = 0
        """How many names have an address."""
        self.names: dict[bytes, Entry] = {}
        self.sections: dict[bytes, bytes] = {}
        self.hosts: dict[bytes, Entry] = {}
        self.titles: dict[bytes, bytes] = {}
        self.reverse = frozenset(reverse_zones(cidr)) if cidr else frozenset()
        """The labels of each zone that names the CIDR's addresses."""
        self._below: dict[bytes, int] = {}

    def change(self, change: Change) -> None:
        """Apply a change. For the one writer."""
        for name, entry in change.names.items():
            above = between(name, self.apex)
            if above is None:
                self.count += (entry is not None) - (name in self.hosts)
                if entry is None:
                    self.hosts.pop(name, None)
                else:
                    self.hosts[name] = entry
            else:
                self._change_name(name, entry, above)
        for address, title in change.titles.items():
            if title is None:
                self.titles.pop(address, None)
            else:
                self.titles[address] = title
        if change.is_known is not None:
            # Last, so that no name is denied that comes with it.
            self.is_known = change.is_known

    def _change_name(self, name: bytes, entry: Entry | None, above: tuple[bytes, ...]) -> None:
        known = self.names.get(name, NOTHING) is not NOTHING
        self.count += (entry is not None) - known
        if entry is not None and not known:
            for parent in above:
                self._below[parent] = self._below.get(parent, 0) + 1
                if parent not in self.names:
                    self._put(parent, NOTHING)
        self._put(name, NOTHING if entry is None and name in self._below else entry)
        if entry is None and known:
            for parent in above:
                self._below[parent] -= 1
                if not self._below[parent]:
                    del self._below[parent]
                    if self.names[parent] is NOTHING:
                        self._put(parent, None)

    def is_ours(self, name: bytes) -> bool:
        """Whether the name is the domain's or beneath it."""
        return is_within(name, self.apex)

    def contents(self) -> Change:
        """All that an empty table of the same settings must be told to answer as this one."""
        known = {name: entry for name, entry in self.names.items() if entry is not NOTHING}
        return Change({**known, **self.hosts}, dict(self.titles), self.is_known)

    def _put(self, name: bytes, entry: Entry | None) -> None:
        if entry is None:
            self.sections.pop(name, None)
            self.names.pop(name, None)
        else:
            self.sections[name] = A_HEAD + entry.address if entry.address else b""
            self.names[name] = entry


def is_within(name: bytes, apex: bytes) -> bool:
    """Whether a name in wire form is a domain's or beneath it."""
    return name == apex or (name.endswith(apex) and apex in ancestors(name))


def ancestors(name: bytes) -> Iterator[bytes]:
    """The names above a name in wire form, nearest first, without the root."""
    offset = name[0] + 1 if name[0] else len(name)
    while offset < len(name) - 1:
        yield name[offset:]
        offset += name[offset] + 1


def between(name: bytes, apex: bytes) -> tuple[bytes, ...] | None:
    """The names strictly between a name and the apex above it; None for a name that is not beneath the apex."""
    if name == apex:
        return ()
    above = tuple(ancestors(name))
    return above[: above.index(apex)] if apex in above else None


def reverse_zones(cidr: IPv4Network) -> Iterator[tuple[bytes, ...]]:
    """The labels of the zones that together hold exactly the reverse names of a range.

    A zone ends at a label, so a range that does not is several: 240.0.0.0/4 is sixteen in in-addr.arpa (RFC 1035 3.5).
    The same addresses mapped into IPv6 are in ip6.arpa, a hexadecimal digit a label (RFC 3596 2.5).
    """
    octets = max(1, -(-cidr.prefixlen // 8))
    for network in cidr.subnets(new_prefix=octets * 8):
        yield (*reversed([b"%d" % byte for byte in network.network_address.packed[:octets]]), *IN_ADDR)
    digits = max(1, -(-cidr.prefixlen // 4))
    for network in cidr.subnets(new_prefix=digits * 4):
        own = nibbles(network.network_address.packed)[:digits]
        yield (*reversed([*nibbles(MAPPED), *own]), *IP6)


def nibbles(packed: bytes) -> list[bytes]:
    """The hexadecimal digits of an address as labels, from its beginning."""
    return [b"%x" % (byte >> shift & 15) for byte in packed for shift in (4, 0)]


def reverse_name(labels: tuple[bytes, ...]) -> bytes | None:
    """The part of an IPv4 address, from its beginning, that a reverse name of a range is of: four bytes if it is whole.

    ``labels`` are lower case. Empty where the name ends inside of what all mapped addresses share, or inside of a byte;
    None for a name that is no address' and above none.
    """
    if labels[-2:] == IN_ADDR:
        numbers = labels[-3::-1]
        # Written in one way only: 01 is another label than 1.
        if len(numbers) > 4 or not all(n.isdigit() and n == b"%d" % int(n) and int(n) < 256 for n in numbers):
            return None
        return bytes(map(int, numbers))
    digits = labels[-3::-1]
    if len(digits) > 32 or not all(len(digit) == 1 and digit in HEX for digit in digits):
        return None
    own = b"".join(digits[24:])
    return bytes.fromhex(own[: len(own) // 2 * 2].decode()) if len(own) % 2 == 0 else b""


def simple_heads(*, recursive: bool) -> Iterator[tuple[bytes, tuple[bytes, bytes, bytes]]]:
    """Bytes 2 to 12 of every header that a plain query can have; those of an answer, of no data and of NXDOMAIN to it.

    Plain: opcode QUERY, one question, no record but maybe one (an OPT); RD, AD and CD as the client likes. RD and CD
    are echoed (RFC 4035 3.2.2), AD is not since nothing was validated.
    """
    for additionals in (0, 1):
        for rd in (0, wire.RD):
            for ad in (0, wire.AD):
                for cd in (0, wire.CD):
                    head = struct.pack("!5H", rd | ad | cd, 1, 0, 0, additionals)
                    flags = wire.QR | wire.AA | rd | cd | (wire.RA if recursive else 0)
                    yield (
                        head,
                        (
                            struct.pack("!5H", flags, 1, 1, 0, additionals),
                            struct.pack("!5H", flags, 1, 0, 1, additionals),
                            struct.pack("!5H", flags | wire.NXDOMAIN, 1, 0, 1, additionals),
                        ),
                    )


HEADS: Final = tuple(MappingProxyType(dict(simple_heads(recursive=recursive))) for recursive in (False, True))
