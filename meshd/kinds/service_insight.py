"""ServiceInsight: how many Dataplanes each service of a mesh has and what they use; computed on the global."""

import enum
from collections.abc import Mapping

from meshd.model.fields import UInt32
from meshd.model.resource import Spec


class Status(enum.StrEnum):
    """How much of a service is up."""

    NONE = "none"
    OFFLINE = "offline"
    PARTIALLY_DEGRADED = "partially_degraded"
    ONLINE = "online"
    NOT_AVAILABLE = "not_available"


class ServiceType(enum.StrEnum):
    """What a service is."""

    INTERNAL = "internal"
    EXTERNAL = "external"
    GATEWAY_DELEGATED = "gateway_delegated"
    GATEWAY_BUILTIN = "gateway_builtin"


class DataplaneStat(Spec):
    """Counts of Dataplanes."""

    total: UInt32 = 0
    online: UInt32 = 0
    offline: UInt32 = 0


class Service(Spec):
    """One service; ``issued_backends`` counts Dataplanes by the CA backend of their certificate."""

    status: Status = Status.NONE
    dataplanes: DataplaneStat | None = None
    issued_backends: Mapping[str, UInt32] = {}
    service_type: ServiceType = ServiceType.INTERNAL
    address_port: str = ""
    zones: tuple[str, ...] = ()


class ServiceInsight(Spec):
    """``services`` by name."""

    services: Mapping[str, Service] = {}
