"""The MeshRetry that a new mesh begins with. Source: Kuma ``pkg/defaults/mesh/meshretry.go`` (values)."""

from datetime import timedelta

from meshd.model.resource import Resource, ResourceKey
from meshd.policies.mesh_retry.spec import BackOff, Conf, Grpc, Http, MeshRetry, Tcp, To
from meshd.rules.target_ref import WHOLE_MESH

ATTEMPTS = 5
PER_TRY = timedelta(seconds=16)
"""Longer than the request timeout of a new mesh: by default only a failure is tried again, not slowness."""
BACK_OFF = BackOff(base_interval=timedelta(milliseconds=25), max_interval=timedelta(milliseconds=250))
SPEC = MeshRetry(
    target_ref=WHOLE_MESH,
    to=(
        To(
            target_ref=WHOLE_MESH,
            default=Conf(
                tcp=Tcp(max_connect_attempt=ATTEMPTS),
                http=Http(num_retries=ATTEMPTS, per_try_timeout=PER_TRY, back_off=BACK_OFF),
                grpc=Grpc(num_retries=ATTEMPTS, per_try_timeout=PER_TRY, back_off=BACK_OFF),
            ),
        ),
    ),
)


def initial(mesh: str) -> tuple[Resource, ...]:
    """One for all."""
    return (Resource(ResourceKey("MeshRetry", mesh, f"mesh-retry-all-{mesh}"), SPEC),)
