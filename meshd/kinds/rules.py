"""Checks that several kinds share: addresses, ports, tags, protocols, data sources.

Source: Kuma ``pkg/core/resources/apis/mesh/validators.go`` (rules, not texts).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from meshd.kinds.external_service import DataSource
from meshd.model import labels as label
from meshd.model.errors import Violation

PROTOCOLS = ("grpc", "http", "http2", "kafka", "tcp")
_PROTOCOLS_READ = (*PROTOCOLS, "tls")
LOOPBACK = IPv4Address("127.0.0.1")
_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_TAG_NAME = re.compile(r"[a-zA-Z0-9.\-_:/]+")
_TAG_VALUE = re.compile(r"[a-zA-Z0-9.\-_:]*")
_SELECTOR_VALUE = re.compile(r"[a-zA-Z0-9.\-_:/]*|\*")


def port_violations(field: str, port: int) -> Iterator[Violation]:
    """What is wrong with a port that must be there."""
    if not 1 <= port <= 65535:
        yield Violation(field, f"must be a port from 1 to 65535, not {port}")


def parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    """The address, or None if ``text`` is none."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def is_host_name(text: str) -> bool:
    """Whether ``text`` is a DNS name, by its shape."""
    name = text.removesuffix(".")
    parts = name.split(".")
    looks_like_ip = parts[-1].isdigit()
    return 0 < len(name) <= 253 and not looks_like_ip and all(_HOST_LABEL.fullmatch(p) for p in parts)


def address_violations(field: str, address: str) -> Iterator[Violation]:
    """What is wrong with an address that peers connect to: an IP or a host name, not the wildcard."""
    ip = parse_ip(address)
    if not address:
        yield Violation(field, "cannot be empty")
    elif ip is not None and ip.is_unspecified:
        yield Violation(field, f'must not be "{address}": write the address that others can connect to')
    elif ip is None and not is_host_name(address):
        yield Violation(field, f'"{address}" is neither an IP address nor a host name')


def ip_violations(field: str, address: str) -> Iterator[Violation]:
    """What is wrong with an address to bind; empty is allowed."""
    if address and parse_ip(address) is None:
        yield Violation(field, f'"{address}" is not an IP address')


def overlaps(ip: IPv4Address | IPv6Address, address: str) -> bool:
    """Whether a listener on ``address`` also takes connections to ``ip``."""
    other = parse_ip(address)
    return other is not None and (other == ip or other.is_unspecified)


def tag_violations(
    field: str, tags: Mapping[str, str], *, selector: bool = False, need_service: bool = False
) -> Iterator[Violation]:
    """What is wrong with tags, or with a selector of them ("*" matches any value)."""
    for name in sorted(tags):
        at = f'{field}["{name}"]'
        value = tags[name]
        if not _TAG_NAME.fullmatch(name):
            yield Violation(at, f'"{name}" is no tag name: use letters, digits, ".", "-", "_", ":" and "/"')
        if not value:
            yield Violation(at, "a tag value cannot be empty")
        elif selector and not _SELECTOR_VALUE.fullmatch(value):
            yield Violation(at, f'"{value}" is no tag value: use letters, digits, ".", "-", "_", ":" and "/", or "*"')
        elif not selector and not _TAG_VALUE.fullmatch(value):
            yield Violation(at, f'"{value}" is no tag value: use letters, digits, ".", "-", "_" and ":"')
    if need_service and label.SERVICE not in tags:
        yield Violation(field, f'the tag "{label.SERVICE}" is missing')


def protocol_violations(field: str, protocol: str | None) -> Iterator[Violation]:
    """What is wrong with a protocol; None and empty mean not said."""
    if protocol and protocol not in _PROTOCOLS_READ:
        yield Violation(field, f'"{protocol}" is no protocol; use one of {", ".join(PROTOCOLS)}')


def data_source_violations(field: str, source: DataSource | None, *, required: bool = False) -> Iterator[Violation]:
    """What is wrong with a data source: it has exactly one of its ways, and that is not empty."""
    if source is None:
        if required:
            yield Violation(field, "is required")
        return
    ways = [name for name in type(source).model_fields if getattr(source, name) is not None]
    if len(ways) != 1 or not getattr(source, ways[0]):
        yield Violation(field, 'must have exactly one of "secret", "file", "inline" and "inlineString", not empty')


def service_case_conflicts(
    wanted: Iterable[str], existing: Iterable[str], field: str = "networking"
) -> tuple[Violation, ...]:
    """A violation for every wanted service name that differs from another one by case only.

    SNI and DNS do not see case, so two such services could not be told apart. ``existing`` are the names in use in
    the same mesh, local and remote; ``wanted`` may be among them.
    """
    by_folded: dict[str, str] = {}
    for name in sorted(existing):
        by_folded.setdefault(name.lower(), name)
    found = []
    for name in wanted:
        known = by_folded.setdefault(name.lower(), name)
        if known != name:
            found.append(Violation(field, f'service "{name}" differs from service "{known}" only by case'))
    return tuple(found)
