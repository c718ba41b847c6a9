"""Tokens: JSON Web Tokens that prove who a zone, a dataplane or a user is.

RS256 only, with the serial of the signing key in the header ``kid``. A token is hostile until its signature is
checked, and its claims are checked for type even then. The algorithm is ours to say, never the token's; ``kid`` is
compared with the keys we have and never becomes a name, a path or a query.

Claims are Kuma's: ``Zone``, ``Scope``; ``Name``, ``Mesh``, ``Tags``, ``Type``, ``Workload``; ``Name``, ``Groups``; and
``jti``, ``iat``, ``nbf``, ``exp``. Scope ``cp`` is ours: a zone control plane shows it to the global.

Source: reference/dataplane.md 2.4 and 6.4, reference/kds.md 3.3; Kuma ``pkg/core/tokens`` (behaviour).
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from meshd.ca import rsa_pem
from meshd.model import labels as label
from meshd.model.errors import DeniedError

ALGORITHM = "RS256"
SKEW = timedelta(seconds=5)
"""How far a peer's clock may be off: tokens are back-dated by it, and times are checked with it."""
MAX_TOKEN_CHARS = 16 * 1024
"""No HTTP/2 or HTTP/1.1 peer of ours takes longer headers anyway; a real token has under 2 KiB."""
MAX_LIFE = timedelta(days=3650)
"""Kuma's default when nobody says how long; ours is the same, for its clients, and is also the most we give."""

INGRESS = "ingress"
EGRESS = "egress"
CONTROL_PLANE = "cp"
SCOPES = (CONTROL_PLANE, INGRESS, EGRESS)

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The key that signs new tokens; ``kid`` is its serial."""

    kid: str
    private: rsa.RSAPrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """What tokens of one kind are checked with.

    ``public`` maps ``kid`` to the key in PEM or DER, private or public, unparsed: one bad key harms only its own
    tokens. ``where`` says where a missing key should be ("GlobalSecret 'zone-token-signing-key-{kid}'").
    """

    what: str
    where: str
    public: Mapping[str, bytes] = field(repr=False)
    revoked: frozenset[str]


@dataclass(frozen=True, slots=True)
class ZoneClaims:
    """``zone`` is empty in a token for every zone."""

    zone: str
    scope: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataplaneClaims:
    """An empty field binds the token to nothing. ``tags`` maps a tag to the values it may have. ``type`` informs."""

    name: str = ""
    mesh: str = ""
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    type: str = ""
    workload: str = ""


@dataclass(frozen=True, slots=True)
class UserClaims:
    """Whom a user token names."""

    name: str
    groups: tuple[str, ...]


def issue(
    claims: ZoneClaims | DataplaneClaims | UserClaims,
    key: SigningKey,
    *,
    token_id: str,
    valid_for: timedelta,
    now: datetime,
) -> str:
    """A signed token. ``token_id`` is what a revocation names; it must be unique, as a UUID is.

    Raises:
        ValueError: ``valid_for`` is not above zero or beyond ``MAX_LIFE``.
    """
    if not timedelta() < valid_for <= MAX_LIFE:
        raise ValueError(f"validFor is {valid_for}; give more than 0 and at most {MAX_LIFE.days} days")
    begins = int((now - SKEW).timestamp())
    registered = {"exp": int((now + valid_for).timestamp()), "nbf": begins, "iat": begins, "jti": token_id}
    return jwt.encode({**to_json(claims), **registered}, key.private, algorithm=ALGORITHM, headers={"kid": key.kid})


def to_json(claims: ZoneClaims | DataplaneClaims | UserClaims) -> dict[str, object]:
    """The claims as Kuma writes them."""
    match claims:
        case ZoneClaims():
            return {"Zone": claims.zone, "Scope": list(claims.scope)}
        case DataplaneClaims():
            tags = {tag: sorted(values) for tag, values in sorted(claims.tags.items())}
            bound = {"Name": claims.name, "Mesh": claims.mesh, "Tags": tags, "Type": claims.type}
            return {**bound, "Workload": claims.workload}
        case UserClaims():
            return {"Name": claims.name, "Groups": list(claims.groups)}


def verify(token: str, keys: KeyRing, now: datetime) -> Json:
    """The claims of a token that is genuine, in time and not revoked; what they are worth is the caller's to say.

    Raises:
        DeniedError: it is not; the reason is for the logs of both ends and holds nothing secret.
    """
    if not token:
        raise DeniedError(f"no {keys.what} given")
    if len(token) > MAX_TOKEN_CHARS:
        raise DeniedError(f"{keys.what} has {len(token)} characters; at most {MAX_TOKEN_CHARS} are read")
    kid = key_id(token, keys)
    try:
        claims = jwt.decode(token, public_key_for(kid, keys), algorithms=[ALGORITHM], options=SIGNATURE_ONLY)
    except jwt.InvalidSignatureError:
        raise DeniedError(f"signature of the {keys.what} is not by key '{kid}' ({place(keys, kid)})") from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise DeniedError(f"{keys.what} is damaged: its payload is not a JSON object") from None
    check_times(claims, keys, now)
    token_id = claims.get("jti", "")
    if not isinstance(token_id, str):
        raise DeniedError(f"{keys.what} has an id (jti) that is not a string")
    if token_id and token_id in keys.revoked:
        raise DeniedError(f"{keys.what} '{token_id}' is revoked")
    return claims


SIGNATURE_ONLY: jwt.types.Options = {
    "verify_signature": True,
    # times are checked against our clock and with our words; the rest is not used by Kuma's tokens
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def key_id(token: str, keys: KeyRing) -> str:
    """The ``kid`` of a token whose header is in order."""
    parts = token.split(".")
    try:
        # not by PyJWT: its reasons for refusing a header are not told apart
        header = json.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    except (ValueError, RecursionError):
        header = None
    if len(parts) != 3 or not isinstance(header, dict):
        raise DeniedError(f"{keys.what} is not a JSON Web Token")
    algorithm = header.get("alg")
    if algorithm != ALGORITHM:
        raise DeniedError(f"{keys.what} has algorithm {shown(algorithm)}; only {ALGORITHM} is accepted")
    if header.get("crit") is not None:
        raise DeniedError(f"{keys.what} has critical headers, which are not known here")
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise DeniedError(f"{keys.what} has header kid {shown(kid)}; a string is needed")
    return kid


def public_key_for(kid: str, keys: KeyRing) -> rsa.RSAPublicKey:
    """The key that a token names."""
    data = keys.public.get(kid)
    if data is None:
        where = place(keys, shown(kid).strip("'"))
        raise DeniedError(f"there is no signing key {shown(kid)} ({where}); if the key was rotated, issue a new token")
    try:
        return rsa_pem.public_key(data)
    except ValueError as error:
        raise DeniedError(f"{place(keys, kid)} {error}; put a right one there") from None


def place(keys: KeyRing, kid: str) -> str:
    """Where the key of a serial is, or should be. No format string: mesh names in it come from peers."""
    return keys.where.replace("{kid}", kid)


def check_times(claims: Json, keys: KeyRing, now: datetime) -> None:
    """Refuse a token that has no end, has ended, or begins in the future."""
    expires = moment(claims, "exp", keys)
    if expires is None:
        raise DeniedError(f"{keys.what} has no expiration (exp)")
    if now >= expires + SKEW:
        raise DeniedError(f"{keys.what} expired at {expires.isoformat()}, now it is {stamp(now)}; issue a new one")
    begins = moment(claims, "nbf", keys)
    if begins is not None and now + SKEW < begins:
        clock = "compare the clocks of this host and of the one that issued it"
        raise DeniedError(f"{keys.what} is not valid before {begins.isoformat()}, now it is {stamp(now)}; {clock}")
    moment(claims, "iat", keys)


def moment(claims: Json, name: str, keys: KeyRing) -> datetime | None:
    """A NumericDate claim, None if absent."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DeniedError(f"{keys.what} has {name} {shown(value)}; a number of seconds is needed")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise DeniedError(f"{keys.what} has {name} {shown(value)}; that is no time") from None


def zone_claims(claims: Json) -> ZoneClaims:
    """The claims of a zone token.

    Raises:
        DeniedError: one has a wrong type.
    """
    return ZoneClaims(text(claims, "Zone", "zone token"), texts(claims, "Scope", "zone token"))


def dataplane_claims(claims: Json) -> DataplaneClaims:
    """The claims of a dataplane token.

    Raises:
        DeniedError: one has a wrong type.
    """
    what = "dataplane token"
    tags = claims.get("Tags")
    tags = {} if tags is None else tags
    if not isinstance(tags, dict):
        raise DeniedError(f"{what} has Tags {shown(tags)}; a map of tags to lists is needed")
    return DataplaneClaims(
        text(claims, "Name", what),
        text(claims, "Mesh", what),
        {tag: texts(tags, tag, what) for tag in tags},
        text(claims, "Type", what),
        text(claims, "Workload", what),
    )


def user_claims(claims: Json) -> UserClaims:
    """The claims of a user token.

    Raises:
        DeniedError: one has a wrong type, or there is no name.
    """
    name = text(claims, "Name", "user token")
    if not name:
        raise DeniedError("user token names nobody (Name)")
    return UserClaims(name, texts(claims, "Groups", "user token"))


def check_zone(claims: ZoneClaims, zone: str, scope: str) -> None:
    """Refuse a zone token that is not for ``zone`` or lacks ``scope``.

    A token without a zone is for every zone as Kuma's are, but not as a control plane: there the token is the name.
    """
    if scope not in claims.scope:
        raise DeniedError(f"zone token has scope [{', '.join(claims.scope)}], which does not contain '{scope}'")
    if claims.zone and claims.zone != zone:
        raise DeniedError(f"zone token is for zone '{claims.zone}', this is '{zone}'")
    if not claims.zone and scope == CONTROL_PLANE:
        raise DeniedError(f"zone token is for no particular zone; a control plane needs one for zone '{zone}'")


def check_dataplane(
    claims: DataplaneClaims, *, mesh: str, name: str, tags: Mapping[str, Sequence[str]], labels: Mapping[str, str]
) -> None:
    """Refuse a dataplane token that is not for this proxy; ``tags`` are those of all its inbounds and its gateway.

    ``Type`` is not enforced, as in Kuma.
    """
    if claims.name and claims.name != name:
        raise DeniedError(f"dataplane token is for '{claims.name}', this is '{name}'")
    if claims.mesh and claims.mesh != mesh:
        raise DeniedError(f"dataplane token is for mesh '{claims.mesh}', this is mesh '{mesh}'")
    for tag, allowed in sorted(claims.tags.items()):
        if tag not in tags:
            raise DeniedError(f"dataplane '{name}' has no tag '{tag}', which its token requires")
        for value in sorted(set(tags[tag]) - set(allowed)):
            may = ", ".join(sorted(allowed))
            raise DeniedError(f"dataplane '{name}' has tag '{tag}={value}'; its token allows [{may}]")
    workload = labels.get(label.WORKLOAD, "")
    if claims.workload and claims.workload != workload:
        raise DeniedError(f"dataplane token is for workload '{claims.workload}', '{name}' has '{workload}'")


def text(claims: Json, name: str, what: str) -> str:
    """A claim that is a string, empty if absent or null."""
    value = claims.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DeniedError(f"{what} has {name} {shown(value)}; a string is needed")
    return value


def texts(claims: Json, name: str, what: str) -> tuple[str, ...]:
    """A claim that is a list of strings, empty if absent or null."""
    value = claims.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DeniedError(f"{what} has {name} {shown(value)}; a list of strings is needed")
    return tuple(value)


def shown(value: object) -> str:
    """A value of a hostile token as it may stand in a log: short, quoted, one line of ASCII."""
    if isinstance(value, str):
        printable = value[:32].encode("ascii", "backslashreplace").decode()
        return (
            "'" + "".join(c if c.isprintable() else "?" for c in printable) + ("..." if len(value) > 32 else "") + "'"
        )
    return json.dumps(value, ensure_ascii=True, default=str)[:32] if value is not None else "missing"


def stamp(now: datetime) -> str:
    """A time for a message, to the second."""
    return now.replace(microsecond=0).isoformat()
