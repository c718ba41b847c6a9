"""The delta discovery protocol as a pure machine: no I/O, no clock, blind to who is client and who is server.

- ``messages``: ``DeltaRequest`` and ``DeltaResponse``, what the two ends exchange; ``Node``, who is asking.
- ``sender``: ``Sender``, the end that owns resources: subscriptions, one unacknowledged response per type, coalescing.
- ``sotw``: ``StateOfTheWorld``, the same for the older form of the protocol, in which there are no increments.
- ``sums``: one number for a set of resources and their versions.
- ``isolation``: which resources of a rejected response are the bad ones.
- ``receiver``: ``Receiver``, the end that keeps copies: the first response is the complete state, then increments.
- ``wire``, ``state_wire``: those messages as protobuf bytes, joined by hand from ``fields``, since generated codecs are
  slow here.

KDS runs a ``Sender`` and a ``Receiver`` on each side of a zone border; xDS runs a ``Sender`` towards each Envoy.
"""

from meshd.discovery.isolation import Blame, Refused
from meshd.discovery.messages import (
    DeltaRequest,
    DeltaResponse,
    Entry,
    Json,
    Node,
    Rejection,
    StateRequest,
    StateResponse,
)
from meshd.discovery.receiver import Received, Receiver
from meshd.discovery.sender import Answer, Resources, Sender, Waiting
from meshd.discovery.sotw import StateOfTheWorld

__all__ = [
    "Answer",
    "Blame",
    "DeltaRequest",
    "DeltaResponse",
    "Entry",
    "Json",
    "Node",
    "Received",
    "Receiver",
    "Refused",
    "Rejection",
    "Resources",
    "Sender",
    "StateOfTheWorld",
    "StateRequest",
    "StateResponse",
    "Waiting",
]
