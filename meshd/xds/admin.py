"""Envoy's admin API and whether the proxy is ready, as far as others may ask.

Source: reference/dataplane.md 3.7; Kuma ``pkg/xds/generator/admin_proxy_generator.go`` (behaviour). Kuma's chain for
its own control plane (TLS, a client certificate of ``envoy-admin-ca``) is not here: nothing in meshd asks.
"""

from collections.abc import Iterator

from meshd.xds import clusters, listeners, names, static_http
from meshd.xds.abilities import Abilities
from meshd.xds.encode import Document
from meshd.xds.resources import CLUSTER, LISTENER, XdsResource, resource

LOOPBACK_OF = {"": "127.0.0.1", "127.0.0.1": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::1": "::1", "::": "::1"}  # noqa: S104
"""Where the admin API is reached from beside it, by the address it listens at."""
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104
READY = "/ready"


def refusal(abilities: Abilities) -> tuple[str, str] | None:
    """What is wrong with this admin API, and why, so that its proxy gets no configuration; None if it gets one.

    The address comes from the proxy's own word: were it free, the proxy would lead others to any host it can reach.
    """
    if not abilities.has_admin or abilities.admin_address in LOOPBACK_OF:
        return None
    allowed = ", ".join(f'"{address}"' for address in LOOPBACK_OF)
    return "node metadata dataplane.admin.address", f'is "{abilities.admin_address[:100]}", must be one of {allowed}'


def admin(address: str, abilities: Abilities) -> Iterator[XdsResource]:
    """The clusters of the admin API and of readiness, and a listener at ``address``, the proxy's, that tells readiness.

    Nothing without an admin API, or with one that ``refusal`` refuses. Without a kuma-dp that reports it, readiness is
    Envoy's own. There is no listener where the admin API itself listens.
    """
    if not abilities.has_admin or refusal(abilities):
        return
    loopback = LOOPBACK_OF[abilities.admin_address]
    at_admin = (
        clusters.at_pipe(abilities.admin_socket)
        if abilities.admin_socket
        else clusters.at_socket(loopback, abilities.admin_port)
    )
    yield _cluster(names.ADMIN, at_admin)
    readiness = _readiness(loopback, abilities)
    if readiness is not None:
        yield _cluster(names.READINESS, readiness)
    is_taken = address == loopback or (abilities.admin_address in WILDCARDS and not abilities.admin_socket)
    if abilities.admin_port and not is_taken:
        route = static_http.forward(READY, names.READINESS, READY)
        if readiness is None:
            # Exactly this path: what else the admin API does is not for others.
            route = listeners.route_to(names.ADMIN, {"path": READY})
        listener = static_http.inbound_listener(names.ADMIN, address, abilities.admin_port, abilities)
        listener["filterChains"] = [static_http.chain(names.ADMIN, [route], abilities)]
        yield resource(LISTENER, listener)


def _readiness(loopback: str, abilities: Abilities) -> Document | None:
    """Where kuma-dp says whether the proxy is ready."""
    if abilities.readiness_socket:
        return clusters.at_pipe(names.socket_path(abilities.workdir, "kuma-readiness-reporter"))
    return clusters.at_socket(loopback, abilities.readiness_port) if abilities.readiness_port else None


def _cluster(name: str, endpoint: Document) -> XdsResource:
    return resource(CLUSTER, clusters.fixed(name, "STATIC", [endpoint], clusters.DEFAULT_CONNECT_TIMEOUT))
