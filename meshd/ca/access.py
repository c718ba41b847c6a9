"""Issue and check tokens against the keys that a store has: what REST, KDS, xDS and the command line call.

Nothing here decides who may ask for a token; that is the caller's.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from meshd.ca import signing, tokens
from meshd.ca.identity import tag_values
from meshd.model.duration import format_go_duration
from meshd.model.errors import InvalidError, NotFoundError, Violation
from meshd.model.names import zone_name_violations
from meshd.model.resource import Resource, ResourceKey
from meshd.store.store import Store

ADMIN = "mesh-system:admin"
AUTHENTICATED = "mesh-system:authenticated"
DEFAULT_VALID_FOR = tokens.MAX_LIFE
"""How long a token lives if nobody says: ten years, what kumactl's users know."""
PROXY_TYPES = ("", "dataplane", "ingress", "egress")


@dataclass(frozen=True, slots=True)
class User:
    """Who calls the REST API. ``groups`` of somebody who showed a token contain ``mesh-system:authenticated``."""

    name: str
    groups: tuple[str, ...]

    @property
    def is_admin(self) -> bool:
        """Whether Kuma's default access lets them read secrets and issue tokens."""
        return self.name == ADMIN or ADMIN in self.groups


def issue_zone_token(store: Store, zone: str, scope: Iterable[str], valid_for: timedelta, now: datetime) -> str:
    """A token with which a zone's control plane (scope ``cp``), ingress or egress shows that it is of ``zone``.

    Raises:
        InvalidError: a scope is unknown, missing or ``cp`` without a zone, or ``valid_for`` is out of range.
        NotFoundError: there is no signing key here, as in a federated zone.
    """
    wanted = tuple(dict.fromkeys(scope))
    violations = [
        Violation("scope", f"'{s}' is unknown; choose from {', '.join(tokens.SCOPES)}")
        for s in wanted
        if s not in tokens.SCOPES
    ]
    if not wanted:
        violations.append(Violation("scope", f"cannot be empty; choose from {', '.join(tokens.SCOPES)}"))
    if not zone and tokens.CONTROL_PLANE in wanted:
        violations.append(Violation("zone", f"cannot be empty in a token of scope '{tokens.CONTROL_PLANE}'"))
    if zone:
        violations += zone_name_violations(zone, "zone")  # no zone can have another name
    return issue(store, signing.ZONE, tokens.ZoneClaims(zone, wanted), violations, valid_for, now)


def issue_dataplane_token(
    store: Store,
    mesh: str,
    valid_for: timedelta,
    now: datetime,
    *,
    name: str = "",
    tags: Mapping[str, Iterable[str]] | None = None,
    proxy_type: str = "",
    workload: str = "",
) -> str:
    """A token with which a proxy shows that it may be a Dataplane of ``mesh``; what is given binds it further.

    Raises:
        InvalidError: there is no mesh name, the type is unknown, or ``valid_for`` is out of range.
        NotFoundError: the mesh or its signing key does not exist here.
    """
    violations = []
    if not mesh:
        violations.append(Violation("mesh", "cannot be empty"))
    elif store.get(ResourceKey("Mesh", "", mesh)) is None:
        raise NotFoundError(f"Signing Key not found: there is no mesh '{mesh}'")
    if proxy_type not in PROXY_TYPES:
        message = f"'{proxy_type}' is unknown; choose from {', '.join(PROXY_TYPES[1:])}"
        violations.append(Violation("type", message))
    bound = {tag: tuple(sorted(set(values))) for tag, values in sorted((tags or {}).items())}
    claims = tokens.DataplaneClaims(name, mesh, bound, proxy_type, workload)
    return issue(store, signing.dataplane_family(mesh), claims, violations, valid_for, now)


def issue_user_token(store: Store, name: str, groups: Iterable[str], valid_for: timedelta, now: datetime) -> str:
    """A token with which a user calls the REST API of the control plane that issued it.

    Raises:
        InvalidError: there is no name, or ``valid_for`` is out of range.
        NotFoundError: there is no signing key here.
    """
    violations = [] if name else [Violation("name", "cannot be empty")]
    claims = tokens.UserClaims(name, tuple(dict.fromkeys(groups)))
    return issue(store, signing.USER, claims, violations, valid_for, now)


def issue(
    store: Store,
    family: signing.Family,
    claims: tokens.ZoneClaims | tokens.DataplaneClaims | tokens.UserClaims,
    violations: list[Violation],
    valid_for: timedelta,
    now: datetime,
) -> str:
    """A token of a family, unless there are ``violations`` or the period is out of range."""
    if not timedelta() < valid_for <= tokens.MAX_LIFE:
        message = f"is {format_go_duration(valid_for)}; give more than 0 and at most {tokens.MAX_LIFE.days} days"
        violations = [*violations, Violation("validFor", message)]
    if violations:
        raise InvalidError(family.what, violations)
    key = signing.signing_key(store, family)
    return tokens.issue(claims, key, token_id=str(uuid.uuid4()), valid_for=valid_for, now=now)


def authenticate_user(store: Store, token: str, now: datetime) -> User:
    """Who a user token names.

    Raises:
        DeniedError: it is not to be trusted; says why.
    """
    claims = tokens.user_claims(tokens.verify(token, signing.key_ring(store, signing.USER), now))
    return User(claims.name, tuple(dict.fromkeys((*claims.groups, AUTHENTICATED))))


def authenticate_zone(store: Store, token: str, zone: str, scope: str, now: datetime) -> tokens.ZoneClaims:
    """Check that a token is for ``zone`` with ``scope`` (``cp``, ``ingress`` or ``egress``).

    Raises:
        DeniedError: it is not; says why.
    """
    claims = tokens.zone_claims(tokens.verify(token, signing.key_ring(store, signing.ZONE), now))
    tokens.check_zone(claims, zone, scope)
    return claims


def authenticate_dataplane(store: Store, token: str, dataplane: Resource, now: datetime) -> tokens.DataplaneClaims:
    """Check that a token is for this Dataplane; the keys are those of the mesh it says it is in.

    Ask for the stored resource as well as for the one that is to replace it: Kuma looks at the new one only, so that
    there a token for one service takes over a proxy of another with the same name.

    Raises:
        DeniedError: it is not; says why.
    """
    family = signing.dataplane_family(dataplane.key.mesh)
    claims = tokens.dataplane_claims(tokens.verify(token, signing.key_ring(store, family), now))
    tokens.check_dataplane(
        claims,
        mesh=dataplane.key.mesh,
        name=dataplane.key.name,
        tags=tag_values(dataplane),
        labels=dataplane.labels,
    )
    return claims
