"""What was refused at the border: one bad resource stays out, visibly, and everything else goes on."""

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from meshd.model.resource import ResourceKey


class Direction(enum.Enum):
    """On which way a resource was refused, seen from the control plane that reports it."""

    RECEIVED = "received"
    """It came from the peer and we refused it."""
    SENT = "sent"
    """We could not send it, or the peer refused it."""


@dataclass(frozen=True, slots=True, order=True)
class Refusal:
    """One resource that did not pass. ``key.name`` is empty when the peer did not say which of the kind it refused."""

    key: ResourceKey
    reason: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A refusal as operators see it. ``zone`` is the zone at either end of the stream."""

    zone: str
    direction: Direction
    kind: str
    mesh: str
    name: str
    reason: str


Held = Mapping[tuple[str, Direction], Mapping[ResourceKey, str]]


def quarantined(held: Held) -> tuple[Quarantined, ...]:
    """Everything that is held, sorted."""
    return tuple(
        Quarantined(zone, direction, key.kind, key.mesh, key.name, reason)
        for (zone, direction), reasons in sorted(held.items(), key=lambda item: (item[0][0], item[0][1].value))
        for key, reason in sorted(reasons.items())
    )


def after_batch(
    before: Mapping[ResourceKey, str],
    kind: str,
    *,
    complete: bool,
    seen: Collection[ResourceKey],
    refused: Iterable[Refusal],
) -> dict[ResourceKey, str]:
    """What is held of one stream after a batch of ``kind`` that named ``seen`` and of which ``refused`` stayed out."""
    after = {
        key: reason
        for key, reason in before.items()
        if key.kind != kind or not (complete or key in seen or not key.name)
    }
    after.update((r.key, r.reason) for r in refused)
    return after
