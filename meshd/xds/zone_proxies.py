"""All ZoneIngresses and ZoneEgresses that are connected: what they share, and the listener of each."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from meshd.ca.envoy_admin import server_tls
from meshd.ca.identity import egress_owner, egress_uris
from meshd.ca.x509 import KeyPair
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model import labels as label
from meshd.model.errors import Violation
from meshd.model.resource import Resource
from meshd.model.steps import Steps
from meshd.topology.view import MeshView
from meshd.xds.abilities import Abilities
from meshd.xds.admin import admin
from meshd.xds.clusters import AddressOf
from meshd.xds.external import ReadSource
from meshd.xds.identities import Identities
from meshd.xds.matched import Shapers, of_tags
from meshd.xds.proxies import Proxy, lacking_of
from meshd.xds.resources import Layer, XdsResource
from meshd.xds.shaping import InboundDraft
from meshd.xds.sni import SniRenderer, Subset
from meshd.xds.zone_egress import EgressRenderer
from meshd.xds.zone_ingress import IngressRenderer

Names = Mapping[str, Collection[str] | None]
"""Services by mesh; None: any of it."""


@dataclass(eq=False, slots=True)
class Shared:
    """A renderer that several proxies share; ``moved``: their listeners are to be made again.

    ``lacking`` are the services that could not be rendered, or to which nothing may be sent, and why.
    """

    renderer: SniRenderer
    moved: bool = True
    is_rendered: bool = False
    lacking: tuple[Violation, ...] = ()


@dataclass(eq=False, slots=True)
class ZoneProxies:
    """See the module. ``update`` first, then ``render`` each proxy."""

    zone: str
    shapers: Shapers
    read_source: ReadSource
    address_of: AddressOf
    _shared: dict[object, Shared] = field(default_factory=dict)
    _subsets: dict[str, tuple[object, object, frozenset[Subset]]] = field(default_factory=dict)

    def shared_by(self, kind: str, abilities: Abilities) -> Shared:
        """What a proxy shares with others; made when first asked for."""
        key = _key(kind, abilities)
        if key not in self._shared:
            made: SniRenderer
            if kind == "ZoneEgress":
                made = EgressRenderer(
                    self._shape, self.read_source, self.address_of, ipv6=abilities.ipv6, system_ca=abilities.system_ca
                )
            else:
                made = IngressRenderer(self.zone, self.address_of)
            self._shared[key] = Shared(made)
        return self._shared[key]

    def layer(self, kind: str, abilities: Abilities) -> Layer:
        """Clusters and endpoints of a proxy."""
        return self.shared_by(kind, abilities).renderer.layer

    def forget(self) -> None:
        """No proxy is connected: what is not kept up to date must not be shown to the next one."""
        self._shared.clear()

    def update(
        self,
        proxies: Iterable[tuple[str, Abilities]],
        views: Mapping[str, MeshView],
        ingress: Names,
        egress: Names,
    ) -> Steps[None]:
        """Bring what these proxies (kinds, abilities) share to ``views``, of all meshes; only these services changed.

        What no proxy shares any more is forgotten.
        """
        used = {_key(*proxy): self.shared_by(*proxy) for proxy in proxies}
        for key in self._shared.keys() - used.keys():
            del self._shared[key]
        for shared in used.values():
            subsets: dict[str, Collection[Subset]] = {}
            for mesh, view in views.items():
                subsets[mesh] = self._subsets_of(view)
                yield
            names = ingress if isinstance(shared.renderer, IngressRenderer) else egress
            changed = names if shared.is_rendered else None
            shared.moved = (yield from shared.renderer.update(views, changed, subsets)) or not shared.is_rendered
            shared.is_rendered = True
            shared.lacking = _lacking(shared.renderer)

    def identities(self, proxy: Resource, abilities: Abilities) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """The (mesh, owner, URIs) of the certificates that an egress needs; an ingress needs none."""
        renderer = self.shared_by(proxy.key.kind, abilities).renderer
        if isinstance(renderer, EgressRenderer):
            for mesh in sorted(renderer.secret_meshes):
                yield mesh, egress_owner(proxy.key.name), egress_uris(mesh)

    def render(self, proxy: Proxy, resource: Resource, identities: Identities, admin_ca: KeyPair | None) -> int:
        """Give a proxy what is its own: readiness, its listener, its certificates; returns what it is made of.

        See ``own_resources`` of Dataplanes for ``admin_ca``.
        """
        wanted = list(self.identities(resource, proxy.abilities))
        for mesh, owner, uris in wanted:
            identities.need(proxy, mesh, owner, uris)
        identities.keep(proxy, {mesh: owner for mesh, owner, _ in wanted})
        # Now, not at the end of the round: the listener and its certificates are to be of the same moment.
        identities.certify(proxy)
        listener = self.listener(resource, proxy.abilities, proxy.certified)
        host = cast("ZoneIngress | ZoneEgress", resource.spec).networking.address
        address = self.address_of(host)
        proxy.unlocated = (host,) if address is None else ()
        shown = server_tls(admin_ca, resource.key) if admin_ca is not None else None
        readiness = admin(address, proxy.abilities, shown) if address is not None else ()
        proxy.own.replace([*readiness, *([listener] if listener is not None else [])])
        return resource.version

    def listener(self, proxy: Resource, abilities: Abilities, certified: Collection[str]) -> XdsResource | None:
        """The listener of a proxy, which has certificates of the meshes ``certified``; None: it has none (yet)."""
        renderer = self.shared_by(proxy.key.kind, abilities).renderer
        if isinstance(renderer, EgressRenderer):
            return renderer.listener(proxy, abilities, certified)
        return cast("IngressRenderer", renderer).listener(proxy, abilities)

    def _shape(self, view: MeshView, draft: InboundDraft) -> None:
        of_tags(self.shapers, view.policies, draft.inbound.tags).inbound(draft)

    def _subsets_of(self, view: MeshView) -> frozenset[Subset]:
        """By which tags clients may narrow services: what routes say, and the outbounds of this zone."""
        known = self._subsets.get(view.mesh_name)
        if known is not None and known[0] is view.policies and known[1] is view.local_dataplanes:
            return known[2]
        routed = {pair for kind, shaper in self.shapers for pair in shaper.subsets(view.policies.get(kind, ()))}
        found = frozenset(routed.union(_narrowed(view.local_dataplanes.values())))
        if known is not None and known[2] == found:
            found = known[2]
        self._subsets[view.mesh_name] = (view.policies, view.local_dataplanes, found)
        return found


def _lacking(renderer: SniRenderer) -> tuple[Violation, ...]:
    failed = {key: f"cannot be rendered and stays as it is: {why}" for key, why in renderer.failed.items()}
    refused = renderer.refused if isinstance(renderer, EgressRenderer) else {}
    return lacking_of({f"mesh {mesh} service {name}": why for (mesh, name), why in {**refused, **failed}.items()})


def _key(kind: str, abilities: Abilities) -> tuple[object, ...]:
    return (kind, abilities.ipv6, abilities.system_ca) if kind == "ZoneEgress" else (kind,)


def _narrowed(dataplanes: Iterable[Resource]) -> Iterator[Subset]:
    for dataplane in dataplanes:
        for outbound in cast("Dataplane", dataplane.spec).networking.outbound:
            tags = tuple(sorted((k, v) for k, v in outbound.tags.items() if k not in (label.SERVICE, label.MESH)))
            if outbound.service and tags:
                yield outbound.service, tags
