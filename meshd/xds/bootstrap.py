"""The document that an Envoy starts with: who it is, and where its configuration comes from.

The same for a proxy under kuma-dp, which asks for it, and for one that this process runs itself. Source:
reference/dataplane.md 1.5; Kuma ``pkg/xds/bootstrap/template_v3.go`` (behaviour). What differs from Kuma's:
``dnsLookupFamily`` of ``ads_cluster`` is ``V4_PREFERRED``, for the dp-server listens on IPv4 unless it is told
otherwise, while Kuma asks its own resolver at that moment; what builtin gateways need is not there.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from meshd.xds.clusters import at_pipe, at_socket, fixed, is_ip, socket_address, speak
from meshd.xds.encode import PREFIX, Document
from meshd.xds.names import ADS_CLUSTER, at, socket_path
from meshd.xds.tls import san, transport_socket

ACCESS_LOG_CLUSTER = "access_log_sink"
CP_VALIDATION = "cp_validation_ctx"
DELTA = "feature-delta-grpc"
FILE_CREDENTIALS = "envoy.grpc_credentials.file_based_metadata"

STATS_TAGS = (
    ("name", r"^grpc\.((.+)\.)"),
    ("status", r"^grpc.*streams_closed(_([0-9]+))"),
    ("kafka_name", r"^kafka(\.(\S*[0-9]))\."),
    ("kafka_type", r"^kafka\..*\.(.*?(?=_duration|$))"),
    ("worker", r"(worker_([0-9]+)\.)"),
    ("listener", r"((.+?)\.)rbac\."),
)
"""Parts of statistics' names that are labels. Dashboards for Kuma know them."""


@dataclass(frozen=True, slots=True)
class Admin:
    """Where Envoy's admin API is: at ``socket_path`` (mode 0600), or if that is empty at ``address:port``."""

    port: int = 9901
    address: str = "127.0.0.1"
    socket_path: str = ""
    access_log_path: str = "/dev/null"


@dataclass(frozen=True, slots=True)
class ControlPlaneAt:
    """Where the dp-server is and how to know it: ``ca_pem`` signed its certificate, which has ``host`` in it.

    ``address`` is where to connect, if it is not ``host``: for an Envoy on the control plane's own host.
    """

    host: str
    port: int
    ca_pem: bytes
    address: str = ""
    connect_timeout: timedelta = timedelta(seconds=1)
    max_receive_bytes: int = 4 * 1024 * 1024
    """What Envoy's Google gRPC client takes in one message; only with a token's file."""


@dataclass(frozen=True, slots=True)
class Token:
    """How a proxy proves who it is: by the file at ``path``, read for every stream, else by ``text`` as it is."""

    text: str = field(default="", repr=False)
    path: str = ""


@dataclass(frozen=True, slots=True)
class BootstrapParams:
    """Everything that a bootstrap document says. ``mesh`` is empty for an ingress or egress.

    ``cluster`` is what the proxy is one of: a service, ``ingress``, ``egress``. ``resource`` is the proxy's resource
    as the REST API has it, as text, if it is to be created when the proxy connects. ``features``, ``version``,
    ``dynamic_metadata``, ``transparent_proxy`` and ``otel_env`` are told to whoever renders for it, as they are.
    Paths are on the proxy's host; empty: there is none. Ports: 0 is none.
    """

    mesh: str
    name: str
    proxy_type: str
    cluster: str
    control_plane: ControlPlaneAt
    workdir: str = ""
    admin: Admin = Admin()
    token: Token = Token()
    resource: str = ""
    features: tuple[str, ...] = ()
    version: Mapping[str, Any] = field(default_factory=dict)
    dynamic_metadata: Mapping[str, str] = field(default_factory=dict)
    dns_port: int = 0
    readiness_port: int = 0
    has_app_probe_proxy: bool = False
    metrics_cert_path: str = ""
    metrics_key_path: str = ""
    system_ca_path: str = ""
    is_ipv6_enabled: bool = True
    spire_socket_path: str = ""
    transparent_proxy: Mapping[str, Any] | None = None
    otel_env: Mapping[str, Any] | None = None
    has_hds: bool = False
    """Let it ask what to probe (HDS)."""


def bootstrap_document(params: BootstrapParams) -> Document:
    """The ``envoy.config.bootstrap.v3.Bootstrap``, as proto-JSON."""
    uses_file = bool(params.token.path)
    clusters = [_access_log_cluster(params)]
    if not uses_file:
        clusters.append(_ads_cluster(params.control_plane))
    ads = {"apiType": "DELTA_GRPC" if DELTA in params.features else "GRPC", **_api_source(params)}
    from_ads = {"ads": {}, "initialFetchTimeout": "0s", "resourceApiVersion": "V3"}
    document: Document = {
        "node": {"id": f"{params.mesh}.{params.name}", "cluster": params.cluster, "metadata": node_metadata(params)},
        "admin": _admin(params.admin),
        "dynamicResources": {"adsConfig": ads, "cdsConfig": from_ads, "ldsConfig": from_ads},
        "staticResources": {"clusters": clusters, "secrets": [_validation(params.control_plane)]},
        "layeredRuntime": {
            "layers": [
                {
                    "name": "kuma",
                    "staticLayer": {
                        "re2.max_program_size.error_level": 4294967295,
                        "re2.max_program_size.warn_level": 1000,
                    },
                }
            ]
        },
        "statsConfig": {"statsTags": [{"tagName": name, "regex": regex} for name, regex in STATS_TAGS]},
        "defaultRegexEngine": {
            "name": "envoy.regex_engines.google_re2",
            "typedConfig": {"@type": PREFIX + "envoy.extensions.regex_engines.v3.GoogleRE2"},
        },
    }
    if params.has_hds:
        document["hdsConfig"] = {"apiType": "GRPC", **_api_source(params)}
    return document


def node_metadata(params: BootstrapParams) -> Document:
    """What the proxy says of itself when it connects. Ports are text: Kuma reads a number as 0.

    Source: Kuma ``pkg/core/xds/metadata.go``, which reads it back.
    """
    always: Document = {
        "version": dict(params.version),
        "features": list(params.features),
        "workdir": params.workdir,
        "metricsCertPath": params.metrics_cert_path,
        "metricsKeyPath": params.metrics_key_path,
        "systemCaPath": params.system_ca_path,
        "ipv6Enabled": params.is_ipv6_enabled,
        "spireAgent.socketPath": params.spire_socket_path,
        "dataplane.proxyType": params.proxy_type,
        "dataplane.admin.port": str(params.admin.port),
        "dataplane.admin.address": params.admin.address,
    }
    sometimes: Document = {
        "dataplane.admin.socketPath": params.admin.socket_path,
        "dataplane.resource": params.resource,
        "dataplane.dns.port": str(params.dns_port) if params.dns_port else "",
        "dataplane.readinessReporter.port": str(params.readiness_port) if params.readiness_port else "",
        "dataplane.appProbeProxy.enabled": "true" if params.has_app_probe_proxy else "",
        "dynamicMetadata": dict(params.dynamic_metadata),
    }
    structures = {"transparentProxy": params.transparent_proxy, "otelEnvInventory": params.otel_env}
    present = {key: dict(value) for key, value in structures.items() if value is not None}
    return always | {key: value for key, value in sometimes.items() if value} | present


def _admin(admin: Admin) -> Document:
    address = socket_address(admin.address, admin.port)
    if admin.socket_path:
        address = {"pipe": {"path": admin.socket_path, "mode": 0o600}}
    log = {
        "name": "envoy.access_loggers.file",
        "typedConfig": {
            "@type": PREFIX + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": admin.access_log_path,
        },
    }
    return {"address": address, "accessLog": [log]}


def _api_source(params: BootstrapParams) -> Document:
    return {
        "transportApiVersion": "V3",
        "setNodeOnFirstMessageOnly": True,
        "grpcServices": [_grpc_service(params.control_plane, params.token)],
    }


RECONNECT: Document = {"retryBackOff": {"baseInterval": "0.5s", "maxInterval": "3s"}}
"""How soon a proxy comes back to a control plane that was away. Kuma leaves it at Envoy's 0.5 to 30 s; after a restart
of half a minute a proxy would then hear of nothing for as long again. Envoy heeds it inside ``envoyGrpc`` only (tried
with 1.40), so a proxy with a token's file keeps the default."""


def _grpc_service(to: ControlPlaneAt, token: Token) -> Document:
    if token.path:
        return {"googleGrpc": _google_grpc(to, token.path)}
    service: Document = {"envoyGrpc": {"clusterName": ADS_CLUSTER, "retryPolicy": RECONNECT}}
    if token.text:
        service["initialMetadata"] = [{"key": "authorization", "value": token.text}]  # bare, no "Bearer"
    return service


def _google_grpc(to: ControlPlaneAt, token_path: str) -> Document:
    plugin = {
        "name": FILE_CREDENTIALS,
        "typedConfig": {
            "@type": PREFIX + "envoy.config.grpc_credential.v3.FileBasedMetadataConfig",
            "secretData": {"filename": token_path},
        },
    }
    arguments = {
        "grpc.keepalive_time_ms": 10_000,
        "grpc.keepalive_timeout_ms": 30_000,
        "grpc.http2.max_pings_without_data": 0,  # as many as it takes
        "grpc.max_receive_message_length": to.max_receive_bytes,
    }
    return {
        "targetUri": at(to.address or to.host, to.port),
        "statPrefix": "ads",
        "credentialsFactoryName": FILE_CREDENTIALS,
        "callCredentials": [{"fromPlugin": plugin}],
        "channelCredentials": {"sslCredentials": {"rootCerts": _inline(to.ca_pem)}},
        "channelArgs": {"args": {name: {"intValue": value} for name, value in arguments.items()}},
    }


def _access_log_cluster(params: BootstrapParams) -> Document:
    path = socket_path(params.workdir, f"kuma-al-{params.name}-{params.mesh}")
    return _kept_alive(fixed(ACCESS_LOG_CLUSTER, "STATIC", [at_pipe(path)], _seconds(params.control_plane)))


def _ads_cluster(to: ControlPlaneAt) -> Document:
    address = to.address or to.host
    kind = "STATIC" if is_ip(address) else "STRICT_DNS"
    document = _kept_alive(fixed(ADS_CLUSTER, kind, [at_socket(address, to.port)], _seconds(to)))
    if kind == "STRICT_DNS":
        document["dnsLookupFamily"] = "V4_PREFERRED"
    document["transportSocket"] = transport_socket(
        "UpstreamTlsContext",
        {
            "sni": to.host,
            "commonTlsContext": {
                "tlsParams": {"tlsMinimumProtocolVersion": "TLSv1_2"},
                "validationContextSdsSecretConfig": {"name": CP_VALIDATION},
            },
        },
    )
    return document


def _kept_alive(cluster: Document) -> Document:
    """HTTP/2, and TCP that notices when the other side is gone."""
    speak(cluster, 2)
    cluster["upstreamConnectionOptions"] = {
        "tcpKeepalive": {"keepaliveProbes": 3, "keepaliveTime": 10, "keepaliveInterval": 10}
    }
    return cluster


def _validation(to: ControlPlaneAt) -> Document:
    context = {
        "matchTypedSubjectAltNames": [san(kind, {"exact": to.host}) for kind in ("DNS", "IP_ADDRESS")],
        "trustedCa": _inline(to.ca_pem),
    }
    return {"name": CP_VALIDATION, "validationContext": context}


def _inline(pem: bytes) -> Document:
    return {"inlineBytes": base64.b64encode(pem).decode("ascii")}


def _seconds(to: ControlPlaneAt) -> str:
    return f"{to.connect_timeout.total_seconds():f}".rstrip("0").rstrip(".") + "s"
