"""ZoneIngress: the proxy through which other zones reach the services of this one."""

from meshd.kinds.dataplane import EnvoyAdmin
from meshd.model.fields import NO_TAGS, Tags, UInt32
from meshd.model.resource import Spec


class Networking(Spec):
    """Where the ingress listens (``address``, ``port``) and where other zones reach it (``advertised_*``)."""

    address: str = ""
    advertised_address: str = ""
    port: UInt32 = 0
    advertised_port: UInt32 = 0
    admin: EnvoyAdmin | None = None


class AvailableService(Spec):
    """A set of equal instances behind the ingress: ``tags`` name the service, ``instances`` counts healthy ones."""

    tags: Tags = NO_TAGS
    instances: UInt32 = 0
    mesh: str = ""
    external_service: bool = False


class ZoneIngress(Spec):
    """``zone`` is empty in the zone that owns it and filled on its way; ``available_services`` is kept by the zone."""

    zone: str = ""
    networking: Networking = Networking()
    available_services: tuple[AvailableService, ...] = ()
