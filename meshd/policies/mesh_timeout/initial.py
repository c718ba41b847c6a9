"""The MeshTimeouts that a new mesh begins with.

Source: Kuma ``pkg/defaults/mesh/meshtimeout.go``, ``pkg/plugins/policies/core/defaults`` (values).
"""

from meshd.model.resource import Resource, ResourceKey
from meshd.policies.mesh_timeout.spec import Conf, From, Http, MeshTimeout, To
from meshd.policies.mesh_timeout.values import (
    CONNECTION,
    GATEWAY_IDLE,
    GATEWAY_REQUEST_HEADERS,
    GATEWAY_STREAM_IDLE,
    IDLE,
    NONE,
    REQUEST,
    STREAM_IDLE,
)
from meshd.rules.target_ref import WHOLE_MESH, Kind, ProxyType, TargetRef

SERVER_FACTOR = 2
"""A server waits longer than its clients, so that it is they who give up."""


def initial(mesh: str) -> tuple[Resource, ...]:
    """One for the sidecars and one for the gateways."""
    return (
        _policy(f"mesh-timeout-all-{mesh}", mesh, SIDECARS),
        _policy(f"mesh-gateways-timeout-all-{mesh}", mesh, GATEWAYS),
    )


def _policy(name: str, mesh: str, spec: MeshTimeout) -> Resource:
    return Resource(ResourceKey("MeshTimeout", mesh, name), spec)


def _proxies(proxy_type: ProxyType) -> TargetRef:
    return TargetRef(kind=Kind.MESH, proxy_types=(proxy_type,))


SIDECARS = MeshTimeout(
    target_ref=_proxies(ProxyType.SIDECAR),
    to=(
        To(
            target_ref=WHOLE_MESH,
            default=Conf(
                connection_timeout=CONNECTION,
                idle_timeout=IDLE,
                http=Http(request_timeout=REQUEST, stream_idle_timeout=STREAM_IDLE),
            ),
        ),
    ),
    from_=(
        From(
            target_ref=WHOLE_MESH,
            default=Conf(
                connection_timeout=SERVER_FACTOR * CONNECTION,
                idle_timeout=SERVER_FACTOR * IDLE,
                http=Http(
                    request_timeout=NONE, stream_idle_timeout=SERVER_FACTOR * STREAM_IDLE, max_stream_duration=NONE
                ),
            ),
        ),
    ),
)
GATEWAYS = MeshTimeout(
    target_ref=_proxies(ProxyType.GATEWAY),
    to=(
        To(
            target_ref=WHOLE_MESH,
            default=Conf(idle_timeout=IDLE, http=Http(stream_idle_timeout=GATEWAY_STREAM_IDLE)),
        ),
    ),
    from_=(
        From(
            target_ref=WHOLE_MESH,
            default=Conf(
                idle_timeout=GATEWAY_IDLE,
                http=Http(stream_idle_timeout=GATEWAY_STREAM_IDLE, request_headers_timeout=GATEWAY_REQUEST_HEADERS),
            ),
        ),
    ),
)
