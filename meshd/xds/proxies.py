"""One connected proxy and what it is to have: which layers, and what of them is its own. Pure but for its layers."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from meshd.ca.envoy_admin import server_tls
from meshd.ca.identity import Credentials, dataplane_uris
from meshd.ca.x509 import KeyPair
from meshd.kinds.dataplane import Dataplane, GatewayType
from meshd.kinds.mesh import CertificateAuthorityBackend, Mesh
from meshd.kinds.without_effect import NO_EFFECT
from meshd.model import labels as label
from meshd.model.errors import Violation
from meshd.model.resource import Resource, ResourceKey
from meshd.rules.match import without_effect
from meshd.topology.view import MeshView
from meshd.xds.abilities import Abilities
from meshd.xds.admin import admin
from meshd.xds.inbound import inbounds
from meshd.xds.matched import Matched, Shapers, of_inbound, of_proxy
from meshd.xds.outbound import Wanted
from meshd.xds.outbounds import Source, Vips
from meshd.xds.probes import probes
from meshd.xds.prometheus import prometheus
from meshd.xds.resolvers import ResolverKey
from meshd.xds.resources import Layer, ProxyFeed, XdsResource
from meshd.xds.secrets import secrets
from meshd.xds.shaping import InboundDraft
from meshd.xds.transparent import direct_access, passthrough

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class OutboundKey:
    """Which proxies share a layer of outbounds: those for which all of this is equal."""

    mesh: str
    source: Source
    policies: object
    binds: bool
    ipv6: bool
    system_ca: str


@dataclass(eq=False, slots=True)
class Proxy:
    """A proxy that is connected. ``own`` are its inbounds and the like, ``secrets`` what it shows and trusts.

    ``made_of`` is what ``own`` was last rendered from, so that it is rendered again only if that changed.
    ``identities`` are the owners of its certificates, by mesh; ``certified`` the meshes in which it shows one, a
    Dataplane since ``certified_at`` (trio time). At ``shown_by`` (trio time) it gets what there is although something
    of it is still to come. ``trouble`` is why it could not be rendered at last, ``unlocated`` the names for which it
    needs an address first, ``idle`` which policies about it have no effect and why.
    """

    key: ResourceKey
    abilities: Abilities
    shown_by: float = 0.0
    feed: ProxyFeed = field(default_factory=ProxyFeed)
    own: Layer = field(default_factory=Layer)
    secrets: Layer = field(default_factory=Layer)
    made_of: object = None
    outbound: OutboundKey | None = None
    resolver: ResolverKey | None = None
    identities: dict[str, str] = field(default_factory=dict)
    certified: frozenset[str] = frozenset()
    certified_at: float | None = None
    trouble: str = ""
    unlocated: tuple[str, ...] = ()
    idle: Mapping[str, str] = field(default_factory=dict)

    def certify(self, credentials: Mapping[str, Credentials]) -> None:
        """Show and trust this from now on, by mesh."""
        self.secrets.replace(secrets(credentials))
        self.certified = frozenset(mesh for mesh, found in credentials.items() if found.identity is not None)

    def lacking(self, unknown: Collection[str], *, waits: bool) -> tuple[Violation, ...]:
        """Why what is its own is not as its resource wants it.

        ``unknown`` are names that were looked up and have no address, ``waits`` says that a certificate is to come.
        """
        found = []
        if self.trouble:
            found.append(Violation("configuration", f"cannot be rendered and keeps what it has: {self.trouble}"))
        if unknown:
            why = f"no address is known of {', '.join(sorted(unknown))}; the proxy keeps what it has"
            found.append(Violation("networking", why))
        if waits and self.feed.ready:
            meshes = ", ".join(sorted(self.identities.keys() - self.certified))
            found.append(Violation("mtls", f"no certificate yet in mesh {meshes}; its connections there fail"))
        return (*found, *lacking_of(self.idle))


def own_resources(
    view: MeshView,
    dataplane: Resource,
    abilities: Abilities,
    shapers: Shapers,
    idle: dict[str, str],
    admin_ca: KeyPair | None,
    ending: CertificateAuthorityBackend | None = None,
) -> Iterator[XdsResource]:
    """What no other Dataplane has. ``ending``: what its inbounds still take in a mesh without mTLS (``turning``).

    ``admin_ca`` is that of the control plane's way to the admin API; without one there is no way. ``idle`` is filled
    with the policies about it that have no effect, and why.
    """
    mesh = cast("Mesh", view.mesh.spec)

    def shape(draft: InboundDraft) -> None:
        matched = of_inbound(shapers, view.policies, dataplane, draft.inbound)
        matched.inbound(draft)
        for policy, why in matched.idle(has_mtls=mesh.enabled_backend() is not None):
            idle[f"{policy.key.kind} {policy.display_name}"] = why

    for policy in without_effect(lambda kind: view.policies.get(kind, ()), dataplane):
        idle[f"{policy.key.kind} {policy.display_name}"] = NO_EFFECT
    shown = server_tls(admin_ca, dataplane.key) if admin_ca is not None else None
    yield from admin(cast("Dataplane", dataplane.spec).networking.address, abilities, shown)
    yield from inbounds(dataplane, mesh.enabled_backend() or ending, abilities, shape)
    yield from passthrough(mesh, dataplane, abilities)
    yield from direct_access(view, dataplane, abilities)
    yield from prometheus(mesh, dataplane, abilities)
    yield from probes(dataplane, abilities)


def basis(view: MeshView, dataplane: Resource, abilities: Abilities, admin_ca: KeyPair | None) -> tuple[object, ...]:
    """What ``own_resources`` depends on, to be compared."""
    said = cast("Dataplane", dataplane.spec).networking.transparent_proxying
    others = _Same(view.local_dataplanes) if said is not None and said.direct_access_services else None
    return (dataplane.key, dataplane.version, view.mesh.version, _Same(view.policies), others, abilities, admin_ca)


@dataclass(frozen=True, eq=False, slots=True)
class _Same:
    """Equal only to itself wrapped: views share what did not change."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def matched_outbound(view: MeshView, dataplane: Resource, shapers: Shapers) -> Matched:
    """The policies for what a Dataplane sends."""
    return of_proxy(shapers, view.policies, dataplane)


def source_of(dataplane: Resource, abilities: Abilities) -> Source:
    """Which outbounds a Dataplane has: the virtual IPs if its host redirects to it or it binds them, and its own list.

    With redirection the list counts for nothing: a port of loopback is not redirected (Kuma refuses both together).

    Source: reference/dataplane.md 3.6, 4.2.
    """
    networking = cast("Dataplane", dataplane.spec).networking
    found = (
        Wanted(
            o.address or LOOPBACK,
            o.port,
            o.service,
            tuple(sorted((k, v) for k, v in o.tags.items() if k not in (label.SERVICE, label.MESH))),
        )
        for o in networking.outbound
        if o.service
    )
    listed = tuple({(w.address, w.port): w for w in found}.values())
    is_redirected = abilities.redirect is not None and bool(abilities.redirect.outbound_port)
    if not abilities.bind_outbounds and not is_redirected:
        return listed
    said = networking.transparent_proxying
    reachable = said.reachable_services if said is not None else ()
    # An empty list cannot be told from none in what kuma-dp sends; Kuma takes it for all services, too.
    services = frozenset(reachable) if reachable and reachable != ("*",) else None
    return Vips(services, listed if abilities.bind_outbounds else ())


def lacking_of(reasons: Mapping[str, str]) -> tuple[Violation, ...]:
    """Why something is not as its authors want it, in an order of its own."""
    return tuple(Violation(field, why) for field, why in sorted(reasons.items()))


def uris_of(dataplane: Resource) -> tuple[str, ...]:
    """The identity of a Dataplane, none if it has no service."""
    try:
        return dataplane_uris(dataplane)
    except ValueError:
        return ()


def has_outbounds(view: MeshView, dataplane: Resource) -> bool:
    """Whether a Dataplane may send anything: in a mesh with mTLS it needs an identity to show."""
    return bool(uris_of(dataplane)) or cast("Mesh", view.mesh.spec).enabled_backend() is None


def refused_parts(dataplane: Resource, *, has_mtls: bool) -> tuple[str, ...]:
    """What of a Dataplane no Envoy of ours carries, in words."""
    networking = cast("Dataplane", dataplane.spec).networking
    found = []
    if networking.gateway is not None and networking.gateway.type is GatewayType.BUILTIN:
        found.append("networking.gateway: a builtin gateway is not available in this version of meshd")
    if networking.listeners:
        found.append("networking.listeners: embedded zone proxies need a ZoneIngress or ZoneEgress of their own")
    found += [
        f"networking.outbound[{at}]: backendRef is not available in this version of meshd; use a {label.SERVICE} tag"
        for at, outbound in enumerate(networking.outbound)
        if not outbound.service
    ]
    if has_mtls and not uris_of(dataplane):
        found.append(f"networking: without a {label.SERVICE} tag there is no identity to show; nothing is sent")
    return tuple(found)
