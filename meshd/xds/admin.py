"""Envoy's admin API and whether the proxy is ready, as far as others may ask.

Everybody may ask for readiness. The control plane, which shows its certificate, may read what ``INSPECTED`` has; what
else the admin API does (it ends the Envoy, too) nobody gets to from outside.

Source: reference/dataplane.md 3.7; Kuma ``pkg/xds/generator/admin_proxy_generator.go`` (behaviour; its chain for the
control plane leads to all of the admin API).
"""

from collections.abc import Iterator

from meshd.ca.envoy_admin import AdminTls
from meshd.xds import clusters, listeners, names, static_http, tls
from meshd.xds.abilities import Abilities
from meshd.xds.encode import Document
from meshd.xds.resources import CLUSTER, LISTENER, XdsResource, resource

LOOPBACK_OF = {"": "127.0.0.1", "127.0.0.1": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::1": "::1", "::": "::1"}  # noqa: S104
"""Where the admin API is reached from beside it, by the address it listens at."""
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104
READY = "/ready"
INSPECTED = ("/config_dump", "/stats", "/clusters")


def refusal(abilities: Abilities) -> tuple[str, str] | None:
    """What is wrong with this admin API, and why, so that its proxy gets no configuration; None if it gets one.

    The address comes from the proxy's own word: were it free, the proxy would lead others to any host it can reach.
    """
    if not abilities.has_admin or abilities.admin_address in LOOPBACK_OF:
        return None
    allowed = ", ".join(f'"{address}"' for address in LOOPBACK_OF)
    return "node metadata dataplane.admin.address", f'is "{abilities.admin_address[:100]}", must be one of {allowed}'


def has_listener(address: str, port: int, admin_address: str, socket: str) -> bool:
    """Whether a proxy at ``address`` has a listener for this at the ``port`` that its admin API is said to be at.

    ``admin_address`` and ``socket`` are where the API itself is: on this address there is none beside it.
    """
    is_taken = address == LOOPBACK_OF.get(admin_address) or (admin_address in WILDCARDS and not socket)
    return bool(port) and not is_taken


def admin(address: str, abilities: Abilities, shown: AdminTls | None) -> Iterator[XdsResource]:
    """The clusters of the admin API and of readiness, and a listener for both at ``address``, the proxy's.

    Nothing without an admin API, or with one that ``refusal`` refuses. Without a kuma-dp that reports it, readiness is
    Envoy's own. ``shown`` None: the listener tells readiness only.
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
    if has_listener(address, abilities.admin_port, abilities.admin_address, abilities.admin_socket):
        route = static_http.forward(READY, names.READINESS, READY)
        if readiness is None:
            # Exactly this path: what else the admin API does is not for others.
            route = listeners.route_to(names.ADMIN, {"path": READY})
        listener = static_http.inbound_listener(names.ADMIN, address, abilities.admin_port, abilities)
        chains = [static_http.chain(names.ADMIN, [route], abilities)]
        if shown is not None:
            routes = [route, *(listeners.route_to(names.ADMIN, {"path": path}) for path in INSPECTED)]
            match = {"transportProtocol": "tls"}
            chains.append(static_http.chain(names.ADMIN, routes, abilities, match, tls.admin(shown)))
            listener["listenerFilters"] = [listeners.TLS_INSPECTOR]
        listener["filterChains"] = chains
        yield resource(LISTENER, listener)


def _readiness(loopback: str, abilities: Abilities) -> Document | None:
    """Where kuma-dp says whether the proxy is ready."""
    if abilities.readiness_socket:
        return clusters.at_pipe(names.socket_path(abilities.workdir, "kuma-readiness-reporter"))
    return clusters.at_socket(loopback, abilities.readiness_port) if abilities.readiness_port else None


def _cluster(name: str, endpoint: Document) -> XdsResource:
    return resource(CLUSTER, clusters.fixed(name, "STATIC", [endpoint], clusters.DEFAULT_CONNECT_TIMEOUT))
