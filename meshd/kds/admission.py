"""Who may connect to the global, and as which zone. Pure: the caller reads stores and pings connections.

Design section 7: a zone proves its name with a zone token of scope ``cp``; a real Kuma zone cannot, so such zones are
admitted one by one by name and address; a zone that ever showed a token may not come without one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address

from meshd.kds.crossing import HASH_SUFFIX
from meshd.rpc import RpcError, Status

CLIENT_ID = "client-id"
AUTHORIZATION = "authorization"
FEATURES = "features"
BEARER = "bearer "
ZONE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
MAX_ZONE_NAME = 63

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class AdmittedZone:
    """A zone that may come without a token, from these addresses only."""

    name: str
    cidr: IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a call says it is; nothing of it is proven. ``token`` is empty if none was shown."""

    zone: str
    token: str = field(repr=False)
    address: str


def caller_of(metadata: Metadata, peer: str) -> Caller:
    """Name, token and address of a call.

    Raises:
        RpcError: INVALID_ARGUMENT, what it says does not name one zone.
    """
    names = values(metadata, CLIENT_ID)
    if len(names) != 1:
        raise RpcError(Status.INVALID_ARGUMENT, f'"{CLIENT_ID}" must be in the metadata once, it is {len(names)} times')
    zone = names[0]
    if len(zone) > MAX_ZONE_NAME or not ZONE_NAME.fullmatch(zone):
        raise RpcError(Status.INVALID_ARGUMENT, f"zone name {zone[:80]!r} is no DNS name of up to {MAX_ZONE_NAME}")
    tokens = values(metadata, AUTHORIZATION)
    if len(tokens) > 1:
        raise RpcError(Status.INVALID_ARGUMENT, f'zone {zone!r}: "{AUTHORIZATION}" is in the metadata more than once')
    token = tokens[0] if tokens else ""
    if token.lower().startswith(BEARER):
        token = token[len(BEARER) :].strip()
    return Caller(zone, token, peer)


def values(metadata: Metadata, key: str) -> list[str]:
    """Every value of a metadata key."""
    return [value for name, value in metadata if name == key]


def check_features(zone: str, metadata: Metadata) -> None:
    """Refuse a zone that does not hash names (before Kuma 2.6): its names could clash with those of others.

    Raises:
        RpcError: FAILED_PRECONDITION.
    """
    if HASH_SUFFIX not in values(metadata, FEATURES):
        raise RpcError(
            Status.FAILED_PRECONDITION,
            f"zone {zone!r} does not announce the feature {HASH_SUFFIX!r}; "
            "upgrade its control plane to Kuma 2.9 or later",
        )


def check_tokenless(caller: Caller, admitted: Sequence[AdmittedZone], *, token_shown_before: bool) -> None:
    """Refuse a caller without a token, unless the configuration admits that name from that address.

    Raises:
        RpcError: UNAUTHENTICATED with the reason.
    """
    if token_shown_before:
        raise RpcError(
            Status.UNAUTHENTICATED,
            f"zone {caller.zone!r} has shown a zone token before and must do so again; "
            "to let it in without one, delete its Zone first",
        )
    ranges = [zone.cidr for zone in admitted if zone.name == caller.zone]
    if not ranges:
        raise RpcError(
            Status.UNAUTHENTICATED,
            f"zone {caller.zone!r} shows no zone token; issue one of scope 'cp', "
            "or list the zone under multizone.global.kds.unauthenticatedZones",
        )
    address = host_of(caller.address)
    if not any(within(address, network) for network in ranges):
        raise RpcError(
            Status.UNAUTHENTICATED,
            f"zone {caller.zone!r} shows no zone token and comes from {address}; "
            f"without one it may come from {', '.join(map(str, ranges))} only",
        )


def host_of(peer: str) -> str:
    """The address of a peer that is given as ``address:port``."""
    host, colon, _ = peer.rpartition(":")
    return (host if colon else peer).strip("[]")


def within(address: str, network: IPv4Network | IPv6Network) -> bool:
    """Whether an address is in a network; what is no address is in none. IPv4 in IPv6 counts as IPv4."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    parsed = mapped or parsed
    return parsed.version == network.version and parsed in network


@dataclass(frozen=True, slots=True)
class Holder:
    """The connection that has a zone's name now. ``answers``: its HTTP/2 ping was answered; None: not asked.

    ``is_silent``: its zone is offline because it answers no pings, and it is kept in case it does again.
    """

    instance_id: str
    address: str
    same_connection: bool
    is_silent: bool = False
    answers: bool | None = None


def needs_ping(holder: Holder, instance_id: str, *, authenticated: bool) -> bool:
    """Whether it depends on an answer of the holder if a second connection may take the name."""
    may_stay = not (holder.is_silent or holder.same_connection or holder.instance_id == instance_id)
    return authenticated and may_stay


def check_duplicate(holder: Holder, zone: str, instance_id: str, *, authenticated: bool) -> str:
    """Decide on a second connection under a name: returns why the first is replaced.

    Raises:
        RpcError: ALREADY_EXISTS, the first stays.
    """
    if holder.same_connection:
        return "the zone opened the stream anew on the same connection"
    if instance_id and holder.instance_id == instance_id:
        return f"instance {instance_id!r} of the zone connected again"
    if holder.is_silent:
        return f"instance {instance_id!r} connected while this connection did not answer"
    if authenticated and holder.answers is False:
        return f"instance {instance_id!r} connected with a valid token, and this connection does not answer"
    why = "answers" if authenticated else "was there first and a zone without a token cannot take its place"
    raise RpcError(
        Status.ALREADY_EXISTS,
        f"zone {zone!r} is connected already, from {holder.address} as instance {holder.instance_id!r}, which {why}; "
        f"stop one of the two or give instance {instance_id!r} another zone name",
    )
