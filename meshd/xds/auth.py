"""Who a proxy is allowed to be: its token against the resource that it says it is.

Source: reference/dataplane.md 2.4.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from meshd.ca import access, tokens
from meshd.ca.internal import InternalCredentials, is_internal
from meshd.model.errors import DeniedError
from meshd.model.resource import Resource
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
