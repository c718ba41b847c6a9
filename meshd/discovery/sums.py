"""One number for a set of resources and their versions, which can be kept up as they change: the sum of their hashes.

Equal sums are equal sets, whatever the order.
"""

import hashlib

BYTES = 16
_MODULUS = 1 << 8 * BYTES


def of_one(name: str, version: str) -> int:
    """The hash of one resource, to be added and subtracted."""
    text = f"{len(name)}:{name}{version}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=BYTES).digest(), "big")


def shown(total: int) -> str:
    """A sum, whatever it has grown to, as 32 hex digits."""
    return f"{total % _MODULUS:0{2 * BYTES}x}"
