"""From a mesh's view to the table of its names: incremental, a changed VIP costs only its own names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from types import MappingProxyType

from meshd.dns.table import NameTable, empty_table
from meshd.dns.wire import name_to_wire
from meshd.topology.view import BoundVips, MeshView, Vip

NO_VIPS: Mapping[str, Vip] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Rendering:
    """A table and what it was made of, so that the next one can be made of the differences.

    ``vips`` are the view's, by key; of these the *answered* ones have a bound port. ``claims`` has, for each name in
    wire form, the keys of the answered VIPs that want it; the first gets it. ``refused`` says for each VIP's key
    and name that DNS cannot carry why it is left out.
    """

    table: NameTable
    domain: str
    vips: Mapping[str, Vip]
    bound: BoundVips | None
    claims: Mapping[bytes, tuple[str, ...]]
    refused: Mapping[tuple[str, str], str]


def start(domain: str, *, recursive: bool, is_known: bool = True) -> Rendering:
    """The rendering of nothing: every name under the domain is NXDOMAIN, or SERVFAIL if nothing is known yet."""
    table = empty_table(domain, recursive=recursive, is_known=is_known)
    return Rendering(table, domain.strip(".").lower(), NO_VIPS, None, {}, {})


def known(previous: Rendering) -> Rendering:
    """The same, but from now on what has no name does not exist."""
    return previous if previous.table.is_known else replace(previous, table=replace(previous.table, is_known=True))


def names(view: MeshView, bound: BoundVips | None, *, domain: str = "mesh", recursive: bool = False) -> NameTable:
    """The table of a view from scratch; ``updated`` gives the same from the differences."""
    return updated(start(domain, recursive=recursive), view.vips, bound).table


def updated(previous: Rendering, vips: Mapping[str, Vip], bound: BoundVips | None) -> Rendering:
    """The rendering of these VIPs, built from the previous one.

    ``bound`` is where the owner of the VIPs listens: a VIP without any of its ports there is not answered, since
    nothing would take the connection. None: nobody owns VIPs in this process, so all are answered (Envoys take the
    connections).
    """
    same_bound = bound is previous.bound or bound == previous.bound

    def moved(vip: Vip) -> bool:
        # However many sockets the owner has: only what turned answerable, or ceased to be, is work.
        return not same_bound and is_answered(vip, bound) != is_answered(vip, previous.bound)

    before = {
        key: old
        for key, old in previous.vips.items()
        if (vips.get(key) is not old and vips.get(key) != old) or moved(old)
    }
    after = {
        key: new
        for key, new in vips.items()
        if (previous.vips.get(key) is not new and previous.vips.get(key) != new) or moved(new)
    }
    if not before and not after:
        return previous if same_bound else replace(previous, bound=bound)
    claims, refused = dict(previous.claims), dict(previous.refused)
    affected: dict[bytes, None] = {}
    for key, old in before.items():
        for name in answered_names(old, previous.bound):
            if refused.pop((key, name), None) is None:
                wire_name = name_to_wire(name)
                affected[wire_name] = None
                claims[wire_name] = tuple(k for k in claims[wire_name] if k != key)
    for key, new in after.items():
        for name in answered_names(new, bound):
            try:
                wire_name = name_to_wire(name)
            except ValueError as error:
                refused[key, name] = str(error)
                continue
            affected[wire_name] = None
            claims[wire_name] = ranked((*claims.get(wire_name, ()), key), name, previous.domain)
    changes: dict[bytes, IPv4Address | None] = {}
    for wire_name in affected:
        changes[wire_name] = vips[claims[wire_name][0]].address if claims[wire_name] else None
        if not claims[wire_name]:
            del claims[wire_name]
    return Rendering(previous.table.changed(changes), previous.domain, vips, bound, claims, refused)


def is_answered(vip: Vip, bound: BoundVips | None) -> bool:
    """Whether clients may be told of a VIP."""
    return bound is None or bound.reach(vip)


def answered_names(vip: Vip, bound: BoundVips | None) -> tuple[str, ...]:
    """The names of a VIP that may be told to clients; each once."""
    return tuple(dict.fromkeys(vip.names)) if is_answered(vip, bound) else ()


def ranked(keys: tuple[str, ...], name: str, domain: str) -> tuple[str, ...]:
    """The VIPs that claim a name, rightful owner first.

    A service ``a.b`` and a service ``a_b`` both want ``a.b.mesh``; the one that is called so gets it, then the alphabet
    decides.
    """
    return tuple(sorted(set(keys), key=lambda key: (name.lower() not in (key.lower(), f"{key}.{domain}".lower()), key)))
