"""Queries by the thousand: of all types, in all cases, with and without EDNS, whole and broken."""

import random
import struct

STEMS = [
    "service-0.mesh", "service-7.mesh", "service-999.mesh", "service-1000.mesh", "unknown.mesh", "mesh", "a.b.mesh",
    "b.mesh", "x.service-0.mesh", "xmesh", "example.org", "api.example.com", "_tcp.service-0.mesh", "x" * 63 + ".mesh",
    "_http._tcp.service-0.mesh", "_meshd.service-0.mesh", "1.0.0.240.in-addr.arpa", "0.240.in-addr.arpa", "",
    ".".join(["y" * 60] * 4) + ".mesh", "mesh.mesh", "*.mesh",
]  # fmt: skip
TYPES = [1, 1, 1, 28, 28, 2, 5, 6, 12, 15, 16, 33, 35, 43, 48, 64, 65, 255, 256, 257, 999, 0, 41, 249, 251, 252, 253]
FLAGS = [0x0100, 0x0100, 0x0120, 0x0130, 0x0000, 0x0010]
ODD_FLAGS = [0x8100, 0x2800, 0x2000, 0x0900, 0x7900, 0x0300, 0x0580, 0x0140]


def name_wire(text: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in text.split(".") if label) + b"\0"


def opt(rng: random.Random) -> bytes:
    options = b""
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        cookie = struct.pack("!HH", 10, length := rng.choice((8, 8, 24, 16, 40, 7, 0, 41))) + rng.randbytes(length)
        other = struct.pack("!HH", code := rng.choice((3, 8, 11, 12, 65001)), length := rng.randrange(6))
        options += rng.choice((cookie, other + rng.randbytes(length) if code else b""))
    version = rng.choice((0, 0, 0, 0, 1))
    flags = rng.choice((0, 0x8000, 0x8000, 0x4000))
    return struct.pack(
        "!BHHBBHH", 0, 41, rng.choice((512, 1232, 4096, 0, 65535)), 0, version, flags, len(options)
    ) + options  # fmt: skip


def query(rng: random.Random, *, broken: float = 0.2) -> bytes:
    """One query; with this probability something of it is not as it should be."""
    text = rng.choice(STEMS)
    if rng.random() < 0.6:
        text = "".join(rng.choice((c.lower(), c.upper())) for c in text)
    qclass = 1 if rng.random() < 0.95 else rng.choice((3, 254, 255, 0))
    edns = opt(rng) if rng.random() < 0.5 else b""
    flags = rng.choice(FLAGS if rng.random() < 0.95 else ODD_FLAGS)
    message = (
        struct.pack("!6H", rng.getrandbits(16), flags, 1, 0, 0, 1 if edns else 0)
        + name_wire(text)
        + struct.pack("!HH", rng.choice(TYPES), qclass)
        + edns
    )
    return damaged(message, rng) if rng.random() < broken else message


def damaged(message: bytes, rng: random.Random) -> bytes:
    """Some bytes other, some missing, some too many."""
    changed = bytearray(message)
    for _ in range(rng.randrange(4)):
        changed[rng.randrange(len(changed))] = rng.choice((0, 0xC0, 0xFF, 0x40, 1, rng.getrandbits(8)))
    if rng.random() < 0.4:
        del changed[rng.randrange(len(changed)) :]
    if rng.random() < 0.3:
        changed += rng.randbytes(rng.randrange(1, 30))
    return bytes(changed)
