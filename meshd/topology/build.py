"""The views of all meshes of one zone, rebuilt as far as a change reaches. Pure: ``keeper.py`` feeds and drives it.

``apply`` takes one resource and notes what it touches: a Dataplane its services, a ZoneIngress the services whose
offer changed, a ZoneEgress or a Mesh all services that depend on it. ``rebuild`` does the work in steps, each of
which is one service.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import cast

from meshd.kinds.external_service import ExternalService
from meshd.kinds.mesh import Mesh, MeshServicesMode
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import AvailableService, ZoneIngress
from meshd.model import labels as label
from meshd.model.resource import Resource, ResourceKey
from meshd.model.steps import Steps
from meshd.topology.digest import Digest, of_resource, of_service, of_vip
from meshd.topology.endpoints import Gate, Surroundings, build
from meshd.topology.services import Offer, offered, offers_of, tag_set, tag_sets
from meshd.topology.state import Counts, MeshState
from meshd.topology.view import MeshView
from meshd.topology.vips import PORTION, VipEntry, VipKey, building_vips, entries_of, names_in, plain_entries

KINDS = ("Mesh", "Dataplane", "ZoneIngress", "ZoneEgress", "ExternalService")
"""The kinds that ``apply`` takes, besides the policies."""


class Topology:
    """See the module. ``zone`` is this zone's name, ``domain`` and ``vip_port`` are dnsServer's."""

    def __init__(self, zone: str, domain: str, vip_port: int) -> None:
        self._zone = zone
        self._domain = domain
        self._vip_port = vip_port
        self._meshes: dict[str, MeshState] = {}
        self._ingresses: dict[str, tuple[Gate, frozenset[Offer]]] = {}
        self._local_ingresses: dict[str, Resource] = {}
        self._egresses: dict[str, Gate] = {}
        self._offer: tuple[AvailableService, ...] | None = None
        self._offered: dict[tuple[str, str, int, bool], AvailableService] = {}

    def apply(self, key: ResourceKey, resource: Resource | None) -> None:
        """Take the newest state of one resource; None: it is gone. Any kind but ``KINDS`` is a policy."""
        match key.kind:
            case "Mesh":
                self._apply_mesh(key.name, resource)
            case "Dataplane":
                self._apply_dataplane(self._mesh(key.mesh), key.name, resource)
            case "ExternalService":
                mesh = self._mesh(key.mesh)
                mesh.touched |= mesh.index.set_external(key.name, resource)
                mesh.externals_touched = True
                self._offer = None
            case "ZoneIngress":
                self._apply_ingress(key.name, resource)
            case "ZoneEgress":
                self._apply_egress(key.name, resource)
            case _:
                self._apply_policy(self._mesh(key.mesh), key, resource)

    def entries(self) -> Mapping[str, tuple[VipEntry, ...]]:
        """Who needs a VIP, by mesh. Unchanged tuples keep their identity."""
        found: dict[str, tuple[VipEntry, ...]] = {}
        for name, mesh in sorted(self._meshes.items()):
            if mesh.resource is None:
                continue
            self._spell(mesh)
            before = mesh.entries
            if mesh.externals_touched or not mesh.external_names.isdisjoint(mesh.respelled):
                externals = mesh.index.external_resources()
                entries = entries_of(name, mesh.spelled.values(), externals, before)
                mesh.entries = entries if entries != before else before
                mesh.external_names = names_in(externals)
            elif mesh.respelled:
                mesh.entries = plain_entries(name, before, mesh.respelled)
            mesh.vips_stale = mesh.vips_stale or mesh.entries is not before
            mesh.respelled.clear()
            mesh.externals_touched = False
            found[name] = mesh.entries
        return found

    def rebuild(self, addresses: Mapping[VipKey, IPv4Address]) -> Steps[None]:
        """Build everything that was touched, a service a step; ``views`` is right when the iterator ends.

        Nothing may be applied before it ends. ``addresses`` are the committed VIPs, the same object while they are
        the same.
        """
        self.entries()
        for name, mesh in list(self._meshes.items()):
            if mesh.resource is None:
                self._meshes[name] = self._emptied(mesh)
                continue
            around = self._surroundings(mesh)
            changed = mesh.changed or bool(mesh.touched)
            for service in sorted(mesh.touched):
                self._build_service(mesh, service, around)
                yield
            mesh.touched.clear()
            changed = (yield from self._build_vips(mesh, addresses)) or changed
            if changed:
                yield from self._build_view(name, mesh, around)
                mesh.changed = False
            yield

    @property
    def views(self) -> dict[str, MeshView]:
        """The view of each mesh, by name; unchanged ones keep their identity."""
        return {name: mesh.view for name, mesh in sorted(self._meshes.items()) if mesh.view is not None}

    def offer(self) -> tuple[AvailableService, ...]:
        """What the local ingresses have to offer: ``available_services`` of everything applied, incrementally."""
        if self._offer is None:
            inside: list[AvailableService] = []
            outside: list[AvailableService] = []
            for name, mesh in sorted(self._meshes.items()):
                spec = cast("Mesh", mesh.resource.spec) if mesh.resource is not None else None
                if spec is None or spec.mesh_services.mode is MeshServicesMode.EXCLUSIVE:
                    continue
                inside += self._reuse(name, mesh.instances, external=False)
                if _through_egress(spec):
                    specs = [cast("ExternalService", r.spec) for r in mesh.index.external_resources()]
                    own = Counter(tag_set(s.tags) for s in specs if s.tags.get(label.ZONE) == self._zone)
                    outside += self._reuse(name, {t.text: (t, count) for t, count in own.items()}, external=True)
            if len(self._offered) > 2 * (len(inside) + len(outside)) + 1000:
                self._offered.clear()
            self._offer = (*inside, *outside)
        return self._offer

    def local_ingresses(self) -> tuple[Resource, ...]:
        """The ZoneIngresses of this zone, as last applied."""
        return tuple(resource for _, resource in sorted(self._local_ingresses.items()))

    def _reuse(self, mesh: str, counts: Counts, *, external: bool) -> Iterator[AvailableService]:
        # Making a thousand specs for one that changed would cost more than everything else here.
        for text in sorted(counts):
            tags, count = counts[text]
            key = (mesh, text, count, external)
            service = self._offered.get(key)
            if service is None:
                (service,) = offered({(mesh, tags): count}, external=external)
                self._offered[key] = service
            yield service

    def _mesh(self, name: str) -> MeshState:
        return self._meshes.setdefault(name, MeshState())

    def _emptied(self, mesh: MeshState) -> MeshState:
        """The state of a mesh without its Mesh resource: what is known stays, nothing is built."""
        if mesh.view is None and not mesh.services.items:
            return mesh
        return MeshState(
            index=mesh.index,
            dataplanes=mesh.dataplanes,
            policies=mesh.policies,
            instances=mesh.instances,
            touched=mesh.index.services(),
            external_names=mesh.external_names,
            digest=self._digest_of(mesh),
        )

    def _digest_of(self, mesh: MeshState) -> Digest:
        fresh = Digest()
        for name, resource in mesh.dataplanes.items.items():
            fresh.set("dataplane", name, of_resource(resource))
        for kind, policies in mesh.policies.items.items():
            for name, resource in policies.items():
                fresh.set(f"policy {kind}", name, of_resource(resource))
        return fresh

    def _apply_mesh(self, name: str, resource: Resource | None) -> None:
        mesh = self._mesh(name)
        before, mesh.resource = mesh.resource, resource
        mesh.changed = True
        mesh.digest.set("mesh", name, of_resource(resource) if resource is not None else None)
        same = before is not None and resource is not None and _settings(before) == _settings(resource)
        if not same:
            mesh.touched |= mesh.index.services()
            self._offer = None

    def _apply_dataplane(self, mesh: MeshState, name: str, resource: Resource | None) -> None:
        before = mesh.dataplanes.set(name, resource)
        old, new = (tag_sets(r) if r is not None else () for r in (before, resource))
        if old != new:
            for tags in new:
                mesh.instances[tags.text] = (tags, mesh.instances.get(tags.text, (tags, 0))[1] + 1)
            for tags in old:
                left = mesh.instances.pop(tags.text)[1] - 1
                if left:
                    mesh.instances[tags.text] = (tags, left)
            self._offer = None
        mesh.digest.set("dataplane", name, of_resource(resource) if resource is not None else None)
        mesh.touched |= mesh.index.set_dataplane(name, resource)
        mesh.changed = True

    def _apply_policy(self, mesh: MeshState, key: ResourceKey, resource: Resource | None) -> None:
        mesh.policies.set(key.kind, key.name, resource)
        content = of_resource(resource) if resource is not None else None
        mesh.digest.set(f"policy {key.kind}", key.name, content)
        mesh.changed = True

    def _apply_ingress(self, name: str, resource: Resource | None) -> None:
        self._local_ingresses.pop(name, None)
        gate, offers = None, frozenset[Offer]()
        if resource is not None:
            spec = cast("ZoneIngress", resource.spec)
            if spec.zone in ("", self._zone):
                self._local_ingresses[name] = resource
            else:
                at = spec.networking
                usable = bool(at.advertised_address and at.advertised_port)
                gate = Gate(spec.zone, *((at.advertised_address, at.advertised_port) if usable else ("", 0)))
                offers = offers_of(resource)
        before, known = self._ingresses.pop(name, (None, frozenset[Offer]()))
        if gate is not None:
            self._ingresses[name] = (gate, offers)
        for mesh_name in sorted({offer.mesh for offer in known ^ offers}):
            mesh = self._mesh(mesh_name)
            added = [o for o in offers - known if o.mesh == mesh_name]
            removed = [o for o in known - offers if o.mesh == mesh_name]
            mesh.touched |= mesh.index.set_ingress(name, added, removed)
        if gate != before:
            for mesh in self._meshes.values():
                mesh.touched |= mesh.index.of_ingress(name)
                mesh.changed = True

    def _apply_egress(self, name: str, resource: Resource | None) -> None:
        before = self._egresses.pop(name, None)
        gate = None
        if resource is not None:
            spec = cast("ZoneEgress", resource.spec)
            if spec.zone in ("", self._zone) and spec.networking.address and spec.networking.port:
                gate = self._egresses[name] = Gate(self._zone, spec.networking.address, spec.networking.port)
        if gate != before:
            for mesh in self._meshes.values():
                mesh.touched |= mesh.index.elsewhere()
                mesh.changed = True

    def _surroundings(self, mesh: MeshState) -> Surroundings:
        spec = cast("Mesh", cast("Resource", mesh.resource).spec)
        return Surroundings(
            zone=self._zone,
            mtls=spec.enabled_backend() is not None,
            through_egress=_through_egress(spec),
            locality_aware=spec.routing.locality_aware_load_balancing,
            ingresses={name: gate for name, (gate, _) in self._ingresses.items()},
            egresses=tuple(sorted(set(self._egresses.values()), key=lambda g: (g.address, g.port))),
        )

    def _spell(self, mesh: MeshState) -> None:
        """Note under which names the touched services are known now."""
        for service in mesh.touched:
            name = mesh.index.spelling(service)
            if mesh.spelled.get(service, "") != name:
                mesh.respelled[service] = name
                mesh.spelled.pop(service, None)
                if name:
                    mesh.spelled[service] = name

    def _build_service(self, mesh: MeshState, service: str, around: Surroundings) -> None:
        found = mesh.index.parts(service)
        built = build(found[0], around) if found is not None else None
        mesh.reasons.pop(service, None)
        if found is not None and found[1]:
            mesh.reasons[service] = found[1]
        for section, views, view in (
            ("service", mesh.services, built.service if built else None),
            ("egress", mesh.egress, built.egress if built else None),
            ("ingress", mesh.ingress, built.ingress if built else None),
        ):
            if views.items.get(service) == view:
                continue
            views.set(service, view)
            mesh.digest.set(section, service, of_service(view) if view is not None else None)

    def _build_vips(self, mesh: MeshState, addresses: Mapping[VipKey, IPv4Address]) -> Steps[bool]:
        """Bring the VIPs up to date; whether any changed."""
        if not mesh.vips_stale and addresses is mesh.addresses:
            return False
        vips = yield from building_vips(mesh.entries, addresses, self._domain, self._vip_port, mesh.vips)
        mesh.vips_stale, mesh.addresses = False, addresses
        changed = False
        for at, key in enumerate(mesh.vips.keys() | vips.keys()):
            before, after = mesh.vips.get(key), vips.get(key)
            if at % PORTION == 0:
                yield
            if before is after:
                continue
            if before != after:
                changed = True
                mesh.digest.set("vip", key, of_vip(after) if after is not None else None)
            elif before is not None:
                vips[key] = before
        if changed:
            mesh.vips = MappingProxyType(dict(sorted(vips.items())))
        yield
        return changed

    def _build_view(self, name: str, mesh: MeshState, around: Surroundings) -> Steps[None]:
        reasons = tuple(sorted({*mesh.reasons.values(), *self._gate_reasons(mesh, around)}))
        mesh.digest.set("reasons", "", repr(reasons))
        version = mesh.digest.value
        if mesh.view is not None and mesh.view.version == version:
            return
        services = mesh.services.published()
        yield
        egress = mesh.egress.published()
        yield
        ingress = mesh.ingress.published()
        yield
        dataplanes = mesh.dataplanes.published()
        yield
        mesh.view = MeshView(
            mesh_name=name,
            zone=self._zone,
            version=version,
            mesh=cast("Resource", mesh.resource),
            services=services,
            egress_services=egress,
            ingress_services=ingress,
            vips=mesh.vips,
            local_dataplanes=dataplanes,
            policies=mesh.policies.published(),
            reasons=reasons,
        )

    def _gate_reasons(self, mesh: MeshState, around: Surroundings) -> Iterator[str]:
        offering = [n for n in sorted(around.ingresses) if mesh.index.has_offers(n)]
        for name in offering:
            gate = around.ingresses[name]
            if not gate.port:
                yield f"ZoneIngress {name} of zone {gate.zone} has no advertised address and port; not used"
        if offering and not around.mtls:
            yield "mTLS is off: services of other zones cannot be reached"
        if around.through_egress and not around.egresses and mesh.index.has_elsewhere():
            yield "routing.zoneEgress is on and this zone has no ZoneEgress: nothing outside of the zone can be reached"


def _through_egress(spec: Mesh) -> bool:
    return spec.routing.zone_egress and spec.enabled_backend() is not None


def _settings(mesh: Resource) -> tuple[bool, bool, bool, MeshServicesMode]:
    """What of a Mesh the endpoints of its services depend on."""
    spec = cast("Mesh", mesh.spec)
    routing = spec.routing
    mtls = spec.enabled_backend() is not None
    return mtls, routing.zone_egress, routing.locality_aware_load_balancing, spec.mesh_services.mode
