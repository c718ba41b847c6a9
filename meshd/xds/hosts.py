"""Names where Envoy wants addresses: EDS and listeners take none (reference/dataplane.md 3.8: Kuma resolves them)."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import cast

from meshd.kinds.dataplane import Dataplane
from meshd.model.resource import Resource
from meshd.model.steps import Steps
from meshd.topology.view import MeshView, ServiceView
from meshd.xds.clusters import is_ip

NAMES_A_STEP = 200
MAX_OUTLIVING = 1000
"""Names that nobody uses any more whose address is still known."""


class Hosts:
    """The addresses of names, as far as they are known. Who finds them out adds them to ``known``.

    ``asked`` are the names that somebody wanted to know, with the round of ``forget`` in which it was asked for last;
    the same name stands for the same address for everybody. What is known of a name outlives it: if the name comes
    back, it is not without an address meanwhile.
    """

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.asked: dict[str, int] = {}
        self._round = 0

    def address_of(self, host: str) -> str | None:
        """The address of a name; an address is its own; None: not known yet."""
        if is_ip(host):
            return host
        self.asked[host] = self._round
        return self.known.get(host)

    def forget(self, views: Iterable[MeshView], at: Iterable[str]) -> Steps[None]:
        """Ask no more for names that are in none of the views and not among ``at``, nor asked for meanwhile."""
        self._round += 1
        used = set(at)
        for view in views:
            for count, name in enumerate(names_in(view)):
                used.add(name)
                if not count % NAMES_A_STEP:
                    yield
        for host in [h for h, asked in self.asked.items() if asked < self._round and h not in used]:
            del self.asked[host]
        for host in [h for h in self.known if h not in self.asked][:-MAX_OUTLIVING]:
            del self.known[host]

    def resolved(self, dataplane: Resource) -> Resource | None:
        """A Dataplane that has addresses where it may have names; None: one is not known yet."""
        networking = cast("Dataplane", dataplane.spec).networking
        found = {host: self.address_of(host) for host in hosts_of(dataplane)}
        address = found[networking.address]
        if address is None or None in found.values():
            return None
        if all(host == known for host, known in found.items()):
            return dataplane
        inbound = tuple(
            i.model_copy(
                update={
                    "address": found.get(i.address, i.address),
                    "service_address": found.get(i.service_address, i.service_address),
                }
            )
            for i in networking.inbound
        )
        changed = networking.model_copy(update={"address": address, "inbound": inbound})
        return replace(dataplane, spec=dataplane.spec.model_copy(update={"networking": changed}))


def hosts_of(dataplane: Resource) -> set[str]:
    """Where a Dataplane and its applications are: names or addresses."""
    networking = cast("Dataplane", dataplane.spec).networking
    return {networking.address} | {h for i in networking.inbound for h in (i.address, i.service_address) if h}


def names_in(view: MeshView) -> Iterator[str]:
    """Every address in a view that may be a name: those of endpoints and of this zone's Dataplanes; some repeatedly."""
    for services in (view.services, view.ingress_services, view.egress_services):
        for service in services.values():
            for endpoint in service.endpoints:
                yield endpoint.address
    for dataplane in view.local_dataplanes.values():
        yield from hosts_of(dataplane)


def is_at(service: ServiceView, hosts: set[str]) -> bool:
    """Whether any endpoint of a service is at one of these names."""
    return any(endpoint.address in hosts for endpoint in service.endpoints)
