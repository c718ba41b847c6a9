"""Names of resources on the other side of the border.

Source: Kuma ``pkg/kds/hash/hash.go`` (behaviour); vectors in reference/kds.md 5.2.
"""

from collections.abc import Mapping

from meshd.model import labels as label
from meshd.model.resource import ResourceKey

FNV64_OFFSET = 0xCBF29CE484222325
FNV64_PRIME = 0x100000001B3
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' alphabet of generated names: no vowels, no look-alikes."""
SAFE = {digit: ALPHABET[ord(digit) % len(ALPHABET)] for digit in "0123456789abcdef"}
"""What each hex digit becomes; 0 and f both become 4, and it must stay so."""
MAX_DISPLAY_BYTES = 236
"""What of the name is kept, so that dash and hash fit into 253 characters."""

MAX_MESH = 63
"""Characters of a mesh's name."""


def hashed_name(mesh: str, display_name: str, labels: Mapping[str, str]) -> str:
    """The name of a resource once it crossed: its display name and a hash of mesh, name, zone and namespace.

    ``mesh`` is empty for global scope. ``labels`` are those after the crossing: the zone and namespace in them count.
    """
    extra = [labels[key] for key in (label.ZONE, label.NAMESPACE) if key in labels]
    digest = fnv64a("".join([mesh, display_name, *extra]).encode())
    suffix = "".join(SAFE[digit] for digit in f"{digest:016x}")
    kept = display_name.encode()[:MAX_DISPLAY_BYTES].decode(errors="ignore")
    return f"{kept}-{suffix}"


def fnv64a(data: bytes) -> int:
    """The 64-bit FNV-1a hash."""
    value = FNV64_OFFSET
    for byte in data:
        value = (value ^ byte) * FNV64_PRIME & 0xFFFFFFFFFFFFFFFF
    return value


def wire_name(key: ResourceKey) -> str:
    """How discovery messages name a resource: ``<name>.<mesh>``, so one of global scope ends with a dot."""
    return f"{key.name}.{key.mesh}"


def key_of(kind: str, name: str) -> ResourceKey:
    """The key behind a name in a discovery message: split at the last dot, as Kuma does."""
    left, dot, right = name.rpartition(".")
    return ResourceKey(kind, right, left) if dot else ResourceKey(kind, "", name)


def keys_of(kind: str, name: str) -> tuple[ResourceKey, ...]:
    """Every key that a name in a discovery message may stand for, ``key_of`` first: a mesh's name may have dots."""
    last = key_of(kind, name)
    if not last.mesh:
        return (last,)
    shorter = [at for at in range(len(last.name) - 1, 0, -1) if name[at] == "." and len(name) - at <= MAX_MESH + 1]
    return (last, *(ResourceKey(kind, name[at + 1 :], name[:at]) for at in shorter))
