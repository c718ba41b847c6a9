"""ZoneEgress: the proxy through which a zone reaches other zones and external services."""

from meshd.kinds.dataplane import EnvoyAdmin
from meshd.model.fields import UInt32
from meshd.model.resource import Spec


class Networking(Spec):
    """Where the egress listens."""

    address: str = ""
    port: UInt32 = 0
    admin: EnvoyAdmin | None = None


class ZoneEgress(Spec):
    """``zone`` is filled by the control planes."""

    zone: str = ""
    networking: Networking = Networking()
