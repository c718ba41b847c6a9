"""The immutable view that dns, l4 and xds are rendered from."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import MappingProxyType

from meshd.model.resource import Resource


class Reach(enum.Enum):
    """What stands at an endpoint's address."""

    INSTANCE = "instance"
    """The inbound of a Dataplane of this zone."""
    INGRESS = "ingress"
    """A ZoneIngress of another zone: routes mesh TLS on by SNI."""
    EGRESS = "egress"
    """A ZoneEgress of this zone: routes mesh TLS on by SNI, or terminates it for an external service."""
    EXTERNAL = "external"
    """The real address of an external service, outside the mesh."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place a connection to a service may go.

    ``weight`` is relative within one service, >= 1 and already proportional to healthy instances (design section 6).
    ``priority`` 0 is best; a higher one is used only while no endpoint of a better one is alive. ``zone`` is where
    the instances are ("" for several zones behind an egress): two zones behind one address and port stay two
    endpoints. ``tags`` are those of the instances behind it, without those that differ among them.
    """

    address: str
    port: int
    zone: str
    weight: int
    priority: int
    reach: Reach
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Group:
    """The healthy instances of a service in one zone that have equal tags: a line of ``availableServices``."""

    tags: Mapping[str, str]
    instances: int


Groups = Mapping[str, tuple[Group, ...]]
"""By zone, in the order of their tags."""
NO_GROUPS: Groups = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A ``kuma.io/service`` value or an external service, with its endpoints by (priority, zone, address, port).

    ``protocol`` is the common denominator of its instances ("tcp" if unknown). ``local_instances`` counts the healthy
    local inbounds, ``remote_instances`` those that the other zones' ingresses report, by zone. ``external`` is the
    ExternalService resource behind it, if it is one. ``groups`` are what stands behind the endpoints that are gates;
    in ``ingress_services`` what this zone has, with zero for those of which no instance is healthy.
    ``subsets.narrowed`` gives the endpoints of some of the instances.
    """

    name: str
    protocol: str
    endpoints: tuple[Endpoint, ...]
    local_instances: int
    remote_instances: Mapping[str, int]
    external: Resource | None = None
    groups: Groups = field(default_factory=lambda: NO_GROUPS)


@dataclass(frozen=True, slots=True)
class Vip:
    """A virtual IP and what a connection to ``(address, port)`` of it reaches.

    ``ports`` maps a port to a service name: the service VIP port, and an external service's own port.
    ``names`` are the DNS names that resolve to it, lower case, without a trailing dot.
    """

    address: IPv4Address
    ports: Mapping[int, str]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BoundVips:
    """Where the owner of a host's VIPs takes connections now.

    ``everywhere`` are ports on which it listens on all addresses, ``single`` the VIPs, in dotted form, and ports that
    have a socket of their own.
    """

    everywhere: frozenset[int] = frozenset()
    single: frozenset[tuple[str, int]] = frozenset()

    def has(self, address: str, port: int) -> bool:
        """Whether a connection to this VIP and port is taken."""
        return port in self.everywhere or (address, port) in self.single

    def reach(self, vip: Vip) -> bool:
        """Whether connections to any port of a VIP are taken."""
        if not self.everywhere.isdisjoint(vip.ports):
            return True
        address = str(vip.address) if self.single else ""
        return any((address, port) in self.single for port in vip.ports)


@dataclass(frozen=True, slots=True)
class MeshView:
    """One mesh in one zone at one moment. ``version`` is a content hash: equal state gives an equal version.

    ``services`` and ``vips`` are keyed by service name; ``vips`` also has the hosts of external services, keyed by
    host. ``local_dataplanes`` are this zone's Dataplanes of the mesh by name. ``egress_services`` is what a ZoneEgress
    of this zone can reach: remote ingresses of the service (reach INGRESS) or an external service (reach EXTERNAL);
    ``ingress_services`` what a ZoneIngress of this zone can: local instances, or a local egress for external ones.
    ``mesh`` is the Mesh resource. ``policies`` are the mesh's policy resources by kind. ``reasons`` say, sorted, what
    of the mesh cannot be used and why (an ingress without an address, no egress to route through, a name taken).
    """

    mesh_name: str
    zone: str
    version: str
    mesh: Resource
    services: Mapping[str, ServiceView]
    egress_services: Mapping[str, ServiceView]
    ingress_services: Mapping[str, ServiceView]
    vips: Mapping[str, Vip]
    local_dataplanes: Mapping[str, Resource]
    policies: Mapping[str, tuple[Resource, ...]]
    reasons: tuple[str, ...] = ()
