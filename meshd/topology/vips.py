"""Virtual IPs: who needs one, who gets which, and how that is kept over restarts.

One allocation serves all meshes of a zone, so an address names one service of one mesh. A name keeps its address
while it lives, over restarts and over changes of anything else; after its death the address is kept for it, and from
everybody else, for ``TOMBSTONE``. New names, sorted, take the lowest free addresses.

A change of ``dnsServer.CIDR`` re-allocates exactly the names whose address is outside of the new range.

Kept in Config resources: ``kuma-<mesh>-dns-vips`` in Kuma's format (reference/dataplane.md 4.1), and
``meshd-dns-vip-tombstones`` of our own. Names are kept in lower case: those that differ by case are one in DNS.
"""

import enum
import functools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from meshd.kinds.external_service import ExternalService
from meshd.model import labels as label
from meshd.model.resource import Resource
from meshd.model.steps import Steps, finished
from meshd.topology.view import Vip

TOMBSTONE = timedelta(hours=1)
"""How long the address of a dead name goes to nobody else (design P4)."""
TOMBSTONES_CONFIG = "meshd-dns-vip-tombstones"
ORIGIN_SERVICE = "service"
PORTION = 100
"""Entries that are gone through in a step: about a tenth of a millisecond."""
_LOOPBACK = IPv4Network("127.0.0.0/8")
_FIRST_LOOPBACK = IPv4Network("127.0.0.0/24")


class VipType(enum.IntEnum):
    """What a name is; the numbers are those of Kuma's Config format."""

    SERVICE = 0
    HOST = 1


class VipKey(NamedTuple):
    """Names the owner of an address; ``name`` is a service or a host, in lower case."""

    mesh: str
    type: VipType
    name: str


class Outbound(NamedTuple):
    """One port of a VIP and the service it leads to; port 0 is the service VIP port, whatever that is set to."""

    port: int
    service: str
    origin: str


@dataclass(frozen=True, slots=True)
class VipEntry:
    """Somebody who needs an address, and what its ports lead to, sorted by port."""

    key: VipKey
    outbounds: tuple[Outbound, ...]


class Tombstone(NamedTuple):
    """An address that nobody but its last owner may get before ``until`` (UTC)."""

    address: IPv4Address
    until: datetime


@dataclass(frozen=True, slots=True)
class Book:
    """Who has which address. No address is twice in ``addresses`` and ``tombstones`` together."""

    addresses: Mapping[VipKey, IPv4Address] = field(default_factory=lambda: MappingProxyType({}))
    tombstones: Mapping[VipKey, Tombstone] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Allocation:
    """The next book, and who is left out because every address is taken."""

    book: Book
    without: tuple[VipKey, ...]


class Pool:
    """The addresses of a CIDR that may be given out.

    Not its network and broadcast addresses, and of 127.0.0.0/8 nothing in 127.0.0.0/24, where hosts have their own.

    Raises:
        ValueError: no IPv4 network, or one without an address to give out.
    """

    def __init__(self, cidr: str | IPv4Network) -> None:
        try:
            self.network = IPv4Network(str(cidr))
        except (AddressValueError, ValueError) as error:
            raise ValueError(f"'{cidr}' is not an IPv4 network in CIDR form: {error}") from None
        first, last = int(self.network.network_address), int(self.network.broadcast_address)
        if self.network.prefixlen < 31:
            first, last = first + 1, last - 1
        if self.network.subnet_of(_LOOPBACK):
            first = max(first, int(_FIRST_LOOPBACK.broadcast_address) + 1)
        if first > last:
            raise ValueError(f"'{cidr}' has no address to give out")
        self._range = range(first, last + 1)

    def __contains__(self, address: IPv4Address) -> bool:
        return int(address) in self._range

    def __len__(self) -> int:
        return len(self._range)

    def free(self, taken: Collection[int]) -> Iterator[IPv4Address]:
        """The addresses not taken, the lowest first."""
        return (IPv4Address(value) for value in self._range if value not in taken)


def entries_of(
    mesh: str, services: Iterable[str], externals: Iterable[Resource], previous: Sequence[VipEntry] = ()
) -> tuple[VipEntry, ...]:
    """Everybody in a mesh who needs an address, sorted by key; those of ``previous`` that are the same stay the same.

    ``services`` are the names of all services, also of those that ``externals`` (ExternalServices) are. A host that is
    an IP address already has one.
    """
    spelled = {service.lower(): service for service in sorted(services)}
    # Outbounds by lower-case name, of those that have more than the service VIP port, and of hosts.
    wider: dict[str, dict[int, Outbound]] = {}
    hosts: dict[str, dict[int, Outbound]] = {}
    # Sorted by name: of two that want one port of one host the first gets it.
    for resource in sorted(externals, key=lambda r: r.key.name):
        spec = cast("ExternalService", resource.spec)
        service = spelled.get(spec.service.lower())
        if service is None or not spec.port:
            continue
        wider.setdefault(service.lower(), {}).setdefault(spec.port, Outbound(spec.port, service, ORIGIN_SERVICE))
        host = spec.host.lower()
        if spec.networking.disable_host_dns_entry or not host or is_ip_address(host):
            continue
        # A host with the name of a service is that service's name already: its VIP also gets the port.
        of_host = (wider if host in spelled else hosts).setdefault(host, {})
        of_host.setdefault(spec.port, Outbound(spec.port, service, f"external-service:{resource.key.name}"))
    known = {entry.key: entry for entry in previous}
    found: list[VipEntry] = []
    for name in sorted(spelled):
        key = VipKey(mesh, VipType.SERVICE, name)
        outbounds = (Outbound(0, spelled[name], ORIGIN_SERVICE), *sorted(wider.get(name, {}).values()))
        found.append(_kept(known.get(key), VipEntry(key, outbounds)))
    for name in sorted(hosts):
        key = VipKey(mesh, VipType.HOST, name)
        found.append(_kept(known.get(key), VipEntry(key, tuple(sorted(hosts[name].values())))))
    return tuple(found)


def plain_entries(mesh: str, previous: Sequence[VipEntry], spelled: Mapping[str, str]) -> tuple[VipEntry, ...]:
    """``entries_of`` after some services came, went ("") or are spelled otherwise, given in lower case.

    For services that no ExternalService has anything to do with.
    """
    found = [e for e in previous if e.key.type is not VipType.SERVICE or e.key.name not in spelled]
    for name, service in spelled.items():
        if service:
            found.append(VipEntry(VipKey(mesh, VipType.SERVICE, name), (Outbound(0, service, ORIGIN_SERVICE),)))
    return tuple(sorted(found, key=lambda entry: entry.key))


def names_in(externals: Iterable[Resource]) -> frozenset[str]:
    """The services and hosts that ExternalServices speak of, in lower case."""
    specs = [cast("ExternalService", resource.spec) for resource in externals]
    return frozenset(name.lower() for spec in specs for name in (spec.service, spec.host))


def allocate(book: Book, wanted: Collection[VipKey], pool: Pool, now: datetime) -> Allocation:
    """``allocating``, at once."""
    return finished(allocating(book, wanted, pool, now))


def allocating(book: Book, wanted: Collection[VipKey], pool: Pool, now: datetime) -> Steps[Allocation]:
    """The book in which every wanted name has an address, as far as they go round. Returns the same book if it fits.

    Pure and blind to the order of ``wanted``. A name that is no longer wanted leaves a tombstone; one that comes back
    within its time gets its address again.
    """
    asked = frozenset(wanted)
    tombstones = {key: stone for key, stone in book.tombstones.items() if stone.until > now and stone.address in pool}
    addresses: dict[VipKey, IPv4Address] = {}
    for at, (key, address) in enumerate(book.addresses.items()):
        if address in pool:
            if key in asked:
                addresses[key] = address
            else:
                tombstones[key] = Tombstone(address, now + TOMBSTONE)
        if at % PORTION == 0:
            yield
    new = sorted(asked - addresses.keys())
    for key in new:
        if (stone := tombstones.pop(key, None)) is not None:
            addresses[key] = stone.address
    homeless = [key for key in new if key not in addresses]
    yield
    if homeless:
        taken = {int(address) for address in addresses.values()}
        taken.update(int(stone.address) for stone in tombstones.values())
        yield
        addresses.update(zip(homeless, pool.free(taken), strict=False))
    without = tuple(key for key in homeless if key not in addresses)
    same = len(without) == len(new) and len(addresses) == len(book.addresses) and tombstones == book.tombstones
    return Allocation(book if same else Book(addresses, tombstones), without)


def vips_of(
    entries: Sequence[VipEntry],
    addresses: Mapping[VipKey, IPv4Address],
    domain: str,
    vip_port: int,
    previous: Mapping[str, Vip] = MappingProxyType({}),
) -> dict[str, Vip]:
    """``building_vips``, at once."""
    return finished(building_vips(entries, addresses, domain, vip_port, previous))


def building_vips(
    entries: Sequence[VipEntry],
    addresses: Mapping[VipKey, IPv4Address],
    domain: str,
    vip_port: int,
    previous: Mapping[str, Vip] = MappingProxyType({}),
) -> Steps[dict[str, Vip]]:
    """The VIPs of a mesh by service name, and by host for external ones.

    ``previous`` is an earlier result for the same domain and port, of which plain services are taken over as they are.

    A service has ``<service>.<domain>`` and, with underscores, the same with dots instead. A name belongs to one VIP:
    a service's own name goes before another's name with dots, and both before a host; of equals the first sorted one.
    """
    services = {entry.key.name for entry in entries if entry.key.type is VipType.SERVICE}
    dotted: dict[str, str] = {}
    for name in services:
        if "_" in name and (plain := name.replace("_", ".")) not in services:
            dotted[plain] = min(name, dotted.get(plain, name))
    yield
    found: dict[str, Vip] = {}
    for at, entry in enumerate(entries):
        if at % PORTION == 0:
            yield
        address = addresses.get(entry.key)
        name = entry.key.name
        before = previous.get(entry.outbounds[0].service) if _is_plain(entry) else None
        if before is not None and len(before.ports) == len(before.names) == 1 and same_address(before, address):
            found[entry.outbounds[0].service] = before
            continue
        in_domain = name.removesuffix(f".{domain}")
        if entry.key.type is VipType.SERVICE:
            names = [f"{name}.{domain}"]
            if dotted.get(plain := name.replace("_", ".")) == name:
                names.append(f"{plain}.{domain}")
            is_host = any(outbound.origin != ORIGIN_SERVICE for outbound in entry.outbounds)
        else:
            names, is_host = [], True
        if is_host and (in_domain == name or (in_domain not in services and in_domain not in dotted)):
            names.append(name)
        if address is None or not names:
            continue
        ports = {outbound.port: outbound.service for outbound in reversed(entry.outbounds)}
        ports[vip_port] = ports.pop(0) if 0 in ports else ports.get(vip_port, entry.outbounds[0].service)
        found[visible_name(entry)] = Vip(address, MappingProxyType(ports), tuple(sorted(set(names))))
    return found


def same_address(vip: Vip, address: IPv4Address | None) -> bool:
    """Whether a VIP has this address; mostly it is the very same object, and comparing addresses is slow."""
    return vip.address is address or vip.address == address


def _is_plain(entry: VipEntry) -> bool:
    """Whether the address and the service's name say everything about its VIP."""
    return len(entry.outbounds) == 1 and entry.key.type is VipType.SERVICE and "_" not in entry.key.name


def visible_name(entry: VipEntry) -> str:
    """Under which key a view has the VIP: the service as its author spelled it, or the host."""
    return entry.outbounds[0].service if entry.key.type is VipType.SERVICE else entry.key.name


def config_name(mesh: str) -> str:
    """The name of the Config that holds a mesh's VIPs."""
    return f"kuma-{mesh}-dns-vips"


def mesh_of_config(name: str) -> str | None:
    """The mesh whose VIPs a Config of that name holds, None if it is another Config."""
    if name.startswith("kuma-") and name.endswith("-dns-vips") and len(name) > len("kuma--dns-vips"):
        return name.removeprefix("kuma-").removesuffix("-dns-vips")
    return None


def config_text(entries: Sequence[VipEntry], addresses: Mapping[VipKey, IPv4Address]) -> str:
    """``writing_config``, at once."""
    return finished(writing_config(entries, addresses))


def writing_config(entries: Sequence[VipEntry], addresses: Mapping[VipKey, IPv4Address]) -> Steps[str]:
    """The content of a mesh's Config, canonical: entries sorted by key."""
    rows: list[str] = []
    for at, entry in enumerate(entries):
        if (address := addresses.get(entry.key)) is not None:
            rows.append(_row(entry, address))
        if at % PORTION == 0:
            yield
    return "{" + ",".join(rows) + "}"


def tombstones_text(tombstones: Mapping[VipKey, Tombstone]) -> str:
    """The content of the tombstones' Config, canonical."""
    rows = [
        {"mesh": k.mesh, "type": int(k.type), "name": k.name, "address": str(s.address), "until": s.until.isoformat()}
        for k, s in sorted(tombstones.items())
    ]
    return json.dumps(rows, separators=(",", ":"))


def read_book(configs: Mapping[str, str]) -> tuple[Book, tuple[str, ...]]:
    """The book that Configs (text by name) hold, and what is wrong with them.

    What cannot be read is left out and named. Of an address that two names claim (Kuma gives each mesh the same ones)
    the first by mesh, type and name keeps it.
    """
    problems: list[str] = []
    claims: list[tuple[VipKey, IPv4Address]] = []
    for name, text in sorted(configs.items()):
        mesh = mesh_of_config(name)
        if mesh is None:
            continue
        try:
            claims += _read_rows(mesh, text)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problems.append(f"Config {name}: not readable as VIPs ({error}); its names get new addresses")
    addresses: dict[VipKey, IPv4Address] = {}
    taken: set[IPv4Address] = set()
    for key, address in sorted(claims):
        if address in taken:
            problems.append(f"Config {config_name(key.mesh)}: {address} of '{key.name}' is somebody else's already")
        else:
            addresses[key] = address
            taken.add(address)
    tombstones: dict[VipKey, Tombstone] = {}
    try:
        for key, stone in _read_tombstones(configs.get(TOMBSTONES_CONFIG, "[]")):
            if stone.address not in taken and key not in addresses:
                tombstones[key] = stone
                taken.add(stone.address)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        problems.append(f"Config {TOMBSTONES_CONFIG}: not readable ({error}); addresses of dead names are free at once")
    return Book(addresses, tombstones), tuple(problems)


def is_ip_address(host: str) -> bool:
    """Whether a host is an IP address and no name."""
    for form in (IPv4Address, IPv6Address):
        try:
            form(host)
        except AddressValueError:
            continue
        return True
    return False


def _kept(before: VipEntry | None, now: VipEntry) -> VipEntry:
    return before if before is not None and before.outbounds == now.outbounds else now


@functools.lru_cache(maxsize=65536)
def _row(entry: VipEntry, address: IPv4Address) -> str:
    # One changed name must not cost the encoding of all others.
    outbounds = [{"Port": o.port, "TagSet": {label.SERVICE: o.service}, "Origin": o.origin} for o in entry.outbounds]
    key = json.dumps(f"{int(entry.key.type)}:{entry.key.name}")
    return f"{key}:{json.dumps({'address': str(address), 'outbounds': outbounds}, separators=(',', ':'))}"


def _read_rows(mesh: str, text: str) -> list[tuple[VipKey, IPv4Address]]:
    document: dict[str, Any] = json.loads(text or "{}")
    found = []
    for name, body in document.items():
        code, _, rest = name.partition(":")
        address = body.get("address", "")
        if code in ("0", "1") and rest and address:
            found.append((VipKey(mesh, VipType(int(code)), rest.lower()), IPv4Address(address)))
    return found


def _read_tombstones(text: str) -> list[tuple[VipKey, Tombstone]]:
    rows: list[dict[str, Any]] = json.loads(text or "[]")
    found = []
    for row in rows:
        until = datetime.fromisoformat(row["until"])
        if until.tzinfo is None:
            raise ValueError(f"time {row['until']} has no zone")
        key = VipKey(str(row["mesh"]), VipType(row["type"]), str(row["name"]))
        found.append((key, Tombstone(IPv4Address(row["address"]), until)))
    return sorted(found)
