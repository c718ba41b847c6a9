"""A bootstrap request, the stored resources -> the bootstrap document and what kuma-dp itself needs to know. Pure.

Source: reference/dataplane.md 1.3, 1.5; Kuma ``pkg/xds/bootstrap/generator.go`` (behaviour). Where Kuma has a 500 for
what is the request's own fault (an unknown proxy type, a resource that cannot be read), this is a 422 that says what:
kuma-dp shows it and stops, where it would repeat a 500 for five minutes.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from meshd.ca.server_certificate import ServerNames, may_sign, parse_address
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.mesh import Mesh
from meshd.kinds.mesh_conf import PrometheusAggregate, PrometheusMetrics
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model.codec import decode_document, load_documents
from meshd.model.errors import InvalidError, MeshdError, Violation
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.model.shape import read_lenient
from meshd.xds.bootstrap import Admin, BootstrapParams, ControlPlaneAt, Token
from meshd.xds.bootstrap_request import BootstrapRequest
from meshd.xds.names import socket_path

log = logging.getLogger(__name__)

KIND_OF = {"dataplane": "Dataplane", "ingress": "ZoneIngress", "egress": "ZoneEgress"}
ADMIN_SOCKET = "kuma-envoy-admin"
UNKNOWN_SERVICE = "unknown"

Lookup = Callable[[ResourceKey], Resource | None]
"""The store's ``get``."""


@dataclass(frozen=True, slots=True)
class BootstrapSettings:
    """What all proxies of a control plane are told alike.

    ``names`` are those of the dp-server's certificate, and ``ca_pem`` is the CA to know it by, for proxies that bring
    none. ``xds_host`` empty: the host that the proxy called. ``admin`` is where Envoy's admin API is on TCP;
    ``has_admin_socket`` puts it on a socket in the work directory instead, where there is one.
    """

    names: ServerNames
    ca_pem: bytes
    xds_port: int
    xds_host: str = ""
    xds_connect_timeout: timedelta = timedelta(seconds=1)
    max_receive_bytes: int = 4 * 1024 * 1024
    admin: Admin = field(default_factory=Admin)
    has_admin_socket: bool = True
    needs_dataplane_token: bool = True
    needs_zone_token: bool = True
    has_reloadable_tokens: bool = False
    has_hds: bool = True
    corefile_template: bytes | None = None


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What kuma-dp does beside Envoy: whose metrics it adds, and where the Dataplane is."""

    address: str = ""
    aggregate: tuple[PrometheusAggregate, ...] = ()


class RefusedError(MeshdError):
    """A request that is answered with an error; ``status`` is HTTP's. Without a text, there is nothing to say."""

    def __init__(self, status: int, text: str = "") -> None:
        self.status = status
        super().__init__(text)


def params_for(
    request: BootstrapRequest, host: str, settings: BootstrapSettings, lookup: Lookup, registry: Registry
) -> tuple[BootstrapParams, Sidecar]:
    """What the proxy is to start with. ``host`` is what it called us, without a port.

    Raises:
        RefusedError: 400 for a server that it could not know again, 404 for a proxy that is not there, 422 for others.
    """
    proxy_type = request.proxy_type or "dataplane"
    if proxy_type not in KIND_OF:
        raise RefusedError(422, f"proxyType: must be one of {', '.join(KIND_OF)}, not {proxy_type!r}")
    if not request.name:
        raise RefusedError(422, "name: is required")
    _check_token(request, proxy_type, settings)
    xds_host = settings.xds_host or _known_host(host, settings.names)
    mesh = request.mesh if proxy_type == "dataplane" else ""
    resource = _resource(request, ResourceKey(KIND_OF[proxy_type], mesh, request.name), lookup, registry)
    cluster, admin_port, sidecar = _described(resource, lookup)
    ca_pem = request.ca_cert.encode() or settings.ca_pem
    _check_ca(ca_pem, is_own=not request.ca_cert)
    by_file = settings.has_reloadable_tokens and bool(request.dataplane_token_path)
    workdir = request.workdir
    has_socket = settings.has_admin_socket and bool(workdir)
    params = BootstrapParams(
        mesh=mesh,
        name=request.name,
        proxy_type=proxy_type,
        cluster=cluster,
        control_plane=ControlPlaneAt(
            xds_host,
            settings.xds_port,
            ca_pem,
            connect_timeout=settings.xds_connect_timeout,
            max_receive_bytes=settings.max_receive_bytes,
        ),
        workdir=workdir,
        admin=replace(
            settings.admin,
            port=admin_port or settings.admin.port,
            socket_path=socket_path(workdir, ADMIN_SOCKET) if has_socket else "",
        ),
        token=Token(path=request.dataplane_token_path) if by_file else Token(request.dataplane_token),
        resource=request.dataplane_resource,
        features=request.features,
        version=_version(request),
        dynamic_metadata=request.dynamic_metadata,
        dns_port=request.dns_port,
        readiness_port=request.readiness_port,
        has_app_probe_proxy=request.has_app_probe_proxy,
        metrics_cert_path=request.metrics_resources.cert_path,
        metrics_key_path=request.metrics_resources.key_path,
        system_ca_path=request.system_ca_path,
        is_ipv6_enabled=request.ipv6_enabled,
        spire_socket_path=request.spire_resources.socket_path,
        transparent_proxy=request.dataplane_config,
        otel_env=request.otel_env,
        has_hds=settings.has_hds and proxy_type == "dataplane",
    )
    return params, sidecar


def sidecar_json(sidecar: Sidecar) -> dict[str, Any]:
    """``kumaSidecarConfiguration`` without the Corefile template."""
    aggregate = [{"name": a.name, "address": a.address, "port": a.port, "path": a.path} for a in sidecar.aggregate]
    return {"networking": {"address": sidecar.address}, "metrics": {"aggregate": aggregate}}


def _version(request: BootstrapRequest) -> dict[str, Any]:
    """Without what is empty, as protobuf's JSON has it."""
    return {
        name: part.model_dump(by_alias=True, exclude_defaults=True)
        for name, part in (("kumaDp", request.version.kuma_dp), ("envoy", request.version.envoy))
    }


def _check_token(request: BootstrapRequest, proxy_type: str, settings: BootstrapSettings) -> None:
    """A token must be there; whether it is a good one is for the streams to find out."""
    is_needed = settings.needs_dataplane_token if proxy_type == "dataplane" else settings.needs_zone_token
    if not is_needed or request.dataplane_token or request.dataplane_token_path:
        return
    command = f"meshd token dataplane --mesh {request.mesh or 'default'} --name {request.name}"
    if proxy_type != "dataplane":
        command = f"meshd token zone ZONE --scope {proxy_type}"
    raise RefusedError(
        422,
        f"a token is required: make one by `{command} > FILE` and give it to kuma-dp by --dataplane-token-file=FILE",
    )


def _known_host(host: str, names: ServerNames) -> str:
    """The host, if its Envoy will find it in the certificate."""
    if not names.has(host):
        raise RefusedError(
            400,
            f"the proxy calls this control plane {host!r}, which is not in its certificate: that is for"
            f" {', '.join(names.sorted()) or 'nobody'}. Use one of these in --cp-address, or give the control plane a"
            " certificate for that name (dpServer.tlsCertFile), or tell proxies what to call it"
            " (bootstrapServer.params.xdsHost)",
        )
    address = parse_address(host)
    return str(address) if address is not None else host.lower()


def _check_ca(pem: bytes, *, is_own: bool) -> None:
    try:
        can_sign = may_sign(pem)
    except ValueError as error:
        raise RefusedError(422, f"caCert: {error}") from None
    if not can_sign:
        raise RefusedError(
            400,
            (
                "the control plane's certificate is no CA, so a proxy cannot know it by itself"
                if is_own
                else "the certificate given to kuma-dp is no CA (basic constraint 'CA' is false)"
            )
            + "; give kuma-dp the CA that signed it, by --ca-cert-file or KUMA_CONTROL_PLANE_CA_CERT_FILE",
        )


def _resource(request: BootstrapRequest, key: ResourceKey, lookup: Lookup, registry: Registry) -> Resource:
    """The proxy's resource: as it is in the request, or as it is stored."""
    if not request.dataplane_resource:
        stored = lookup(key)
        if stored is None:
            raise RefusedError(404)
        return stored
    try:
        resource = read_resource(request.dataplane_resource, registry)
    except InvalidError as error:
        raise RefusedError(422, "; ".join(map(str, error.violations))) from None
    if resource.key != key:
        raise RefusedError(422, f"dataplaneResource: is {resource.key}, but the proxy is started as {key}")
    if isinstance(resource.spec, Dataplane):
        if lookup(ResourceKey("Mesh", "", key.mesh)) is None:
            raise RefusedError(422, f"mesh: mesh {json.dumps(key.mesh)} does not exist")
        if request.is_transparent and resource.spec.networking.outbound:
            raise RefusedError(422, "networking.outbound: must be empty where traffic is redirected to the proxy")
    return resource


def read_resource(text: str, registry: Registry) -> Resource:
    """The resource of a proxy as kuma-dp has it (JSON, or YAML).

    Raises:
        InvalidError: it is none, or not a good one.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        documents = load_documents(text, "dataplaneResource")
        if len(documents) != 1:
            raise InvalidError("dataplaneResource", [Violation("", "must be one resource")]) from None
        data = documents[0].data
    return decode_document(data, registry)


def _described(resource: Resource, lookup: Lookup) -> tuple[str, int, Sidecar]:
    """What a proxy is one of, the port of its admin API (0: it does not say), and what its kuma-dp is told."""
    spec = resource.spec
    if isinstance(spec, ZoneIngress | ZoneEgress):
        name = "ingress" if isinstance(spec, ZoneIngress) else "egress"
        return name, spec.networking.admin.port if spec.networking.admin else 0, Sidecar()
    if not isinstance(spec, Dataplane):
        raise TypeError(f"{resource.key} is no proxy")
    mesh = lookup(ResourceKey("Mesh", "", resource.key.mesh))
    if mesh is None or not isinstance(mesh.spec, Mesh):
        raise RefusedError(404)
    try:
        aggregate = aggregated(mesh.spec, spec)
    except ValueError as error:  # from a control plane of another version; no reason not to start a proxy
        log.warning("%s: applications' metrics are left out: %s", resource.key, error)
        aggregate = ()
    sidecar = Sidecar(spec.networking.address, aggregate)
    admin = spec.networking.admin
    return min(spec.services(), default=UNKNOWN_SERVICE), admin.port if admin else 0, sidecar


def aggregated(mesh: Mesh, dataplane: Dataplane) -> tuple[PrometheusAggregate, ...]:
    """Applications whose metrics are shown with the proxy's, by name, each with an address.

    The mesh says which as long as its metrics are on, and the Dataplane may say otherwise for each of them.

    Raises:
        ValueError: the ``conf`` of one of the two cannot be read.
    """
    backend = next((b for b in mesh.metrics.backends if b.name == mesh.metrics.enabled_backend), None)
    if backend is None or backend.type != "prometheus":
        return ()
    own = dataplane.metrics
    confs = [backend.conf, own.conf if own is not None and own.type == "prometheus" else None]
    found: dict[str, PrometheusAggregate] = {}
    for conf in confs:
        found |= {entry.name: entry for entry in _prometheus(conf or {}).aggregate}
    return tuple(
        entry if entry.address else entry.model_copy(update={"address": dataplane.networking.address})
        for _, entry in sorted(found.items())
        if entry.enabled is not False
    )


def _prometheus(conf: Mapping[str, Any]) -> PrometheusMetrics:
    return read_lenient(PrometheusMetrics, json.dumps(dict(conf)))
