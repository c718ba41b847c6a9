"""MeshInsight: counts of what a mesh has; computed, never synced."""

from collections.abc import Mapping

from pydantic import Field

from meshd.model.fields import UInt32
from meshd.model.resource import Spec


class DataplaneStat(Spec):
    """Counts of Dataplanes."""

    total: UInt32 = 0
    online: UInt32 = 0
    offline: UInt32 = 0
    partially_degraded: UInt32 = 0


class PolicyStat(Spec):
    """How many of a policy."""

    total: UInt32 = 0


class ResourceStat(Spec):
    """How many of a kind."""

    total: UInt32 = 0


class DpVersions(Spec):
    """Dataplanes by version of their parts."""

    kuma_dp: Mapping[str, DataplaneStat] = {}
    envoy: Mapping[str, DataplaneStat] = {}


class Mtls(Spec):
    """Dataplanes by CA backend."""

    issued_backends: Mapping[str, DataplaneStat] = {}
    supported_backends: Mapping[str, DataplaneStat] = {}


class ServiceStat(Spec):
    """Counts of services."""

    total: UInt32 = 0
    internal: UInt32 = 0
    external: UInt32 = 0


class DataplanesByType(Spec):
    """Counts of Dataplanes by what they are."""

    standard: DataplaneStat | None = None
    gateway: DataplaneStat | None = None
    gateway_builtin: DataplaneStat | None = None
    gateway_delegated: DataplaneStat | None = None


class MeshInsight(Spec):
    """See the module."""

    dataplanes: DataplaneStat | None = None
    policies: Mapping[str, PolicyStat] = {}
    dp_versions: DpVersions | None = None
    mtls: Mtls | None = Field(default=None, alias="mTLS")
    services: ServiceStat | None = None
    dataplanes_by_type: DataplanesByType | None = None
    resources: Mapping[str, ResourceStat] = {}
