"""Which zones are online, and what of them is on record. Pure: times are arguments.

A zone is online only while its transport answers and nothing sent to it or by it stays unacknowledged (promise P8).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from meshd.discovery.messages import Json
from meshd.discovery.sender import Waiting
from meshd.kinds.zone_insight import (
    EnvoyAdminStreams,
    HealthCheck,
    KdsServiceStats,
    KdsStream,
    KdsStreams,
    KdsSubscription,
    KdsSubscriptionStatus,
    KumaCpVersion,
    Version,
    ZoneInsight,
)

UNACKNOWLEDGED_S = 10.0
"""A stream on which something waits longer for its answer is cut, and the zone is offline."""
KEPT_SUBSCRIPTIONS = 10
"""As many of a zone's past connections are kept on record (Kuma's default)."""

GLOBAL_TO_ZONE, ZONE_TO_GLOBAL = "global_to_zone", "zone_to_global"
ADMIN_STREAMS = ("config_dump", "stats", "clusters")
"""The streams of a zone, as KdsStreams names them."""

MAX_WORD = 128
"""Characters of a name or version that a peer says of itself: it is stored, logged and shown."""
MAX_CONFIG = 64 * 1024
"""Characters of a peer's configuration; a Kuma zone's has about 20,000. What is longer is not kept: ten are stored."""


@dataclass(frozen=True, slots=True)
class ZoneState:
    """A zone as the global sees it now. ``reason`` says why it is offline; empty while it is online."""

    name: str
    online: bool
    since: datetime
    reason: str = ""
    address: str = ""
    instance_id: str = ""
    authenticated: bool = False


@dataclass(slots=True)
class Counts:
    """Responses of one kind on one stream."""

    sent: int = 0
    acknowledged: int = 0
    rejected: int = 0

    def stats(self) -> KdsServiceStats:
        """As a part of a ZoneInsight."""
        return KdsServiceStats(
            responses_sent=self.sent, responses_acknowledged=self.acknowledged, responses_rejected=self.rejected
        )


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a control plane says about itself in the metadata of its first request; nothing of it is proven."""

    instance_id: str
    features: frozenset[str]
    version: Version
    config: str = field(repr=False)


def introduction(metadata: Mapping[str, Json]) -> Introduction:
    """Read a node's metadata; what is missing or of a wrong type counts as empty."""
    features = metadata.get("features")
    version = metadata.get("version")
    build = version.get("kumaCp") if isinstance(version, dict) else None
    config = text(metadata.get("config"))
    return Introduction(
        instance_id=word(metadata.get("control-plane-id")),
        features=frozenset(f for f in features if isinstance(f, str)) if isinstance(features, list) else frozenset(),
        version=version_of(build if isinstance(build, dict) else {}),
        config=config if len(config) <= MAX_CONFIG else "",
    )


def version_of(build: Mapping[str, Json]) -> Version:
    """The version in a node's metadata."""
    return Version(
        kuma_cp=KumaCpVersion(
            version=word(build.get("version")),
            git_tag=word(build.get("gitTag")),
            git_commit=word(build.get("gitCommit")),
            build_date=word(build.get("buildDate")),
        )
    )


def text(value: Json) -> str:
    """The value if it is a string."""
    return value if isinstance(value, str) else ""


def word(value: Json) -> str:
    """The value if it is a string that fits into a line of a log; else it counts as empty."""
    said = text(value)
    return said if len(said) <= MAX_WORD and said.isprintable() else ""


def overdue(waiting: Mapping[str, Waiting], now: float, limit_s: float = UNACKNOWLEDGED_S) -> str:
    """The kind whose oldest unanswered response is over the limit, empty if there is none."""
    # As who waits for it computes it: a sum and a difference of floats differ, and the wait would be over too early.
    late = [(w.since, kind) for kind, w in waiting.items() if now >= w.since + limit_s]
    return min(late)[1] if late else ""


def status_of(counts: Mapping[str, Counts], at: datetime) -> KdsSubscriptionStatus:
    """The counts of a stream as a part of a ZoneInsight."""
    total = Counts(
        sum(c.sent for c in counts.values()),
        sum(c.acknowledged for c in counts.values()),
        sum(c.rejected for c in counts.values()),
    )
    stat = {kind: counts[kind].stats() for kind in sorted(counts)}
    return KdsSubscriptionStatus(last_update_time=at, total=total.stats(), stat=stat)


def with_subscription(insight: ZoneInsight, newest: KdsSubscription) -> ZoneInsight:
    """The insight with ``newest`` added, or in the place of the one with its id; others that are open are closed."""
    others = [closed(s, newest.connect_time) for s in insight.subscriptions if s.id != newest.id]
    return insight.model_copy(update={"subscriptions": (*others, newest)[-KEPT_SUBSCRIPTIONS:]})


def closed(subscription: KdsSubscription, at: datetime | None) -> KdsSubscription:
    """The subscription, ended at ``at`` if it was still open."""
    return subscription.model_copy(update={"disconnect_time": at}) if subscription.is_open else subscription


def all_closed(insight: ZoneInsight, at: datetime) -> ZoneInsight:
    """The insight of a zone that is offline for sure: a global that starts has no connections yet."""
    return insight.model_copy(update={"subscriptions": tuple(closed(s, at) for s in insight.subscriptions)})


def with_streams(insight: ZoneInsight, instance_id: str, opened: Mapping[str, datetime]) -> ZoneInsight:
    """The insight with the streams that are open, as KdsStreams names them, and since when.

    The deprecated record of the three admin streams says the same of them: a Kuma global reads it.
    """
    streams = {name: KdsStream(global_instance_id=instance_id, connect_time=at) for name, at in opened.items()}
    admin = {f"{name}_global_instance_id": instance_id for name in ADMIN_STREAMS if name in opened}
    return insight.model_copy(
        update={
            "kds_streams": KdsStreams(**streams),
            "envoy_admin_streams": EnvoyAdminStreams(**admin) if admin else None,
        }
    )


def with_health_check(insight: ZoneInsight, at: datetime | None) -> ZoneInsight:
    """The insight with the time of the zone's last health check."""
    return insight if at is None else insight.model_copy(update={"health_check": HealthCheck(time=at)})
