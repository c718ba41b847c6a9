"""What the two ends of a delta discovery stream exchange, without its wire form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

Json = Union[None, bool, float, str, list["Json"], dict[str, "Json"]]  # noqa: UP007 a recursive alias needs strings
"""A value of ``google.protobuf.Struct``: numbers are floats there."""

WILDCARD = "*"


@dataclass(frozen=True, slots=True)
class Node:
    """Who is asking. ``metadata`` is on the first request of a stream only; a later one may carry the id alone."""

    id: str
    cluster: str = ""
    metadata: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a response was not applied (``google.rpc.Status``; KDS peers leave ``code`` at 0)."""

    message: str
    code: int = 0


@dataclass(frozen=True, slots=True)
class DeltaRequest:
    """A subscription, an acknowledgement, or both.

    ``nonce`` answers the response that carried it: with ``error`` it is a NACK, without an ACK. Empty: only a
    subscription. ``initial_versions`` is what the asking end still holds from an earlier stream.
    """

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: Rejection | None = None
    node: Node | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One resource of a response. ``body`` is an encoded ``google.protobuf.Any``; equal versions are equal bodies.

    ``frame`` and ``digest`` are made of it by ``wire`` and ``sotw`` when they are first needed: an entry is sent to
    many.
    """

    name: str
    version: str
    body: bytes
    frame: tuple[bytes, bytes] | None = field(default=None, init=False, repr=False, compare=False)
    digest: int = field(default=0, init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class DeltaResponse:
    """Added or changed resources and the names of removed ones. ``control_plane`` identifies the sending end.

    ``version`` is what the sending end says of all of the type that the other end has after this response; it may be
    empty.
    """

    type_url: str
    resources: tuple[Entry, ...] = ()
    removed: tuple[str, ...] = ()
    nonce: str = ""
    control_plane: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class StateRequest:
    """A state-of-the-world request: all ``names`` that are wanted now (none: all there are, or none).

    ``nonce`` and ``error`` answer a response as in ``DeltaRequest``; ``version`` is the one that was applied last.
    """

    type_url: str
    names: tuple[str, ...] = ()
    version: str = ""
    nonce: str = ""
    error: Rejection | None = None
    node: Node | None = None


@dataclass(frozen=True, slots=True)
class StateResponse:
    """All resources of a type if it is asked for as a whole, otherwise some of those that were named."""

    type_url: str
    version: str
    resources: tuple[Entry, ...] = ()
    nonce: str = ""
    control_plane: str = ""
