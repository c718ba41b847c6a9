"""ZoneInsight: what the global saw of a zone."""

from collections.abc import Mapping

from meshd.model.fields import Timestamp, UInt32, UInt64
from meshd.model.resource import Spec


class KdsServiceStats(Spec):
    """Counts of one kind (or all)."""

    responses_sent: UInt64 = 0
    responses_acknowledged: UInt64 = 0
    responses_rejected: UInt64 = 0


class KdsSubscriptionStatus(Spec):
    """Counts of one stream, by kind in ``stat``."""

    last_update_time: Timestamp | None = None
    total: KdsServiceStats | None = None
    stat: Mapping[str, KdsServiceStats] = {}


class KumaCpVersion(Spec):
    """A control plane's build."""

    version: str = ""
    git_tag: str = ""
    git_commit: str = ""
    build_date: str = ""
    kuma_cp_global_compatible: bool = False


class Version(Spec):
    """What runs in the zone."""

    kuma_cp: KumaCpVersion | None = None


class KdsSubscription(Spec):
    """One KDS stream of the zone: open while it has ``connect_time`` and no ``disconnect_time``."""

    id: str = ""
    global_instance_id: str = ""
    connect_time: Timestamp | None = None
    disconnect_time: Timestamp | None = None
    status: KdsSubscriptionStatus | None = None
    version: Version | None = None
    generation: UInt32 = 0
    config: str = ""
    auth_token_provided: bool = False
    zone_instance_id: str = ""

    @property
    def is_open(self) -> bool:
        """Whether the stream still is."""
        return self.connect_time is not None and self.disconnect_time is None


class EnvoyAdminStreams(Spec):
    """Which replica of the global holds each admin stream (deprecated)."""

    config_dump_global_instance_id: str = ""
    stats_global_instance_id: str = ""
    clusters_global_instance_id: str = ""


class KdsStream(Spec):
    """Which replica of the global holds a stream."""

    global_instance_id: str = ""
    connect_time: Timestamp | None = None


class KdsStreams(Spec):
    """The zone's streams."""

    clusters: KdsStream | None = None
    config_dump: KdsStream | None = None
    stats: KdsStream | None = None
    global_to_zone: KdsStream | None = None
    zone_to_global: KdsStream | None = None


class HealthCheck(Spec):
    """When the zone last sent its application level ping."""

    time: Timestamp | None = None


class ZoneInsight(Spec):
    """See the module."""

    subscriptions: tuple[KdsSubscription, ...] = ()
    envoy_admin_streams: EnvoyAdminStreams | None = None
    health_check: HealthCheck | None = None
    kds_streams: KdsStreams | None = None

    @property
    def is_online(self) -> bool:
        """Whether any stream is open."""
        return any(s.is_open for s in self.subscriptions)
