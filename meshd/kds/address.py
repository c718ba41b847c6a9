"""How a zone reaches its global, and whether it may show its token there. Pure."""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from meshd.model.errors import DeniedError, InvalidError, Violation

DEFAULT_PORT = 5685
SETTING = "multizone.zone.globalAddress"


@dataclass(frozen=True, slots=True)
class GlobalAddress:
    """A parsed ``globalAddress``."""

    host: str
    port: int
    tls: bool

    @property
    def is_loopback(self) -> bool:
        """Whether nothing leaves this host."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse(address: str) -> GlobalAddress:
    """Read ``grpcs://HOST:PORT`` or ``grpc://HOST:PORT``.

    Raises:
        InvalidError: it is neither; names the setting.
    """
    try:
        parts = urlsplit(address)
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise InvalidError(SETTING, [Violation("", f"{address!r}: {error}")]) from error
    if parts.scheme not in {"grpc", "grpcs"} or not parts.hostname or parts.path.strip("/"):
        raise InvalidError(SETTING, [Violation("", f"{address!r} is not of the form grpcs://HOST:PORT")])
    return GlobalAddress(parts.hostname, port, parts.scheme == "grpcs")


def check_token_use(address: GlobalAddress, *, verified: bool) -> None:
    """Refuse to show a zone token to whoever may be at the other end.

    ``verified``: TLS checks the global's certificate. Without TLS a token stays on this host or at home.

    Raises:
        DeniedError: says what to change.
    """
    if address.is_loopback or (address.tls and verified):
        return
    if address.tls:
        raise DeniedError(
            f"the zone token is not sent to {address.host}: its certificate is not verified; "
            "remove multizone.zone.kds.tlsSkipVerify and give multizone.zone.kds.rootCaFile"
        )
    raise DeniedError(
        f"the zone token is not sent to {address.host} in clear text; use grpcs:// in {SETTING}, "
        "or remove multizone.zone.kds.tokenFile if the global admits this zone without one"
    )
