"""Where a Prometheus reads the metrics of a proxy, for a Mesh with a metrics backend.

Source: reference/dataplane.md 3.13; Kuma ``pkg/xds/generator/prometheus_endpoint_generator.go`` (behaviour).
"""

import json
from collections.abc import Iterator
from ipaddress import ip_address
from typing import cast
from urllib.parse import quote

from meshd.kinds.dataplane import Dataplane, MetricsBackend
from meshd.kinds.mesh import Mesh
from meshd.kinds.mesh_conf import PrometheusEnvoy, PrometheusMetrics, PrometheusTlsMode
from meshd.model.resource import Resource
from meshd.model.shape import read_lenient
from meshd.xds import clusters, names, static_http, tls
from meshd.xds.abilities import LOOPBACKS, Abilities
from meshd.xds.encode import Document
from meshd.xds.resources import CLUSTER, LISTENER, XdsResource, resource

TYPE = "prometheus"
DEFAULT_PORT, DEFAULT_PATH = 5670, "/metrics"
ADMIN_PATH = "/stats/prometheus"
REGEX_SIGNS = "\\/.^$*?()[]{}|-:,=!<>'\""
"""What of a regular expression means nothing in a query."""


def config_of(mesh: Mesh, dataplane: Resource) -> PrometheusMetrics | None:
    """The settings of a Dataplane: the Mesh's backend in force, and what the Dataplane has of its own over them.

    None: the mesh shows no metrics, or not in a way that can be read.
    """
    wanted = mesh.metrics.enabled_backend
    backend = next((b for b in mesh.metrics.backends if wanted and b.name == wanted), None)
    of_mesh = _read(backend)
    if of_mesh is None:
        return None
    own = _read(cast("Dataplane", dataplane.spec).metrics) or PrometheusMetrics()
    envoy, over = of_mesh.envoy or PrometheusEnvoy(), own.envoy or PrometheusEnvoy()
    return PrometheusMetrics(
        port=own.port or of_mesh.port or DEFAULT_PORT,
        path=own.path or of_mesh.path or DEFAULT_PATH,
        tags={**of_mesh.tags, **own.tags},
        skip_mtls=own.skip_mtls if own.skip_mtls is not None else of_mesh.skip_mtls,
        aggregate=tuple({a.name: a for a in (*of_mesh.aggregate, *own.aggregate)}.values()),
        envoy=PrometheusEnvoy(
            filter_regex=over.filter_regex or envoy.filter_regex,
            used_only=over.used_only if over.used_only is not None else envoy.used_only,
        ),
        tls=own.tls or of_mesh.tls,
    )


def _read(backend: MetricsBackend | None) -> PrometheusMetrics | None:
    if backend is None or backend.type != TYPE:
        return None
    try:
        return read_lenient(PrometheusMetrics, json.dumps(dict(backend.conf or {})))
    except ValueError:  # of a control plane that allows what we do not: better no metrics than no proxy
        return None


def prometheus(mesh: Mesh, dataplane: Resource, abilities: Abilities) -> Iterator[XdsResource]:
    """The listener for Prometheus and the cluster of kuma-dp, which adds the application's metrics to Envoy's.

    Without a kuma-dp it is Envoy's own that are shown. Nothing if there is no admin API to get them from, or if one
    of the Dataplane's own ports is in the way.
    """
    config = config_of(mesh, dataplane)
    if config is None or not abilities.has_admin or is_taken(dataplane, config.port):
        return
    query = _query(config)
    if abilities.has_kuma_dp:
        key = dataplane.key
        socket = names.socket_path(abilities.workdir, f"kuma-mh-{key.name}-{key.mesh}")
        endpoint = clusters.at_pipe(socket)
        yield resource(
            CLUSTER,
            clusters.fixed(names.METRICS_HIJACKER, "STATIC", [endpoint], clusters.DEFAULT_CONNECT_TIMEOUT),
        )
        route = static_http.forward(config.path, names.METRICS_HIJACKER, "/" + query)
    else:
        route = static_http.forward(config.path, names.ADMIN, ADMIN_PATH + query)
    address = cast("Dataplane", dataplane.spec).networking.address
    listener = static_http.inbound_listener(names.PROMETHEUS, address, config.port, abilities)
    has_mtls = mesh.enabled_backend() is not None
    listener["filterChains"] = [
        static_http.chain(names.PROMETHEUS, [route], abilities, match, socket_)
        for match, socket_ in _doors(config, dataplane, abilities, has_mtls=has_mtls)
    ]
    yield resource(LISTENER, listener)


def _doors(
    config: PrometheusMetrics, dataplane: Resource, abilities: Abilities, *, has_mtls: bool
) -> Iterator[tuple[Document | None, Document | None]]:
    """Match and transport socket of each filter chain."""
    mode = PrometheusTlsMode.DISABLED if config.skip_mtls else PrometheusTlsMode.ACTIVE_MTLS_BACKEND
    if config.tls is not None:
        mode = config.tls.mode
    if mode is PrometheusTlsMode.ACTIVE_MTLS_BACKEND and has_mtls:
        # A Prometheus beside this proxy reads it, too, and its connections do not go through mTLS.
        address = cast("Dataplane", dataplane.spec).networking.address
        own = {"addressPrefix": address, "prefixLen": ip_address(address).max_prefixlen}
        yield {"sourcePrefixRanges": [own]}, None
        yield None, tls.inbound(dataplane.key.mesh)
    elif mode is PrometheusTlsMode.PROVIDED_TLS and abilities.metrics_cert and abilities.metrics_key:
        # Kuma has a second chain for TLS without TLS in it, to which no request gets.
        certificate = {
            "certificateChain": {"filename": abilities.metrics_cert},
            "privateKey": {"filename": abilities.metrics_key},
        }
        context = {"commonTlsContext": {"tlsCertificates": [certificate]}}
        yield None, tls.transport_socket("DownstreamTlsContext", context)
    else:
        # Like Kuma's, also where TLS was wanted and the proxy has no certificate to show.
        yield None, None


def _query(config: PrometheusMetrics) -> str:
    """What of Envoy's metrics is asked for, in the way its admin API wants it."""
    envoy = config.envoy or PrometheusEnvoy()
    parts = [f"filter={quote(envoy.filter_regex, safe=REGEX_SIGNS)}"] if envoy.filter_regex else []
    if envoy.used_only:
        parts.append("usedonly")
    return "?" + "&".join(parts) if parts else ""


def is_taken(dataplane: Resource, port: int) -> bool:
    """Whether the Dataplane itself, or its application, listens at this port of its address."""
    networking = cast("Dataplane", dataplane.spec).networking
    places: set[tuple[str, int]] = set()
    for inbound in networking.inbound:
        address = inbound.address or networking.address
        places |= {(address, inbound.port), (inbound.service_address or address, inbound.application_port)}
    places |= {(outbound.address or LOOPBACKS[0], outbound.port) for outbound in networking.outbound}
    return any(p == port and _overlap(address, networking.address) for address, p in places)


def _overlap(one: str, other: str) -> bool:
    return one == other or any(clusters.is_ip(a) and ip_address(a).is_unspecified for a in (one, other))
