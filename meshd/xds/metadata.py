"""What a proxy says of itself in the node of its first request. Nothing of it is proven.

Read as Kuma does: what is missing or of a wrong type counts as empty, a number that is none as 0; numbers are text.
Source: reference/dataplane.md 1.5, 2.3; Kuma ``pkg/core/xds/metadata.go`` (behaviour).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

from meshd import __version__
from meshd.discovery.messages import Json, Node
from meshd.kinds.dataplane import Dataplane, IpFamilyMode, TransparentProxying
from meshd.kinds.proxy_insights import EnvoyVersion, KumaDpVersion, Version
from meshd.model import codec
from meshd.model.errors import InvalidError, PeerError
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.model.versions import KUMA, compatible
from meshd.xds.abilities import Abilities, Redirect

KIND_OF = {"": "Dataplane", "dataplane": "Dataplane", "ingress": "ZoneIngress", "egress": "ZoneEgress"}
"""The kind of a proxy's resource by ``dataplane.proxyType``."""

MAX_WORD = 128
"""Characters of a name or version that a proxy says of itself: it is stored, logged and shown."""
MAX_NAME = 253
"""Characters of a proxy's name and of its mesh's, as everywhere."""
MAX_DEPENDENCIES = 32
MAX_FEATURES = 64
MAX_PATH = 512
SHOWN = frozenset(
    {
        "dataplane.admin.address",
        "dataplane.admin.port",
        "dataplane.admin.socketPath",
        "dataplane.appProbeProxy.enabled",
        "dataplane.dns.port",
        "dataplane.proxyType",
        "dataplane.readinessReporter.port",
        "ipv6Enabled",
        "metricsCertPath",
        "metricsKeyPath",
        "systemCaPath",
        "workdir",
    }
)
"""What an insight tells of a node; its version is in the subscription, its resource is a resource of its own."""


@dataclass(frozen=True, slots=True)
class Flow:
    """One direction of traffic that the host redirects, and to which port."""

    enabled: bool = False
    port: int = 0


@dataclass(frozen=True, slots=True)
class TransparentProxy:
    """How the host redirects traffic, as kuma-dp says."""

    inbound: Flow = Flow()
    outbound: Flow = Flow()
    ipv6: bool = True


@dataclass(frozen=True, slots=True)
class ProxyMetadata:
    """Who a proxy says that it is, and what it can do.

    ``key`` is from the node's id and the proxy's type. ``resource`` is the one that is to be stored while it is
    connected, None if it must be stored already; ``problem`` says why the text of one could not be read. ``shown`` is
    what its insight tells of what it says, in Kuma's form.
    """

    key: ResourceKey
    resource: Resource | None = None
    problem: str = ""
    features: frozenset[str] = frozenset()
    version: Version = field(default_factory=Version)
    admin_port: int = 0
    admin_address: str = ""
    admin_socket: str = ""
    readiness_port: int = 0
    dns_port: int = 0
    has_app_probe_proxy: bool = False
    workdir: str = ""
    metrics_cert: str = ""
    metrics_key: str = ""
    system_ca: str = ""
    ipv6: bool = True
    transparent_proxy: TransparentProxy | None = None
    shown: Mapping[str, Json] = field(default_factory=dict)


def mesh_and_name(node_id: str) -> tuple[str, str]:
    """Whom the id of a node names: up to the first dot it is the mesh, empty for a zone proxy.

    Raises:
        PeerError: it names nobody.
    """
    mesh, dot, name = node_id.partition(".")
    shown = node_id[:MAX_WORD]
    if not dot or not name:
        raise PeerError(f"node id {shown!r} names no proxy; it must be <mesh>.<name>, or .<name> for a zone proxy")
    if len(mesh) > MAX_NAME or len(name) > MAX_NAME or not node_id.isprintable():
        raise PeerError(f"node id {shown!r} is no name of a mesh and a proxy")
    return mesh, name


def key_of(node: Node) -> ResourceKey:
    """Which proxy a node is.

    Raises:
        PeerError: the node names none.
    """
    mesh, name = mesh_and_name(node.id)
    shown = node.id[:MAX_WORD]
    said = _text(node.metadata.get("dataplane.proxyType"))
    kind = KIND_OF.get(said)
    if kind is None:
        raise PeerError(f"proxy type {said[:MAX_WORD]!r} is none of dataplane, ingress, egress")
    if (kind == "Dataplane") != bool(mesh):
        wanted = "<mesh>.<name>" if kind == "Dataplane" else ".<name>, for it belongs to no mesh"
        raise PeerError(f"node id {shown!r} is not that of a {kind}: it must be {wanted}")
    return ResourceKey(kind, mesh, name)


def read(node: Node, registry: Registry) -> ProxyMetadata:
    """Who a node is and what it can do.

    Raises:
        PeerError: it does not say who it is.
    """
    said = node.metadata
    key = key_of(node)
    resource, problem = _resource(key, said.get("dataplane.resource"), registry)
    dynamic = _object(said.get("dynamicMetadata"))
    features = said.get("features")
    return ProxyMetadata(
        key,
        resource,
        problem,
        features=frozenset(f for f in features if isinstance(f, str)) if isinstance(features, list) else frozenset(),
        version=_version(_object(said.get("version")), dynamic),
        admin_port=_port(said.get("dataplane.admin.port")),
        admin_address=_text(said.get("dataplane.admin.address")),
        admin_socket=_text(said.get("dataplane.admin.socketPath")),
        readiness_port=_port(said.get("dataplane.readinessReporter.port")),
        dns_port=_port(said.get("dataplane.dns.port")),
        has_app_probe_proxy=_text(said.get("dataplane.appProbeProxy.enabled")) == "true",
        workdir=_text(said.get("workdir")),
        metrics_cert=_text(said.get("metricsCertPath")),
        metrics_key=_text(said.get("metricsKeyPath")),
        system_ca=_text(said.get("systemCaPath")),
        # Absent counts as true: kuma-dps that did not send it have always had IPv6.
        ipv6=said.get("ipv6Enabled", True) is True,
        transparent_proxy=_transparent_proxy(said.get("transparentProxy")),
        shown=_shown(said),
    )


def abilities(metadata: ProxyMetadata, resource: Resource) -> Abilities:
    """What the proxy's Envoy resources depend on. ``resource`` is the proxy's own as it is stored.

    Which ports the host redirects to is the kuma-dp's to say, or for older ones the Dataplane's.
    """
    has = metadata.features.__contains__
    redirect = None
    if isinstance(resource.spec, Dataplane):
        redirect = _redirect(metadata, resource.spec)
    return Abilities(
        reuse_port=has("feature-reuse-port"),
        ipv6=metadata.ipv6,
        bind_outbounds=has("feature-bind-outbounds"),
        strict_inbound_ports=has("feature-strict-inbound-ports"),
        embedded_dns=has("feature-embedded-dns"),
        redirect=redirect,
        admin_address=metadata.admin_address,
        admin_port=metadata.admin_port,
        admin_socket=metadata.admin_socket,
        readiness_port=metadata.readiness_port,
        readiness_socket=has("feature-readiness-unix-socket"),
        dns_port=metadata.dns_port,
        workdir=metadata.workdir,
        metrics_cert=metadata.metrics_cert,
        metrics_key=metadata.metrics_key,
        system_ca=metadata.system_ca,
        has_kuma_dp=bool(metadata.version.kuma_dp and metadata.version.kuma_dp.version),
        answers_probes=metadata.has_app_probe_proxy,
    )


def _redirect(metadata: ProxyMetadata, spec: Dataplane) -> Redirect | None:
    said = metadata.transparent_proxy
    if "feature-transparent-proxy-in-dataplane-metadata" not in metadata.features:
        own = spec.networking.transparent_proxying or TransparentProxying()
        said = TransparentProxy(
            Flow(own.redirect_port_inbound > 0, own.redirect_port_inbound),
            Flow(own.redirect_port_outbound > 0, own.redirect_port_outbound),
            own.ip_family_mode is not IpFamilyMode.IPV4,
        )
    if said is None or not (said.inbound.enabled or said.outbound.enabled):
        return None
    if not said.ipv6 and _is_ipv6(spec.networking.address):
        return None
    return Redirect(
        said.inbound.port if said.inbound.enabled else 0,
        said.outbound.port if said.outbound.enabled else 0,
        said.ipv6,
    )


def _is_ipv6(address: str) -> bool:
    try:
        return isinstance(ip_address(address), IPv6Address)
    except ValueError:
        return False  # a name; it is resolved to an IPv4 address where there is one


def _resource(key: ResourceKey, value: Json, registry: Registry) -> tuple[Resource | None, str]:
    """The resource in the metadata, or why it is none."""
    if not isinstance(value, str) or not value:
        return None, ""
    try:
        resource = codec.decode_document(json.loads(value), registry)
    except (InvalidError, ValueError, RecursionError) as error:
        return None, f"the resource that was passed to kuma-dp is not valid: {error}"[:2000]
    if resource.key != key:
        return None, f"proxyId {key} does not match proxy resource {resource.key}"
    return resource, ""


def _shown(said: Mapping[str, Json]) -> Mapping[str, Json]:
    """What is told of a node: as it was said, without what is told elsewhere or has no bounds."""
    shown: dict[str, Json] = {}
    for name in sorted(said.keys() & SHOWN):
        value = said[name]
        if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= MAX_PATH):
            shown[name] = value
    features = said.get("features")
    if isinstance(features, list):
        shown["features"] = [*sorted({word for f in features if (word := _word(f))})[:MAX_FEATURES]]
    return shown


def _version(said: Mapping[str, Json], dynamic: Mapping[str, Json]) -> Version:
    dp, envoy = _object(said.get("kumaDp")), _object(said.get("envoy"))
    dependencies = {name: word for name, value in _object(said.get("dependencies")).items() if (word := _word(value))}
    for name, value in dynamic.items():
        if name.startswith("version.dependencies."):
            dependencies[name.removeprefix("version.dependencies.")] = _word(value)
    dp_version = _word(dp.get("version"))
    kuma_dp = KumaDpVersion(
        version=dp_version,
        git_tag=_word(dp.get("gitTag")),
        git_commit=_word(dp.get("gitCommit")),
        build_date=_word(dp.get("buildDate")),
        kuma_cp_compatible=dp_version == __version__ or compatible(KUMA, dp_version),
    )
    envoy_version = EnvoyVersion(
        version=_word(envoy.get("version")),
        build=_word(envoy.get("build")),
        kuma_dp_compatible=envoy.get("kumaDpCompatible") is True,
    )
    kept = {name: dependencies[name] for name in sorted(dependencies)[:MAX_DEPENDENCIES] if _word(name)}
    return Version(kuma_dp=kuma_dp, envoy=envoy_version, dependencies=kept)


def _transparent_proxy(value: Json) -> TransparentProxy | None:
    if not isinstance(value, dict):
        return None
    redirect = _object(value.get("redirect"))
    mode = _text(value.get("ipFamilyMode")).lower()
    return TransparentProxy(_flow(redirect.get("inbound")), _flow(redirect.get("outbound")), mode != "ipv4")


def _flow(value: Json) -> Flow:
    flow = _object(value)
    port = flow.get("port")
    number = int(port) if isinstance(port, float | int) and 0 <= port <= 65535 else _port(port)
    return Flow(flow.get("enabled") is True, number)


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _word(value: Json) -> str:
    """The value if it is text that fits into a line of a log; else it counts as empty."""
    said = _text(value)
    return said if len(said) <= MAX_WORD and said.isprintable() else ""


def _port(value: Json) -> int:
    """A number as text, as Kuma writes and reads it."""
    said = _text(value)
    number = int(said) if said.isascii() and said.isdigit() and len(said) <= 5 else 0
    return number if number <= 65535 else 0
