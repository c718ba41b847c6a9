"""From a mesh's view to the names that are answered: incremental, a changed VIP or service costs only its own names.

Finding out what changed looks at everything, if briefly; so it is work in steps, and the names change in portions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from itertools import islice
from types import MappingProxyType
from typing import Final, TypeVar

from meshd.dns.table import Change, Entry, NameTable
from meshd.dns.wire import name_to_wire
from meshd.model.steps import Steps, finished, portions
from meshd.topology.view import BoundVips, MeshView, ServiceView, Vip

T = TypeVar("T")

NO_VIPS: Final[Mapping[str, Vip]] = MappingProxyType({})
NO_SERVICES: Final[Mapping[str, ServiceView]] = MappingProxyType({})
GLANCES: Final = 1000
"""Things that are compared in a step: less than a tenth of a millisecond."""
PORTION: Final = 20
"""VIPs or names that are made anew in a step: about as long."""


@dataclass(slots=True)
class Affected:
    """What the difference of two views leaves to be made anew: names in wire form, and addresses with their titles."""

    names: dict[bytes, None] = field(default_factory=dict)
    titles: dict[bytes, bytes | None] = field(default_factory=dict)


class Rendering:
    """What the answered names were made of, so that the next change is made of the differences.

    Of the view's ``vips``, by key, the *answered* ones have a ``bound`` port. ``claims`` has, for each name in wire
    form, the keys of the answered VIPs that want it; the first gets it. ``refused`` says for each VIP's key and name
    that DNS cannot carry why it is left out. ``table`` is what came of it.
    """

    def __init__(self, domain: str, *, recursive: bool, is_known: bool = True, cidr: IPv4Network | None = None) -> None:
        self.domain = domain.strip(".").lower()
        self.table = NameTable(domain, recursive=recursive, is_known=is_known, cidr=cidr)
        self.zone = ""
        self.vips, self.services = NO_VIPS, NO_SERVICES
        self.bound: BoundVips | None = None
        self.claims: dict[bytes, tuple[str, ...]] = {}
        self.refused: dict[tuple[str, str], str] = {}

    def update(
        self, view: MeshView | None, bound: BoundVips | None, tell: Callable[[Change], None] = lambda _: None
    ) -> Steps[None]:
        """Go on to this view; ``tell`` is given what changes in the table, in portions. To be driven to its end.

        ``bound`` is where the owner of the VIPs listens: a VIP without any of its ports there is not answered, since
        nothing would take the connection. None: nobody owns VIPs in this process, so all are answered (Envoys take
        the connections).
        """
        vips, services = (view.vips, view.services) if view else (NO_VIPS, NO_SERVICES)
        same_bound = bound is self.bound or bound == self.bound
        touched = (yield from differing(self.services, services)) if services is not self.services else set()
        old_keys = (yield from differing(self.vips, vips)) if vips is not self.vips else set()
        for some in portions(vips, GLANCES) if not same_bound or touched else ():
            for key in some:
                vip = vips[key]
                # However many sockets the owner has: only what turned answerable, or ceased to be, is work.
                turned = not same_bound and is_answered(vip, bound) != is_answered(vip, self.bound)
                if turned or not touched.isdisjoint(vip.ports.values()):
                    old_keys.add(key)
            yield
        affected = Affected()
        for some in portions(sorted(old_keys), PORTION):
            for key in some:
                self._forget(key, affected)
            yield
        self.zone, self.vips, self.services, self.bound = view.zone if view else "", vips, services, bound
        for some in portions(sorted(old_keys & vips.keys()), PORTION):
            for key in some:
                self._remember(key, affected)
            yield
        for names in portions(affected.names, PORTION):
            self._change(Change(names={name: self._entry(name) for name in names}), tell)
            yield
        for addresses in portions(affected.titles, PORTION):
            self._change(Change(titles={address: affected.titles[address] for address in addresses}), tell)
            yield

    def _change(self, change: Change, tell: Callable[[Change], None]) -> None:
        self.table.change(change)
        tell(change)

    def _forget(self, key: str, affected: Affected) -> None:
        old = self.vips.get(key)
        for name in answered_names(old, self.bound):
            if self.refused.pop((key, name), None) is None:
                wire_name = name_to_wire(name)
                affected.names[wire_name] = None
                if others := tuple(k for k in self.claims[wire_name] if k != key):
                    self.claims[wire_name] = others
                else:
                    del self.claims[wire_name]
        if old is not None:
            affected.titles[old.address.packed] = None

    def _remember(self, key: str, affected: Affected) -> None:
        new = self.vips[key]
        title = ""
        for name in answered_names(new, self.bound):
            try:
                wire_name = name_to_wire(name)
            except ValueError as error:
                self.refused[key, name] = str(error)
                continue
            affected.names[wire_name] = None
            self.claims[wire_name] = ranked((*self.claims.get(wire_name, ()), key), name, self.domain)
            if not title or is_called(key, name, self.domain):
                title = name
        if title:
            affected.titles[new.address.packed] = name_to_wire(title)

    def _entry(self, name: bytes) -> Entry | None:
        """What is said of a name now."""
        owners = self.claims.get(name)
        if not owners:
            return None
        vip = self.vips[owners[0]]
        ports = []
        instances: dict[str, int] = {}
        for service in dict.fromkeys(vip.ports.values()):
            seen = self.services.get(service)
            if seen is not None:
                for zone, count in ((self.zone, seen.local_instances), *seen.remote_instances.items()):
                    instances[zone] = instances.get(zone, 0) + count
        for port, service in sorted(vip.ports.items()):
            seen = self.services.get(service)
            ports.append((port, seen.protocol if seen else "tcp"))
        return Entry(vip.address.packed, tuple(ports), tuple(sorted((z, c) for z, c in instances.items() if c)))


def table_of(
    view: MeshView | None,
    bound: BoundVips | None,
    *,
    domain: str = "mesh",
    recursive: bool = False,
    cidr: IPv4Network | None = None,
) -> NameTable:
    """The table of a view from scratch."""
    rendering = Rendering(domain, recursive=recursive, cidr=cidr)
    finished(rendering.update(view, bound))
    return rendering.table


def differing(old: Mapping[str, T], new: Mapping[str, T]) -> Steps[set[str]]:
    """The keys whose values differ, or that only one of both has. No value is None."""
    found: set[str] = set()
    added = 0
    values = iter(new.values())
    for keys in portions(new, GLANCES):
        before, now = list(map(old.get, keys)), list(islice(values, len(keys)))
        # Lists compare what is the same object without asking it: nearly all is, and 100,000 take some milliseconds.
        if before != now:
            for key, one, other in zip(keys, before, now, strict=True):
                if one is not other and one != other:
                    found.add(key)
                    added += one is None
        yield
    if len(old) + added > len(new):
        for keys in portions(old, GLANCES):
            found.update(key for key in keys if key not in new)
            yield
    return found


def is_answered(vip: Vip, bound: BoundVips | None) -> bool:
    """Whether clients may be told of a VIP."""
    return bound is None or bound.reach(vip)


def answered_names(vip: Vip | None, bound: BoundVips | None) -> tuple[str, ...]:
    """The names of a VIP that may be told to clients; each once."""
    return tuple(dict.fromkeys(vip.names)) if vip is not None and is_answered(vip, bound) else ()


def is_called(key: str, name: str, domain: str) -> bool:
    """Whether a name is a VIP's own, not another form of it."""
    return name.lower() in (key.lower(), f"{key}.{domain}".lower())


def ranked(keys: tuple[str, ...], name: str, domain: str) -> tuple[str, ...]:
    """The VIPs that claim a name, rightful owner first.

    A service ``a.b`` and a service ``a_b`` both want ``a.b.mesh``; the one that is called so gets it, then the alphabet
    decides.
    """
    return tuple(sorted(set(keys), key=lambda key: (not is_called(key, name, domain), key)))
