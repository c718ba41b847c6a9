"""What Kuma calls the resources of a proxy; policies of its users and dashboards know these names.

Source: reference/dataplane.md 3.2; Kuma ``pkg/xds/envoy/names/resource_names.go``, ``pkg/xds/envoy/tags``.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping

from meshd.model import labels as label

ADMIN = "kuma:envoy:admin"
READINESS = "kuma:readiness"
DNS = "kuma:dns"
DYNAMIC_CONFIG = "_kuma:dynamicconfig"
PROMETHEUS = "kuma:metrics:prometheus"
METRICS_HIJACKER = "kuma:metrics:hijacker"
NO_DESTINATION_INBOUND = "self_transparentproxy_no_destination_inbound"
DIRECT_ACCESS = "direct_access"
PROBES = "probe:listener"
PROBE_ROUTES = "probe:route_configuration"
ADS_CLUSTER = "ads_cluster"
NOWHERE = "meshd:nowhere"
"""A cluster that is never there: an Envoy closes connections that are routed to it."""

_NOT_IN_STATS = re.compile(r"[^a-zA-Z_\-0-9]")
MAX_SOCKET_PATH = 98
"""Longer socket paths are cut before their ending is added (Kuma ``pkg/core/xds/sockets.go``)."""


def stat_name(name: str) -> str:
    """A name as a part of the names of Envoy's statistics, which separate their parts by dots."""
    return _NOT_IN_STATS.sub("_", name)


def at(address: str, port: int) -> str:
    """``address:port``, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def inbound_listener(address: str, port: int) -> str:
    """The listener of an inbound, of an ingress and of an egress."""
    return f"inbound:{at(address, port)}"


def outbound_listener(address: str, port: int) -> str:
    """The listener of an outbound."""
    return f"outbound:{at(address, port)}"


def local_cluster(port: int) -> str:
    """The application behind an inbound; ``port`` is where it listens."""
    return f"localhost:{port}"


def inbound_routes(service: str) -> str:
    """The route configuration of an inbound."""
    return f"inbound:{service}"


def outbound_routes(service: str) -> str:
    """The route configuration of an outbound."""
    return f"outbound:{service}"


def service_cluster(service: str, tags: Iterable[tuple[str, str]] = ()) -> str:
    """The cluster of a service, or of its instances with some tags (which do not name the service)."""
    narrowing = dict(tags)
    if not narrowing:
        return service
    pairs = sorted({label.SERVICE: service, **narrowing}.items())
    digest = hashlib.sha256("".join(key + value for key, value in pairs).encode()).hexdigest()
    return f"{service}-{digest[:16]}"


def mesh_cluster(mesh: str, service: str, tags: Iterable[tuple[str, str]] = ()) -> str:
    """The cluster of a service at an ingress or egress, which serve all meshes."""
    return f"{mesh}:{service_cluster(service, tags)}"


def egress_chain(service: str, mesh: str) -> str:
    """The filter chain of an external service at an egress."""
    return f"{service}_{mesh}"


def passthrough(direction: str, family: str) -> str:
    """Listener and cluster for redirected traffic to nowhere in particular: inbound or outbound, ipv4 or ipv6."""
    return f"{direction}:passthrough:{family}"


def identity_secret(mesh: str) -> str:
    """The SDS secret with the proxy's own certificate."""
    return f"identity_cert:secret:{mesh}"


def ca_secret(mesh: str) -> str:
    """The SDS secret with the roots of a mesh."""
    return f"mesh_ca:secret:{mesh}"


def socket_path(workdir: str, name: str) -> str:
    """A socket of a proxy's work directory, by the path that Go's ``filepath.Join`` gives it."""
    return posixpath.normpath(posixpath.join(workdir, name))[:MAX_SOCKET_PATH] + ".sock"


def tags_header(tags: Mapping[str, Iterable[str]]) -> str:
    """The value of ``x-kuma-tags``: who is asking, ``&key=value,value&`` for each tag in order."""
    return "".join(f"&{key}={','.join(sorted(set(values)))}&" for key, values in sorted(tags.items()))
