"""Mesh: an isolated set of services with its own certificate authority."""

import enum

from meshd.kinds.dataplane import MetricsBackend
from meshd.model.fields import NO_TAGS, Duration, Struct, Tags
from meshd.model.resource import Spec


class Mode(enum.StrEnum):
    """Whether an inbound also takes plaintext."""

    STRICT = "STRICT"
    PERMISSIVE = "PERMISSIVE"


class MeshServicesMode(enum.StrEnum):
    """Whether MeshServices are generated and used."""

    DISABLED = "Disabled"
    EVERYWHERE = "Everywhere"
    REACHABLE_BACKENDS = "ReachableBackends"
    EXCLUSIVE = "Exclusive"


class Rotation(Spec):
    """``expiration`` of a workload certificate as a Go duration ("24h", "7d"), empty for the default."""

    expiration: str = ""


class DpCert(Spec):
    """Workload certificates of a backend."""

    rotation: Rotation = Rotation()
    request_timeout: Duration | None = None


class RootChain(Spec):
    """How long asking the backend for its root may take."""

    request_timeout: Duration | None = None


class CertificateAuthorityBackend(Spec):
    """A certificate authority; ``type`` is "builtin" or "provided" and ``conf`` that type's own."""

    name: str = ""
    type: str = ""
    dp_cert: DpCert = DpCert()
    conf: Struct | None = None
    mode: Mode = Mode.STRICT
    root_chain: RootChain | None = None


class Mtls(Spec):
    """mTLS is on when ``enabled_backend`` names one of ``backends``."""

    enabled_backend: str = ""
    backends: tuple[CertificateAuthorityBackend, ...] = ()
    skip_validation: bool = False


class TracingBackend(Spec):
    """A tracing backend of the legacy TrafficTrace."""

    name: str = ""
    sampling: float | None = None
    type: str = ""
    conf: Struct | None = None


class Tracing(Spec):
    """Tracing backends of the legacy TrafficTrace."""

    default_backend: str = ""
    backends: tuple[TracingBackend, ...] = ()


class LoggingBackend(Spec):
    """An access log backend of the legacy TrafficLog."""

    name: str = ""
    format: str = ""
    type: str = ""
    conf: Struct | None = None


class Logging(Spec):
    """Access log backends of the legacy TrafficLog."""

    default_backend: str = ""
    backends: tuple[LoggingBackend, ...] = ()


class Metrics(Spec):
    """Prometheus endpoints of proxies, the legacy way."""

    enabled_backend: str = ""
    backends: tuple[MetricsBackend, ...] = ()


class Outbound(Spec):
    """``passthrough``: whether proxies let traffic to unknown destinations out; absent means yes."""

    passthrough: bool | None = None


class Networking(Spec):
    """What leaves the mesh."""

    outbound: Outbound = Outbound()


class Routing(Spec):
    """How traffic crosses zones."""

    locality_aware_load_balancing: bool = False
    zone_egress: bool = False
    default_forbid_mesh_external_service_access: bool = False


class ConstraintRules(Spec):
    """A set of tags; value "*" matches any."""

    tags: Tags = NO_TAGS


class DataplaneProxyConstraints(Spec):
    """Which Dataplanes may join: one of ``requirements`` (if any) and none of ``restrictions``."""

    requirements: tuple[ConstraintRules, ...] = ()
    restrictions: tuple[ConstraintRules, ...] = ()


class Constraints(Spec):
    """Who may join the mesh."""

    dataplane_proxy: DataplaneProxyConstraints = DataplaneProxyConstraints()


class MeshServices(Spec):
    """The newer service model."""

    mode: MeshServicesMode = MeshServicesMode.DISABLED


class Mesh(Spec):
    """See the module."""

    mtls: Mtls = Mtls()
    tracing: Tracing = Tracing()
    logging: Logging = Logging()
    metrics: Metrics = Metrics()
    networking: Networking = Networking()
    routing: Routing = Routing()
    constraints: Constraints = Constraints()
    skip_creating_initial_policies: tuple[str, ...] = ()
    mesh_services: MeshServices = MeshServices()

    def enabled_backend(self) -> CertificateAuthorityBackend | None:
        """The certificate authority in force, or None when mTLS is off."""
        wanted = self.mtls.enabled_backend
        return next((b for b in self.mtls.backends if wanted and b.name == wanted), None)
