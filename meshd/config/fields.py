"""The field types of the tree: ports, durations, paths, addresses, with messages that say what to do."""

import re
from datetime import timedelta
from functools import partial
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, StrictBool, StrictInt, StrictStr

from meshd.model.duration import format_duration, parse_duration
from meshd.model.names import zone_name_violations

MAX_LISTED = 100
"""Names in a list for people: a resolver's workers tell theirs every second, in a message of a bounded size."""
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


def read_duration(value: Any) -> timedelta:
    """Go's duration text (``1m30s``, ``500ms``), not negative."""
    if not isinstance(value, str):
        raise ValueError(f"must be a duration such as 30s, 500ms or 1h30m, not {value!r}")  # noqa: TRY004
    length = parse_duration(value)
    if length < timedelta(0):
        raise ValueError(f"must not be negative: {value!r}")
    return length


def parse_path(value: Any) -> Path | None:
    """A path, already made absolute by the loader; empty means unset, as in Kuma."""
    if isinstance(value, Path) or value is None:
        return value
    if not isinstance(value, str):
        raise ValueError(f"must be a path, not {value!r}")  # noqa: TRY004  # pydantic reports ValueError only
    return Path(value) if value else None


def parse_network(value: Any) -> IPv4Network | IPv6Network:
    """A CIDR without host bits; a lone address is a network of one."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return ip_network(str(value))
    except ValueError as error:
        raise ValueError(f"must be a CIDR such as 10.1.0.0/16, not {value!r} ({error})") from None


def parse_network_4(value: Any) -> IPv4Network:
    """An IPv4 CIDR."""
    network = parse_network(value)
    if not isinstance(network, IPv4Network):
        raise ValueError(f"must be an IPv4 CIDR such as 240.0.0.0/4, not {value!r}")  # noqa: TRY004
    return network


def parse_interface(value: Any) -> str:
    """A literal IP address to bind."""
    try:
        return str(ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise ValueError(f"must be an IP address to bind, such as 127.0.0.1 or 0.0.0.0, not {value!r}") from None


def read_positive(value: Any) -> Any:
    """A whole number from 1 on, as far as protocols carry it; what is no number is left for the tree to refuse."""
    if isinstance(value, int) and not isinstance(value, bool) and not 1 <= value < 2**31:
        raise ValueError(f"must be a whole number from 1 to {2**31 - 1}, not {value!r}")
    return value


def read_number(value: Any, *, least: int, most: int) -> int:
    """A whole number of a range."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"must be a whole number from {least} to {most}, not {value!r}")
    return value


def read_seconds(value: Any, *, most: timedelta) -> timedelta:
    """A duration of whole seconds up to a longest one: DNS has no parts of a second."""
    length = read_duration(value)
    if length > most or length.microseconds:
        raise ValueError(f"must be whole seconds up to {format_duration(most)}, such as 30s or 15m, not {value!r}")
    return length


def split_host_port(value: object, default_port: int | None = None) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` -> the pair. With ``default_port`` the port may be left out.

    What is no text at all, such as a lone port, is no address either.

    Raises:
        ValueError: no port, or not 0..65535; says so.
    """
    text = value if isinstance(value, str) else ""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = text, ""
    if not port and default_port is not None and not text.endswith(":"):
        port = str(default_port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"must be ADDRESS:PORT, such as 127.0.0.1:5653, not {value!r}")
    return host, int(port)


def comes_back(host: str, listen: str) -> bool:
    """Whether what is sent to an IP address is received by who listens on another, at one port.

    Who listens on all addresses has every one of loopback; the host's other addresses cannot be told from here.
    """
    ours, theirs = ip_address(listen), ip_address(host)
    if isinstance(theirs, IPv6Address) and theirs.ipv4_mapped is not None:
        theirs = theirs.ipv4_mapped
    if ours == theirs:
        return True
    same_family = ours.version in (theirs.version, 6)  # [::] takes IPv4 as well
    return ours.is_unspecified and same_family and (theirs.is_loopback or theirs.is_unspecified)


def parse_listen(value: Any) -> str:
    """``IP:port`` to bind, or empty for "do not listen"."""
    if value == "":
        return ""
    host, port = split_host_port(value)
    host = parse_interface(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_upstream(value: Any) -> str:
    """``IP`` or ``IP:port`` of a DNS server, with the port made explicit."""
    try:
        host, port = split_host_port(value, default_port=53)
        address = ip_address(host)
    except ValueError:
        raise ValueError(
            f"must be the IP address of a DNS server, such as 10.0.0.2 or 10.0.0.2:53, not {value!r}"
        ) from None
    if port == 0:
        raise ValueError(f"must have a port above 0, not {value!r}")
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def parse_workers(value: Any) -> int:
    """A number of worker threads."""
    if type(value) is not int or not 1 <= value <= 1024:
        raise ValueError(f"must be a number of worker threads from 1 to 1024, not {value!r}")
    return value


def parse_rate(value: Any) -> int:
    """Answers a second; 0 for no limit."""
    if type(value) is not int or not 0 <= value <= 10**9:
        raise ValueError(f"must be a number of answers a second, or 0 for no limit, not {value!r}")
    return value


def parse_domain(value: Any) -> str:
    """A DNS domain, lower case, without a trailing dot."""
    text = value.lower().rstrip(".") if isinstance(value, str) else ""
    if not _DOMAIN.fullmatch(text) or len(text) > 200:
        raise ValueError(f"must be a DNS domain such as mesh, not {value!r}")
    return text


def parse_zone_name(value: Any) -> str:
    """A zone's name: it becomes part of resource names and SNIs, so one DNS label."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {value!r} (quote it)")  # noqa: TRY004  # pydantic reports ValueError only
    for violation in zone_name_violations(value):
        raise ValueError(violation.message)
    return value


Shown = PlainSerializer(format_duration, return_type=str)
Duration = Annotated[timedelta, BeforeValidator(read_duration), Shown]
FilePath = Annotated[Path | None, BeforeValidator(parse_path), PlainSerializer(lambda p: str(p) if p else "")]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(parse_network), PlainSerializer(str)]
Network4 = Annotated[IPv4Network, BeforeValidator(parse_network_4), PlainSerializer(str)]
Interface = Annotated[str, BeforeValidator(parse_interface)]
Listen = Annotated[str, BeforeValidator(parse_listen)]
Upstream = Annotated[str, BeforeValidator(parse_upstream)]
Workers = Annotated[int, BeforeValidator(parse_workers)]
Processes = Annotated[int, BeforeValidator(partial(read_number, least=0, most=64))]
Amount = Annotated[int, BeforeValidator(partial(read_number, least=0, most=10_000_000))]
Bytes = Annotated[int, BeforeValidator(partial(read_number, least=0, most=2**40))]
AtATime = Annotated[int, BeforeValidator(partial(read_number, least=1, most=65_535))]
"""Sockets, most of all: the kernel has no more ports for them."""
OneIn = Annotated[int, BeforeValidator(partial(read_number, least=1, most=10**9))]
Listed = Annotated[int, BeforeValidator(partial(read_number, least=0, most=MAX_LISTED))]
Day = Annotated[timedelta, BeforeValidator(partial(read_seconds, most=timedelta(days=1))), Shown]
Week = Annotated[timedelta, BeforeValidator(partial(read_seconds, most=timedelta(days=7))), Shown]
Rate = Annotated[int, BeforeValidator(parse_rate)]
Domain = Annotated[str, BeforeValidator(parse_domain)]
ZoneName = Annotated[str, BeforeValidator(parse_zone_name)]
Port = Annotated[StrictInt, Field(ge=0, le=65535)]
"""0 lets the kernel choose; the log says which."""
FixedPort = Annotated[StrictInt, Field(ge=1, le=65535)]
Positive = Annotated[StrictInt, BeforeValidator(read_positive)]
Flag = StrictBool
Text = StrictStr
