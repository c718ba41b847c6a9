"""What an operator decides about the resolver: its domain, where it listens, whom it asks, and its limits."""

import ipaddress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from meshd.config.fields import comes_back
from meshd.dns.reply import MAX_NEGATIVE_TTL_S, MAX_TTL_S
from meshd.model.errors import InvalidError, Violation

DNS_PORT = 53


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """An IP address and a port, as text and number; IPv6 without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_self(address: Address, listen: Address) -> bool:
    """Whether a query to ``address`` would come back to a resolver that listens there."""
    return address.port == listen.port and comes_back(address.host, listen.host)


def parse_address(text: str, default_port: int | None = None) -> Address:
    """``192.0.2.1:53``, ``[2001:db8::1]:53`` or, if there is a default port, the address alone.

    Raises:
        ValueError: no IP address, no port, or one out of range; names the text.
    """
    host, bracket, rest = text.strip().partition("]")
    if bracket:
        host, port_text = host.removeprefix("["), rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port_text = text.strip().partition(":")
    else:
        port_text = ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{text!r}: {host!r} is no IP address; write it as 192.0.2.1:53 or [2001:db8::1]:53") from None
    if not port_text and default_port is not None:
        return Address(str(address), default_port)
    if not (port_text.isascii() and port_text.isdigit() and int(port_text) <= 65535):
        raise ValueError(f"{text!r}: {port_text!r} is no port; write a number from 0 to 65535")
    return Address(str(address), int(port_text))


@dataclass(frozen=True, slots=True)
class QueryLog:
    """Where answered queries are written: a file, or None for standard error; of so many one."""

    file: Path | None = None
    one_in: int = 1


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """The resolver's configuration. Times are in seconds.

    ``listen`` with port 0 lets the kernel choose (tests). ``max_outstanding`` bounds forwarded queries in flight, and
    with them sockets and memory. ``resolv_conf``: the upstreams are those of this file, read again when it changes.
    ``cache_entries`` (0: keep nothing) and ``cache_bytes`` bound what is kept of their answers, ``max_ttl_s`` and
    ``max_negative_ttl_s`` for how long, ``max_stale_s`` is how long after its time it is told while they do not answer.
    ``prefetch``: hot names are fetched before their time. Reverse names of ``vips`` are ours. ``allow``: who else
    than this host is answered, ``rate_limit`` how often a second a network of such clients is by UDP (0: without
    limit). ``own_thread`` gives the packets a thread of their own (docs/adr/004-one-loop.md), ``workers`` processes
    (docs/adr/009-dns.md). ``top_names``: so many of the names that are asked for most are told; 0: none.
    """

    domain: str = "mesh"
    listen: Address = Address("127.0.0.1", 5653)
    upstreams: tuple[Address, ...] = ()
    resolv_conf: Path | None = None
    max_outstanding: int = 512
    cache_entries: int = 10_000
    cache_bytes: int = 16 << 20
    max_stale_s: float = 86_400.0
    max_ttl_s: int = MAX_TTL_S
    max_negative_ttl_s: int = MAX_NEGATIVE_TTL_S
    prefetch: bool = True
    vips: IPv4Network | None = None
    allow: tuple[IPv4Network | IPv6Network, ...] = ()
    rate_limit: int = 5000
    max_tcp_connections: int = 256
    tcp_idle_s: float = 10.0
    own_thread: bool = True
    workers: int = 0
    query_log: QueryLog | None = None
    top_names: int = 0

    @property
    def is_on_loopback(self) -> bool:
        """Whether nobody but this host can send to it."""
        return ipaddress.ip_address(self.listen.host).is_loopback

    @property
    def recursive(self) -> bool:
        """Whether other names can be asked about here."""
        return bool(self.upstreams or self.resolv_conf)

    def __post_init__(self) -> None:
        problems = []
        if not self.domain.strip(".") or any(not 0 < len(part) <= 63 for part in self.domain.split(".")):
            problems.append(Violation("dnsServer.domain", f"{self.domain!r} is no domain; write it as mesh"))
        problems += [
            Violation(f"dnsServer.upstreams[{i}]", f"{upstream} is this resolver itself; name another server")
            for i, upstream in enumerate(self.upstreams)
            if is_self(upstream, self.listen)
        ]
        problems += [
            Violation(f"dnsServer.upstreams[{i}]", f"{upstream} has no port to send to; write one from 1 to 65535")
            for i, upstream in enumerate(self.upstreams)
            if upstream.port == 0
        ]
        if problems:
            raise InvalidError("dnsServer", problems)


def settings(
    domain: str,
    listen: str,
    upstreams: tuple[str, ...] | list[str],
    *,
    resolv_conf: Path | None = None,
    vips: IPv4Network | None = None,
) -> DnsSettings:
    """The settings from configuration text; an upstream without a port means port 53.

    Raises:
        InvalidError: with every violation found.
    """
    problems: list[Violation] = []
    parsed: list[Address] = []
    for field, text, port in [
        ("dnsServer.listen", listen, None),
        *((f"dnsServer.upstreams[{i}]", upstream, DNS_PORT) for i, upstream in enumerate(upstreams)),
    ]:
        try:
            parsed.append(parse_address(text, port))
        except ValueError as error:
            problems.append(Violation(field, str(error)))
    if problems:
        raise InvalidError("dnsServer", problems)
    return DnsSettings(
        domain=domain.strip(".").lower(),
        listen=parsed[0],
        upstreams=tuple(parsed[1:]),
        resolv_conf=resolv_conf,
        vips=vips,
    )
