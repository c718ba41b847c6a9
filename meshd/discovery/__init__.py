"""The delta discovery protocol as a pure machine: no I/O, no clock, blind to who is client and who is server.

- ``messages``: ``DeltaRequest`` and ``DeltaResponse``, what the two ends exchange; ``Node``, who is asking.
- ``sender``: ``Sender``, the end that owns resources: subscriptions, one unacknowledged response per type, coalescing.
- ``receiver``: ``Receiver``, the end that keeps copies: the first response is the complete state, then increments.
- ``wire``: those messages as protobuf bytes, joined by hand from ``fields``, since generated codecs are slow here.

KDS runs a ``Sender`` and a ``Receiver`` on each side of a zone border; xDS runs a ``Sender`` towards each Envoy.
"""

from meshd.discovery.messages import DeltaRequest, DeltaResponse, Entry, Json, Node, Rejection
from meshd.discovery.receiver import Received, Receiver
from meshd.discovery.sender import Answer, Resources, Sender, Waiting

__all__ = [
    "Answer",
    "DeltaRequest",
    "DeltaResponse",
    "Entry",
    "Json",
    "Node",
    "Received",
    "Receiver",
    "Rejection",
    "Resources",
    "Sender",
    "Waiting",
]
