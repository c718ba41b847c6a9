"""``KINDS``: what is particular to each kind, in one table.

Facts: reference/dataplane.md 6.3 (paths, short names), reference/kds.md 4.1 (directions).
"""

from meshd.kinds import dataplane_rules, mesh_rules, small_rules, zone_proxy_rules
from meshd.kinds.config import Config
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.external_service import ExternalService
from meshd.kinds.mesh import Mesh
from meshd.kinds.mesh_insight import MeshInsight
from meshd.kinds.proxy_insights import DataplaneInsight, ZoneEgressInsight, ZoneIngressInsight
from meshd.kinds.secret import Secret
from meshd.kinds.service_insight import ServiceInsight
from meshd.kinds.without_effect import WITHOUT_EFFECT
from meshd.kinds.zone import Zone
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.kinds.zone_insight import ZoneInsight
from meshd.model.resource_type import Flow, ResourceType, Scope
from meshd.proto.kuma.mesh import v1alpha1 as mesh_proto
from meshd.proto.kuma.system import v1alpha1 as system_proto

_FROM_GLOBAL = Flow.GLOBAL_TO_ZONE
_FROM_ZONE = Flow.ZONE_TO_GLOBAL | Flow.ZONE_LOCAL

KINDS: tuple[ResourceType, ...] = (
    ResourceType(
        kind="Mesh",
        path="meshes",
        short="m",
        scope=Scope.GLOBAL,
        flow=_FROM_GLOBAL,
        spec=Mesh,
        message=mesh_proto.Mesh,
        message_name="kuma.mesh.v1alpha1.Mesh",
        validate=mesh_rules.validate,
        doc="An isolated set of services with its own certificate authority.",
    ),
    ResourceType(
        kind="Zone",
        path="zones",
        short="z",
        scope=Scope.GLOBAL,
        flow=Flow.ZONE_LOCAL,
        spec=Zone,
        message=system_proto.Zone,
        message_name="kuma.system.v1alpha1.Zone",
        doc="A zone that may join the global; not synced, each control plane keeps its own.",
    ),
    ResourceType(
        kind="ZoneInsight",
        path="zone-insights",
        scope=Scope.GLOBAL,
        flow=Flow.ZONE_LOCAL,
        spec=ZoneInsight,
        message=system_proto.ZoneInsight,
        message_name="kuma.system.v1alpha1.ZoneInsight",
        read_only=True,
        doc="What the global saw of a zone; not synced.",
    ),
    ResourceType(
        kind="Dataplane",
        path="dataplanes",
        short="dp",
        scope=Scope.MESH,
        flow=_FROM_ZONE,
        spec=Dataplane,
        message=mesh_proto.Dataplane,
        message_name="kuma.mesh.v1alpha1.Dataplane",
        validate=dataplane_rules.validate,
        doc="One instance of one or more services, or a gateway.",
    ),
    ResourceType(
        kind="DataplaneInsight",
        path="dataplane-insights",
        scope=Scope.MESH,
        flow=_FROM_ZONE,
        spec=DataplaneInsight,
        message=mesh_proto.DataplaneInsight,
        message_name="kuma.mesh.v1alpha1.DataplaneInsight",
        read_only=True,
        doc="What the zone saw of a Dataplane's proxy.",
    ),
    ResourceType(
        kind="ZoneIngress",
        path="zoneingresses",
        aliases=("zone-ingresses",),
        short="zi",
        scope=Scope.GLOBAL,
        flow=_FROM_ZONE | Flow.ACROSS_ZONES | Flow.HASHED,
        spec=ZoneIngress,
        message=mesh_proto.ZoneIngress,
        message_name="kuma.mesh.v1alpha1.ZoneIngress",
        validate=zone_proxy_rules.validate_ingress,
        doc="The proxy through which other zones reach the services of this one.",
    ),
    ResourceType(
        kind="ZoneIngressInsight",
        path="zone-ingress-insights",
        scope=Scope.GLOBAL,
        flow=_FROM_ZONE,
        spec=ZoneIngressInsight,
        message=mesh_proto.ZoneIngressInsight,
        message_name="kuma.mesh.v1alpha1.ZoneIngressInsight",
        read_only=True,
        doc="What the zone saw of a ZoneIngress.",
    ),
    ResourceType(
        kind="ZoneEgress",
        path="zoneegresses",
        short="ze",
        scope=Scope.GLOBAL,
        flow=_FROM_ZONE,
        spec=ZoneEgress,
        message=mesh_proto.ZoneEgress,
        message_name="kuma.mesh.v1alpha1.ZoneEgress",
        validate=zone_proxy_rules.validate_egress,
        doc="The proxy through which a zone reaches other zones and external services.",
    ),
    ResourceType(
        kind="ZoneEgressInsight",
        path="zoneegressinsights",
        scope=Scope.GLOBAL,
        flow=_FROM_ZONE,
        spec=ZoneEgressInsight,
        message=mesh_proto.ZoneEgressInsight,
        message_name="kuma.mesh.v1alpha1.ZoneEgressInsight",
        read_only=True,
        doc="What the zone saw of a ZoneEgress.",
    ),
    ResourceType(
        kind="ExternalService",
        path="external-services",
        scope=Scope.MESH,
        flow=_FROM_GLOBAL | Flow.HASHED,
        spec=ExternalService,
        message=mesh_proto.ExternalService,
        message_name="kuma.mesh.v1alpha1.ExternalService",
        validate=small_rules.validate_external_service,
        doc="Something outside the mesh that has a name inside it.",
    ),
    ResourceType(
        kind="Secret",
        path="secrets",
        scope=Scope.MESH,
        flow=_FROM_GLOBAL | Flow.ZONE_LOCAL,
        spec=Secret,
        message=system_proto.Secret,
        message_name="kuma.system.v1alpha1.Secret",
        admin_only=True,
        validate=small_rules.validate_secret,
        doc="A key, certificate or token of a mesh.",
    ),
    ResourceType(
        kind="GlobalSecret",
        path="globalsecrets",
        aliases=("global-secrets",),
        scope=Scope.GLOBAL,
        flow=_FROM_GLOBAL | Flow.ZONE_LOCAL,
        spec=Secret,
        message=system_proto.Secret,
        message_name="kuma.system.v1alpha1.Secret",
        admin_only=True,
        validate=small_rules.validate_secret,
        doc="A key, certificate or token of the control planes.",
    ),
    ResourceType(
        kind="Config",
        path="",
        scope=Scope.GLOBAL,
        flow=_FROM_GLOBAL | Flow.ZONE_LOCAL,
        spec=Config,
        message=system_proto.Config,
        message_name="kuma.system.v1alpha1.Config",
        doc="A piece of a control plane's own state; it has no REST path.",
    ),
    ResourceType(
        kind="MeshInsight",
        path="mesh-insights",
        scope=Scope.GLOBAL,
        flow=Flow.NONE,
        spec=MeshInsight,
        message=mesh_proto.MeshInsight,
        message_name="kuma.mesh.v1alpha1.MeshInsight",
        read_only=True,
        doc="Counts of what a mesh has; computed.",
    ),
    ResourceType(
        kind="ServiceInsight",
        path="service-insights",
        scope=Scope.MESH,
        flow=_FROM_GLOBAL | Flow.HASHED,
        spec=ServiceInsight,
        message=mesh_proto.ServiceInsight,
        message_name="kuma.mesh.v1alpha1.ServiceInsight",
        read_only=True,
        doc="The state of a mesh's services; computed on the global and sent to zones.",
    ),
    *WITHOUT_EFFECT,
)
