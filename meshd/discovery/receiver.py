"""The end of a delta discovery stream that keeps copies of the other end's resources."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshd.discovery.messages import WILDCARD, DeltaRequest, DeltaResponse, Entry, Node, Rejection
from meshd.discovery.sender import Waiting


@dataclass(frozen=True, slots=True)
class Received:
    """One response to apply.

    ``complete``: it is everything of its type there is, so what it does not name is gone, and ``removed`` says
    nothing. Otherwise it is an increment; a name in both ``resources`` and ``removed`` counts as changed.
    """

    type_url: str
    complete: bool
    resources: tuple[Entry, ...]
    removed: tuple[str, ...]
    nonce: str
    control_plane: str
    version: str = ""


class Receiver:
    """One stream's requests and what is still to be answered. Every request carries the node, as Kuma peers need it."""

    def __init__(self, node: Node, types: Iterable[str]) -> None:
        self._node = node
        self._types = tuple(types)
        self._answered: set[str] = set()
        self._waiting: dict[str, Waiting] = {}

    def first_requests(self) -> tuple[DeltaRequest, ...]:
        """One wildcard subscription per type, with the node's metadata."""
        return tuple(DeltaRequest(t, subscribe=(WILDCARD,), node=self._node) for t in self._types)

    def receive(self, response: DeltaResponse, now: float) -> Received:
        """Take in one response; apply it, then send ``acknowledge`` or ``reject``.

        Raises:
            ValueError: a type that was not asked for, or a second response before the first was answered: the other
                end broke the protocol.
        """
        if response.type_url not in self._types:
            raise ValueError(f"a response of type {response.type_url!r}, which was not asked for")
        if response.type_url in self._waiting:
            raise ValueError(f"a second response of type {response.type_url!r} before the first was answered")
        self._waiting[response.type_url] = Waiting(response.nonce, now)
        return Received(
            type_url=response.type_url,
            complete=response.type_url not in self._answered,
            resources=response.resources,
            removed=response.removed,
            nonce=response.nonce,
            control_plane=response.control_plane,
            version=response.version,
        )

    def acknowledge(self, received: Received) -> DeltaRequest:
        """The ACK of a response that was applied."""
        self._settle(received)
        return DeltaRequest(received.type_url, nonce=received.nonce, node=Node(self._node.id))

    def reject(self, received: Received, message: str) -> DeltaRequest:
        """The NACK of a response of which something was not applied. Later responses are increments all the same."""
        self._settle(received)
        return DeltaRequest(
            received.type_url,
            subscribe=(WILDCARD,),
            nonce=received.nonce,
            error=Rejection(message),
            node=Node(self._node.id),
        )

    def _settle(self, received: Received) -> None:
        self._waiting.pop(received.type_url, None)
        self._answered.add(received.type_url)

    def unacknowledged(self) -> Mapping[str, Waiting]:
        """Every response that was received and is not answered yet, by type."""
        return dict(self._waiting)

    @property
    def complete_types(self) -> frozenset[str]:
        """The types whose first response was applied."""
        return frozenset(self._answered)
