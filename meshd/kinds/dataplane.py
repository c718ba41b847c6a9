"""Dataplane: one instance of one or more services, or a gateway."""

import enum

from meshd.model import labels as label
from meshd.model.fields import NO_TAGS, Duration, Struct, Tags, UInt32
from meshd.model.resource import Spec


class InboundState(enum.StrEnum):
    """Whether traffic may be sent to an inbound."""

    READY = "Ready"
    NOT_READY = "NotReady"
    IGNORED = "Ignored"


class ListenerState(enum.StrEnum):
    """Whether traffic may be sent to an embedded zone proxy listener."""

    READY = "Ready"
    NOT_READY = "NotReady"


class ListenerType(enum.StrEnum):
    """Which zone proxy a listener embeds."""

    UNSPECIFIED = "Unspecified"
    ZONE_INGRESS = "ZoneIngress"
    ZONE_EGRESS = "ZoneEgress"


class GatewayType(enum.StrEnum):
    """Whose gateway it is: some other proxy beside ours, or ours."""

    DELEGATED = "DELEGATED"
    BUILTIN = "BUILTIN"


class IpFamilyMode(enum.StrEnum):
    """Which IP families transparent proxying redirects."""

    UNSPECIFIED = "UnSpecified"
    DUAL_STACK = "DualStack"
    IPV4 = "IPv4"
    IPV6 = "IPv6"


class EnvoyAdmin(Spec):
    """``port`` of Envoy's admin API on loopback, 0 for none."""

    port: UInt32 = 0


class MetricsBackend(Spec):
    """``type`` is "prometheus"; ``conf`` is that type's own."""

    name: str = ""
    type: str = ""
    conf: Struct | None = None


class Health(Spec):
    """Deprecated by ``state``, still written by older zones."""

    ready: bool = False


class Tcp(Spec):
    """Nothing but its presence: probe by connecting."""


class ServiceProbe(Spec):
    """How the proxy probes its own application."""

    interval: Duration | None = None
    timeout: Duration | None = None
    unhealthy_threshold: UInt32 | None = None
    healthy_threshold: UInt32 | None = None
    tcp: Tcp | None = None


class Inbound(Spec):
    """A port of the application that peers may reach through the proxy.

    ``address`` empty means the Dataplane's, ``service_address`` empty (where the application listens) the inbound's
    own; ``service_port`` 0 means ``port``.
    """

    port: UInt32 = 0
    service_port: UInt32 = 0
    service_address: str = ""
    address: str = ""
    tags: Tags = NO_TAGS
    health: Health | None = None
    service_probe: ServiceProbe | None = None
    state: InboundState = InboundState.READY
    name: str = ""
    protocol: str = ""

    @property
    def service(self) -> str:
        """The ``kuma.io/service`` tag, empty if there is none."""
        return self.tags.get(label.SERVICE, "")

    @property
    def is_ready(self) -> bool:
        """Whether new connections may come here: state Ready and no deprecated health that says otherwise."""
        return self.state is InboundState.READY and (self.health is None or self.health.ready)

    @property
    def application_port(self) -> int:
        """Where the application listens."""
        return self.service_port or self.port


class BackendRef(Spec):
    """A destination of the MeshService family."""

    kind: str = ""
    name: str = ""
    port: UInt32 = 0
    labels: Tags = NO_TAGS


class Outbound(Spec):
    """A local port that leads to a service. ``address`` empty means 127.0.0.1."""

    address: str = ""
    port: UInt32 = 0
    tags: Tags = NO_TAGS
    backend_ref: BackendRef | None = None

    @property
    def service(self) -> str:
        """The ``kuma.io/service`` tag, empty if there is none."""
        return self.tags.get(label.SERVICE, "")


class Gateway(Spec):
    """Traffic from outside the mesh enters here; it has no inbounds."""

    tags: Tags = NO_TAGS
    type: GatewayType = GatewayType.DELEGATED


class ReachableBackendRef(Spec):
    """One destination that this proxy wants to know about."""

    kind: str = ""
    name: str = ""
    namespace: str = ""
    port: UInt32 | None = None
    labels: Tags = NO_TAGS


class ReachableBackends(Spec):
    """Destinations that this proxy wants to know about; present and empty means none."""

    refs: tuple[ReachableBackendRef, ...] = ()


class TransparentProxying(Spec):
    """The host redirects traffic to the proxy."""

    redirect_port_inbound: UInt32 = 0
    redirect_port_outbound: UInt32 = 0
    direct_access_services: tuple[str, ...] = ()
    reachable_services: tuple[str, ...] = ()
    ip_family_mode: IpFamilyMode = IpFamilyMode.UNSPECIFIED
    reachable_backends: ReachableBackends | None = None


class Listener(Spec):
    """A zone proxy embedded in this Dataplane (Kuma 2.14)."""

    type: ListenerType = ListenerType.UNSPECIFIED
    address: str = ""
    port: UInt32 = 0
    name: str = ""
    state: ListenerState = ListenerState.READY


class Networking(Spec):
    """Addresses and ports. ``address`` is where peers of the zone reach it unless ``advertised_address`` is set."""

    address: str = ""
    advertised_address: str = ""
    inbound: tuple[Inbound, ...] = ()
    outbound: tuple[Outbound, ...] = ()
    gateway: Gateway | None = None
    transparent_proxying: TransparentProxying | None = None
    admin: EnvoyAdmin | None = None
    listeners: tuple[Listener, ...] = ()


class ProbeEndpoint(Spec):
    """A virtual probe: ``path`` on the probe port stands for ``inbound_path`` on ``inbound_port``."""

    inbound_port: UInt32 = 0
    inbound_path: str = ""
    path: str = ""


class Probes(Spec):
    """Deprecated virtual probes."""

    port: UInt32 = 0
    endpoints: tuple[ProbeEndpoint, ...] = ()


class Dataplane(Spec):
    """See the module."""

    networking: Networking = Networking()
    metrics: MetricsBackend | None = None
    probes: Probes | None = None

    @property
    def is_gateway(self) -> bool:
        """Whether it is a gateway of either type."""
        return self.networking.gateway is not None

    def services(self) -> tuple[str, ...]:
        """Every ``kuma.io/service`` it offers or is, without repetition, in the order written."""
        gateway = self.networking.gateway
        tagged = [gateway.tags] if gateway else [i.tags for i in self.networking.inbound]
        return tuple(dict.fromkeys(t[label.SERVICE] for t in tagged if label.SERVICE in t))
