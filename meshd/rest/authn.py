"""Who is calling. Pure: headers and addresses in, a user out.

Being on this machine makes one an administrator only if the request is direct: a browser that a web page steers, or a
reverse proxy in front, is on this machine too. Source: reference/dataplane.md 6.4, reference/field.md S8.
"""

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from meshd.ca.access import ADMIN, User
from meshd.model.errors import DeniedError
from meshd.rest.errors import RequestError

ANONYMOUS = User("mesh-system:anonymous", ("mesh-system:unauthenticated",))
LOCAL_ADMIN = User(ADMIN, (ADMIN, "mesh-system:authenticated"))

FORWARDING = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip"})
FORWARDING_PREFIXES = ("x-forwarded", "cf-connecting", "x-envoy-external", "x-original-forwarded")


def identify(
    headers: Mapping[str, str],
    peer: str,
    *,
    localhost_is_admin: bool,
    authenticate: Callable[[str], User],
) -> User:
    """The user of a request. ``headers`` have lower case names; ``authenticate`` checks a user token.

    Raises:
        RequestError: 401, a token was shown that is not to be trusted.
    """
    authorization = headers.get("authorization", "")
    if authorization:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthenticated("Authorization must be 'Bearer <user token>'")
        try:
            return authenticate(token.strip())
        except DeniedError as error:
            raise unauthenticated(str(error)) from None
    if localhost_is_admin and is_direct_and_local(headers, peer):
        return LOCAL_ADMIN
    return ANONYMOUS


def unauthenticated(reason: str) -> RequestError:
    """401 with the reason, which holds nothing secret."""
    return RequestError(401, "Invalid authentication data", f"Unauthenticated: {reason}")


def is_direct_and_local(headers: Mapping[str, str], peer: str) -> bool:
    """Whether a program on this machine called us itself: loopback peer, loopback Host, no proxy, no foreign page."""
    if not is_loopback(peer) or not is_loopback(host_of(headers.get("host", ""))):
        return False
    if any(name in FORWARDING or name.startswith(FORWARDING_PREFIXES) for name in headers):
        return False
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    origin = headers.get("origin")
    # A page of our own has our own host and port; "null" is a sandboxed page or a file.
    return origin is None or urlsplit_netloc(origin) == headers.get("host", "")


def urlsplit_netloc(origin: str) -> str:
    """The host and port of an Origin; empty for what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def host_of(host: str) -> str:
    """The host part of a Host header."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether a literal address, or the name localhost, is this machine."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
