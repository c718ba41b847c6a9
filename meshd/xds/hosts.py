"""Names where Envoy wants addresses: EDS and listeners take none (reference/dataplane.md 3.8: Kuma resolves them)."""

from dataclasses import replace
from typing import cast

from meshd.kinds.dataplane import Dataplane
from meshd.model.resource import Resource
from meshd.topology.view import ServiceView
from meshd.xds.clusters import is_ip


class Hosts:
    """The addresses of names, as far as they are known. Who finds them out adds them to ``known``.

    ``asked`` are the names that somebody wanted to know; the same name stands for the same address for everybody.
    """

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.asked: set[str] = set()

    def address_of(self, host: str) -> str | None:
        """The address of a name; an address is its own; None: not known yet."""
        if is_ip(host):
            return host
        self.asked.add(host)
        return self.known.get(host)

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


def is_at(service: ServiceView, hosts: set[str]) -> bool:
    """Whether any endpoint of a service is at one of these names."""
    return any(endpoint.address in hosts for endpoint in service.endpoints)
