"""DataplaneInsight, ZoneIngressInsight, ZoneEgressInsight: what the control plane saw of a proxy."""

from collections.abc import Mapping

from pydantic import Field

from meshd.model.fields import Struct, Timestamp, UInt32, UInt64
from meshd.model.resource import Spec


class DiscoveryServiceStats(Spec):
    """Counts of one xDS type (or all)."""

    responses_sent: UInt64 = 0
    responses_acknowledged: UInt64 = 0
    responses_rejected: UInt64 = 0


class DiscoverySubscriptionStatus(Spec):
    """Counts of one connection."""

    last_update_time: Timestamp | None = None
    total: DiscoveryServiceStats | None = None
    cds: DiscoveryServiceStats | None = None
    eds: DiscoveryServiceStats | None = None
    lds: DiscoveryServiceStats | None = None
    rds: DiscoveryServiceStats | None = None


class KumaDpVersion(Spec):
    """The proxy's manager."""

    version: str = ""
    git_tag: str = ""
    git_commit: str = ""
    build_date: str = ""
    kuma_cp_compatible: bool = False


class EnvoyVersion(Spec):
    """The proxy."""

    version: str = ""
    build: str = ""
    kuma_dp_compatible: bool = False


class Version(Spec):
    """What runs there."""

    kuma_dp: KumaDpVersion | None = None
    envoy: EnvoyVersion | None = None
    dependencies: Mapping[str, str] = {}


class DiscoverySubscription(Spec):
    """One connection of a proxy: open while it has ``connect_time`` and no ``disconnect_time``."""

    id: str = ""
    control_plane_instance_id: str = ""
    connect_time: Timestamp | None = None
    disconnect_time: Timestamp | None = None
    status: DiscoverySubscriptionStatus | None = None
    version: Version | None = None
    generation: UInt32 = 0

    @property
    def is_open(self) -> bool:
        """Whether the connection still is."""
        return self.connect_time is not None and self.disconnect_time is None


class Mtls(Spec):
    """The proxy's certificate."""

    certificate_expiration_time: Timestamp | None = None
    last_certificate_regeneration: Timestamp | None = None
    certificate_regenerations: UInt32 = 0
    issued_backend: str = ""
    supported_backends: tuple[str, ...] = ()


class Signal(Spec):
    """One signal of an OpenTelemetry backend."""

    enabled: bool = False
    env_allowed: bool = False
    env_input_present: bool = False
    state: str = ""
    override_kinds: tuple[str, ...] = ()
    missing_fields: tuple[str, ...] = ()
    blocked_reasons: tuple[str, ...] = ()


class OpenTelemetryBackend(Spec):
    """One OpenTelemetry backend as the proxy sees it."""

    name: str = ""
    traces: Signal | None = None
    logs: Signal | None = None
    metrics: Signal | None = None


class OpenTelemetry(Spec):
    """OpenTelemetry as the proxy sees it (Kuma 2.14)."""

    backends: tuple[OpenTelemetryBackend, ...] = ()


class _ProxyInsight(Spec):
    """What the three have in common."""

    subscriptions: tuple[DiscoverySubscription, ...] = ()
    metadata: Struct | None = None

    @property
    def is_online(self) -> bool:
        """Whether any connection is open."""
        return any(s.is_open for s in self.subscriptions)


class DataplaneInsight(_ProxyInsight):
    """See the module."""

    mtls: Mtls | None = Field(default=None, alias="mTLS")
    open_telemetry: OpenTelemetry | None = None


class ZoneIngressInsight(_ProxyInsight):
    """See the module."""


class ZoneEgressInsight(_ProxyInsight):
    """See the module."""
