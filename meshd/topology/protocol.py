"""The protocol of a service whose instances may say different things.

Source: Kuma ``pkg/core/metadata/protocol.go`` (behaviour, not code).
"""

from collections.abc import Mapping, Sequence

TCP = "tcp"
_STACKS: Mapping[str, tuple[str, ...]] = {
    "grpc": ("grpc", "http2", TCP),
    "http2": ("http2", TCP),
    "http": ("http", TCP),
    "kafka": ("kafka", TCP),
    "tls": (TCP,),
    TCP: (TCP,),
}
"""What each protocol also is, the most telling first."""


def common_protocol(protocols: Sequence[str]) -> str:
    """The most telling protocol that all instances speak; "tcp" if one says nothing, or something unknown."""
    distinct = list(dict.fromkeys(protocol.lower() for protocol in protocols))
    if len(distinct) == 1:
        return distinct[0] if distinct[0] in _STACKS else TCP
    stacks = [_STACKS.get(protocol, (TCP,)) for protocol in distinct]
    return next((p for p in stacks[0] if all(p in stack for stack in stacks)), TCP) if stacks else TCP
