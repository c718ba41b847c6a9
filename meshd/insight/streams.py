"""The insight of a proxy that is connected by a stream: its subscription, its counts, what it refuses. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from pydantic import JsonValue

from meshd.insight.proxies import INSIGHTS, Insight, ended, insight_key, reported, with_subscriptions
from meshd.kinds.proxy_insights import (
    DiscoveryServiceStats,
    DiscoverySubscription,
    DiscoverySubscriptionStatus,
    Version,
)
from meshd.model.errors import Violation
from meshd.model.resource import Resource, ResourceKey

MAX_SUBSCRIPTIONS = 2
"""How many streams of a proxy are remembered (Kuma's default)."""
SHOWN = ("cds", "eds", "lds", "rds")
"""The types that have counts of their own; others are in the total only."""


@dataclass(slots=True)
class Counts:
    """Responses of one type on one stream."""

    sent: int = 0
    acknowledged: int = 0
    rejected: int = 0

    def stats(self) -> DiscoveryServiceStats:
        """As a part of an insight."""
        return DiscoveryServiceStats(
            responses_sent=self.sent, responses_acknowledged=self.acknowledged, responses_rejected=self.rejected
        )


@dataclass(eq=False, slots=True)
class Stream:
    """One proxy's stream, kept up to date by who serves it. ``counts`` are by "cds" and so on; "" for others.

    ``refused`` is what the proxy does not take, ``lacking`` what it is not given although its resource asks for it.
    ``unrendered`` is what could not be made for it, ``metadata`` what it says of itself. ``disconnected`` None: it is
    open.
    """

    proxy: ResourceKey
    id: str
    version: Version
    connected: datetime
    counts: dict[str, Counts] = field(default_factory=dict)
    refused: tuple[Violation, ...] = ()
    lacking: tuple[Violation, ...] = ()
    unrendered: tuple[Violation, ...] = ()
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    disconnected: datetime | None = None
    updated: datetime | None = None
    generation: int = 0

    @property
    def reasons(self) -> tuple[Violation, ...]:
        """Why its proxy is not, in any way, as its resource and the policies want it."""
        return (*self.lacking, *self.unrendered, *self.refused)

    def count(self, name: str) -> Counts:
        """The counts of a type."""
        return self.counts.setdefault(name, Counts())


def status_of(counts: Mapping[str, Counts], updated: datetime | None) -> DiscoverySubscriptionStatus:
    """The counts of a stream as a part of an insight."""
    total = Counts(
        sum(c.sent for c in counts.values()),
        sum(c.acknowledged for c in counts.values()),
        sum(c.rejected for c in counts.values()),
    )
    cds, eds, lds, rds = (counts.get(name, Counts()).stats() for name in SHOWN)
    return DiscoverySubscriptionStatus(
        last_update_time=updated, total=total.stats(), cds=cds, eds=eds, lds=lds, rds=rds
    )


def streaming(stream: Stream, stored: Resource | None, instance: str, also: tuple[Violation, ...] = ()) -> Resource:
    """The insight of a proxy with this stream; another one that was open has ended when this one began.

    ``also`` is what others say that the proxy does not do.
    """
    newest = DiscoverySubscription(
        id=stream.id,
        control_plane_instance_id=instance,
        connect_time=stream.connected,
        disconnect_time=stream.disconnected,
        status=status_of(stream.counts, stream.updated or stream.connected),
        version=stream.version,
        generation=stream.generation,
    )
    if stored is None:
        stored = Resource(insight_key(stream.proxy), INSIGHTS[stream.proxy.kind](), owner=stream.proxy)
    before = cast("Insight", stored.spec).subscriptions
    if any(s.id == stream.id for s in before):
        # A later stream may be there already, and is newer.
        subscriptions = tuple(newest if s.id == stream.id else s for s in before)
        is_newest = before[-1].id == stream.id
    else:
        others = cast("Insight", ended(stored, "", stream.connected).spec).subscriptions
        subscriptions, is_newest = (*others, newest)[-MAX_SUBSCRIPTIONS:], True
    shown = with_subscriptions(stored, subscriptions)
    return reported(shown, (*also, *stream.reasons), stream.metadata) if is_newest else shown


def touched(stream: Stream, now: datetime) -> None:
    """Something of a stream changed and is about to be written."""
    stream.updated = now
    stream.generation += 1
