"""Who a proxy is allowed to be: its token against the resource that it says it is.

Source: reference/dataplane.md 2.4.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from meshd.ca import access, signing, tokens
from meshd.ca.internal import InternalCredentials, is_internal
from meshd.model.errors import DeniedError
from meshd.model.resource import Resource, ResourceKey
from meshd.store.store import Store

AUTHORIZATION = "authorization"
SCOPE_OF = {"ZoneIngress": tokens.INGRESS, "ZoneEgress": tokens.EGRESS}


@dataclass(frozen=True, slots=True)
class Authn:
    """Which proxies must show a token: Dataplanes, zone proxies. ``zone`` is this control plane's.

    ``internal`` knows the Envoys that this process runs, which show what it gave them.
    """

    zone: str
    dataplane_tokens: bool = True
    zone_tokens: bool = True
    internal: InternalCredentials = field(default_factory=InternalCredentials)

    def needs_token(self, kind: str) -> bool:
        """Whether proxies of a kind must show one."""
        return self.dataplane_tokens if kind == "Dataplane" else self.zone_tokens


def credential(metadata: Iterable[tuple[str, str]]) -> str:
    """The token of a call: the bare JWT, as Kuma has it; empty if it shows none.

    Raises:
        DeniedError: it shows several.
    """
    found = [value for name, value in metadata if name == AUTHORIZATION]
    if len(found) > 1:
        raise DeniedError(f"a call must have exactly one '{AUTHORIZATION}', this has {len(found)}")
    return found[0] if found else ""


def check_bearer(store: Store, authn: Authn, token: str, mesh: str, name: str, now: datetime) -> None:
    """Check what can be without reading more of a call: that the token may be a proxy's of this mesh and name.

    ``mesh`` is empty for zone proxies. What the token says of tags and of the kind is for ``authenticate``.

    Raises:
        DeniedError: it may not; says why.
    """
    if is_internal(token):
        kinds = ("Dataplane",) if mesh else SCOPE_OF
        if not any(authn.internal.proves(ResourceKey(kind, mesh, name), token) for kind in kinds):
            raise DeniedError(f"proxy {mesh}.{name} is not run by this control plane, or by another run of it")
    elif mesh:
        if authn.dataplane_tokens:
            ring = signing.key_ring(store, signing.dataplane_family(mesh))
            claims = tokens.dataplane_claims(tokens.verify(token, ring, now))
            bound = replace(claims, tags={}, workload="")
            tokens.check_dataplane(bound, mesh=mesh, name=name, tags={}, labels={})
    elif authn.zone_tokens:
        of_zone = tokens.zone_claims(tokens.verify(token, signing.key_ring(store, signing.ZONE), now))
        scope = next((s for s in SCOPE_OF.values() if s in of_zone.scope), tokens.INGRESS)
        tokens.check_zone(of_zone, authn.zone, scope)


def authenticate(store: Store, authn: Authn, token: str, resources: Iterable[Resource], now: datetime) -> None:
    """Check that whoever shows this token may be all of these: the resource as stored, and as it is to be.

    Raises:
        DeniedError: it may not; says why.
    """
    for resource in resources:
        kind = resource.key.kind
        if is_internal(token):
            if not authn.internal.proves(resource.key, token):
                raise DeniedError(f"{resource.key} is not run by this control plane, or by another run of it")
            continue
        if not authn.needs_token(kind):
            continue
        if kind == "Dataplane":
            access.authenticate_dataplane(store, token, resource, now)
        else:
            access.authenticate_zone(store, token, authn.zone, SCOPE_OF[kind], now)
