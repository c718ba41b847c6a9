"""What policies may change in a proxy's resources: drafts, which are documents not encoded yet, and the hooks.

The renderer makes a draft, calls the hooks of every policy in the order in which policies take effect, and encodes it.
A hook gets the policies of its kind that match the proxy (``outbound`` side: ``rules.match.of_proxy``) or the inbound
(``rules.match.of_inbound``), least specific first, possibly none: defaults of the code are the hook's to set.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshd.kinds.dataplane import Inbound
from meshd.model.resource import Resource
from meshd.xds.encode import Document

HTTP_PROTOCOLS = frozenset({"http", "http2", "grpc"})


@dataclass(frozen=True, slots=True)
class Destination:
    """What an outbound leads to: a ``kuma.io/service`` of a mesh, or an external service.

    ``protocol`` is the common one of its instances. ``tags`` are the ones an outbound asked for besides the service.
    """

    mesh: str
    service: str
    protocol: str
    is_external: bool = False
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def speaks_http(self) -> bool:
        """Whether requests can be told apart."""
        return self.protocol in HTTP_PROTOCOLS


@dataclass(frozen=True, slots=True)
class Backend:
    """A share of a route's traffic: a service, or its instances with ``tags``; ``weight`` relative to the others."""

    service: str
    weight: int = 1
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class HttpRoute:
    """One route of an outbound, most specific first in its list.

    ``match`` is Envoy's RouteMatch. ``action`` is what a route has besides its clusters: fields of Envoy's Route
    (``requestHeadersToAdd``, ``redirect``, ``directResponse``, ``route`` with rewrites and mirrors, whose clusters are
    named in ``mirrors`` as backends, in the order of ``route.requestMirrorPolicies``, and filled in by the renderer).
    ``backends`` empty: a redirect or direct response, or nothing is left that can be reached (500). ``origins`` are
    the MeshHTTPRoute resources it was made from, least specific first.
    """

    name: str
    match: Document
    backends: tuple[Backend, ...]
    action: Document = field(default_factory=dict)
    mirrors: tuple[Backend, ...] = ()
    origins: tuple[Resource, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """What the route policies make of a destination: ``http`` for one that speaks HTTP, ``tcp`` shares otherwise.

    None: nothing was said; all traffic goes to the destination itself.
    """

    http: tuple[HttpRoute, ...] | None = None
    tcp: tuple[Backend, ...] | None = None


@dataclass(slots=True)
class ClusterDraft:
    """An outbound cluster (``envoy.config.cluster.v3.Cluster``) of one destination; ``protocol`` is its own."""

    destination: Destination
    document: Document


@dataclass(slots=True)
class RouteDraft:
    """One route of an outbound listener (``envoy.config.route.v3.Route``)."""

    document: Document
    origins: tuple[Resource, ...] = ()


@dataclass(slots=True)
class OutboundDraft:
    """An outbound listener. ``hcm`` (with ``routes``, in order) or ``tcp`` is its one network filter's config.

    ``hcm["routeConfig"]["virtualHosts"][0]["routes"]`` is filled from ``routes`` after the hooks.
    """

    destination: Destination
    listener: Document
    hcm: Document | None = None
    tcp: Document | None = None
    routes: list[RouteDraft] = field(default_factory=list)


@dataclass(slots=True)
class ChainDraft:
    """A filter chain of an inbound listener. ``is_mtls``: its clients have shown a certificate of the mesh.

    ``filters`` are network filters before the last one, which is ``hcm`` or ``tcp``.
    """

    document: Document
    is_mtls: bool
    hcm: Document | None = None
    tcp: Document | None = None
    filters: list[Document] = field(default_factory=list)


@dataclass(slots=True)
class InboundDraft:
    """An inbound of a Dataplane: its listener, the chains of it, and the cluster of the application.

    ``has_mtls``: the mesh has it. At a zone egress ``dataplane`` is None and ``inbound`` has the external service's
    tags only.
    """

    mesh: str
    dataplane: Resource | None
    inbound: Inbound
    protocol: str
    has_mtls: bool
    listener: Document
    cluster: Document
    chains: list[ChainDraft] = field(default_factory=list)


class Shaper:
    """The hooks of one policy, each of which does nothing unless a policy says otherwise. Pure but for the draft."""

    def routes(
        self, matched: Sequence[Resource], destination: Destination, protocols: Mapping[str, str]
    ) -> Routes | None:
        """What becomes of traffic to ``destination``; ``protocols`` are those of all services of the mesh."""
        del matched, destination, protocols
        return None

    def subsets(self, policies: Sequence[Resource]) -> Iterable[tuple[str, tuple[tuple[str, str], ...]]]:
        """The (service, sorted tags) pairs that any policy of a mesh sends traffic to, for ingresses and egresses."""
        del policies
        return ()

    def cluster(self, draft: ClusterDraft, matched: Sequence[Resource]) -> None:
        """Change an outbound cluster."""

    def outbound(self, draft: OutboundDraft, matched: Sequence[Resource]) -> None:
        """Change an outbound listener."""

    def inbound(self, draft: InboundDraft, matched: Sequence[Resource]) -> None:
        """Change an inbound."""

    def idle(self, policy: Resource, *, has_mtls: bool) -> str:
        """Why a policy about an inbound does not do there what its author must expect, in words; "" if it does."""
        del policy, has_mtls
        return ""


def http_filter(draft_hcm: Document, filter_: Document) -> None:
    """Add an HTTP filter as the first of a connection manager."""
    filters: list[Any] = draft_hcm["httpFilters"]
    filters.insert(0, filter_)
