"""The routes of one proxy of the built-in engine, as one immutable value that the server swaps whole."""

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from meshd.ca.origination import Origination
from meshd.model.errors import Violation
from meshd.model.resource import Resource
from meshd.topology.subsets import narrowed
from meshd.topology.view import NO_GROUPS, Endpoint, Groups, MeshView, Reach


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a permit says of one client: ``rule`` names the policy that decided, for logs and counters.

    ``shadow_denied``: a rule in shadow mode would have refused it; it is let through and counted.
    """

    allowed: bool
    rule: str
    shadow_denied: bool = False


class Permit(Protocol):
    """Who may use one inbound; the policies provide it."""

    def decide(self, uris: Sequence[str]) -> Verdict:
        """Judge a client by all URI SANs of its certificate."""


PermitFor = Callable[[MeshView, Resource | None, Mapping[str, str], str], Permit]
"""Gives the permit of an inbound: (view, its Dataplane, its tags, its section: its name or else its port in digits).

For an external service at the egress: (view, None, its tags, ""). Of the view it reads the Mesh and the policies, so
that a permit is asked for again only when one of these changes.
"""


class TlsMode(enum.Enum):
    """What an inbound accepts."""

    NONE = "none"
    """Plaintext: the mesh has no enabled mTLS backend."""
    STRICT = "strict"
    """Mesh mTLS only."""
    PERMISSIVE = "permissive"
    """Mesh mTLS by its ALPN; everything else is passed on as it is, the application's own TLS too."""


class IdentityKey(NamedTuple):
    """Names a workload certificate: whose it is and the URIs it carries, the SPIFFE ones first."""

    mesh: str
    owner: str
    uris: tuple[str, ...]


class Path(NamedTuple):
    """One way to one service: what passive ejection is about. Zones behind one address stay two paths."""

    address: str
    port: int
    zone: str
    service: str


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Mesh mTLS towards a service: who we are, the SNI as sent, and the one URI the peer must carry."""

    identity: IdentityKey
    sni: bytes
    expected_uri: str


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an attempt may take before the next endpoint is tried, in seconds.

    ``handshake_s`` is the wait for the upstream's verified handshake, or at a passthrough for the first byte back.
    The last endpoint that is left gets ``patience_s`` instead, since there is nothing better to do than wait.
    """

    connect_s: float = 1.0
    handshake_s: float = 2.0
    patience_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """A destination and how to reach it.

    ``tls`` is for endpoints inside the mesh (None: plaintext, or a passthrough that carries the client's own TLS),
    ``origination`` for endpoints of reach EXTERNAL. ``endpoints`` are as in the view, weights and priorities included.
    ``refused`` says why nothing may be sent there, if so (an external service whose TLS material cannot be read).
    ``groups`` are the view's, where clients may ask for some of the instances; ``subset`` is what they asked for.
    """

    mesh: str
    name: str
    endpoints: tuple[Endpoint, ...]
    tls: ClientTls | None = None
    origination: Origination | None = None
    refused: str = ""
    timeouts: Timeouts = field(default_factory=Timeouts)
    groups: Groups = field(default_factory=lambda: NO_GROUPS)
    subset: tuple[tuple[str, str], ...] = ()

    def narrowed(self, tags: Mapping[str, str]) -> "Cluster":
        """To the instances with these tags, of any case, as they come in an SNI."""
        endpoints = narrowed(self.endpoints, self.groups, tags, any_case=True)
        return replace(self, endpoints=endpoints, subset=tuple(sorted(tags.items())))

    def path(self, endpoint: Endpoint) -> Path:
        """What ejection of ``endpoint`` is kept under."""
        return Path(endpoint.address, endpoint.port, endpoint.zone, f"{self.mesh}/{self.name}")


@dataclass(frozen=True, slots=True)
class InboundListener:
    """Takes the connections of other services and passes them to the application at ``application``."""

    address: str
    port: int
    mesh: str
    service: str
    tls: TlsMode
    identity: IdentityKey | None
    permit: Permit | None
    application: tuple[str, int]


@dataclass(frozen=True, slots=True)
class OutboundListener:
    """Takes the local application's connections to one service."""

    address: str
    port: int
    cluster: Cluster


@dataclass(frozen=True, slots=True)
class VipListener:
    """One port on which every VIP of the host listens: ``clusters`` by VIP in dotted form.

    ``own_sockets``: a socket for each VIP instead of one for all addresses of the host, so that several zones can
    share a host (VIPs inside 127.0.0.0/8).
    """

    port: int
    clusters: Mapping[str, Cluster]
    own_sockets: bool = False


@dataclass(frozen=True, slots=True)
class ExternalRoute:
    """Where an egress ends mesh mTLS and goes out to an external service."""

    identity: IdentityKey
    permit: Permit
    cluster: Cluster


@dataclass(frozen=True, slots=True)
class SniListener:
    """The one port of a ZoneIngress or ZoneEgress: ``routes`` by SNI, lower case."""

    address: str
    port: int
    routes: Mapping[bytes, Cluster | ExternalRoute]

    def find(self, name: bytes) -> Cluster | ExternalRoute | None:
        """The route of an SNI in any case, or None.

        Kuma's subset names (``web{mesh=default,version=v1}``) go to the endpoints that lead to instances with these
        tags; one that no instance has is unknown.
        """
        wanted = name.lower()
        if (exact := self.routes.get(wanted)) is not None:
            return exact
        service, brace, inside = wanted.partition(b"{")
        if not brace or not inside.endswith(b"}"):
            return None
        tags = dict(part.partition("=")[::2] for part in inside[:-1].decode("latin1").split(","))
        route = self.routes.get(service + b"{mesh=" + tags.pop("mesh", "").encode("latin1") + b"}")
        if route is None:
            return None
        if isinstance(route, ExternalRoute):
            part = route.cluster.narrowed(tags)
            return replace(route, cluster=part) if part.endpoints else None
        part = route.narrowed(tags)
        return part if part.endpoints else None


Spec = InboundListener | OutboundListener | VipListener | SniListener


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Everything one proxy does. ``refused`` are the parts of its resource that it will not run, with the reason."""

    inbounds: tuple[InboundListener, ...] = ()
    outbounds: tuple[OutboundListener, ...] = ()
    vips: tuple[VipListener, ...] = ()
    sni: tuple[SniListener, ...] = ()
    refused: tuple[Violation, ...] = ()

    def identities(self) -> frozenset[IdentityKey]:
        """Every certificate that the table needs."""
        found = {i.identity for i in self.inbounds if i.identity is not None}
        found |= {r.identity for s in self.sni for r in s.routes.values() if isinstance(r, ExternalRoute)}
        newest: IdentityKey | None = None
        listeners: tuple[Spec, ...] = (*self.outbounds, *self.vips)
        for listener in listeners:
            for cluster in clusters_of(listener):
                # A thousand clusters share one: looking it up each time would cost more than all else here.
                if cluster.tls is not None and cluster.tls.identity is not newest:
                    newest = cluster.tls.identity
                    found.add(newest)
        return frozenset(found)

    def external_services(self) -> dict[tuple[str, str], str]:
        """Why each external service that is reached from here is refused, empty if it is not; by mesh and name."""
        listeners: tuple[Spec, ...] = (*self.outbounds, *self.vips, *self.sni)
        return {
            (cluster.mesh, cluster.name): cluster.refused
            for listener in listeners
            for cluster in clusters_of(listener)
            if cluster.endpoints and cluster.endpoints[0].reach is Reach.EXTERNAL
        }


EMPTY = RouteTable()


def kind_of(spec: Spec) -> str:
    """The word for a listener in names of counters."""
    return {InboundListener: "inbound", OutboundListener: "outbound", VipListener: "vip", SniListener: "sni"}[
        type(spec)
    ]


def clusters_of(spec: Spec) -> Iterable[Cluster]:
    """Every destination of a listener."""
    match spec:
        case InboundListener():
            return ()
        case OutboundListener():
            return (spec.cluster,)
        case VipListener():
            return tuple(spec.clusters.values())
        case SniListener():
            return tuple(r.cluster if isinstance(r, ExternalRoute) else r for r in spec.routes.values())


def permit_now(spec: Spec, sni: bytes) -> Permit | None:
    """The permit in force for a client that came by ``sni``."""
    match spec:
        case InboundListener():
            return spec.permit
        case SniListener():
            route = spec.find(sni)
            return route.permit if isinstance(route, ExternalRoute) else None
        case _:
            return None
