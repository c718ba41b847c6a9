"""Building views in tests, without a store."""

from collections.abc import Iterable
from datetime import UTC, datetime
from fractions import Fraction

from meshd.model.resource import Resource
from meshd.topology.build import Topology
from meshd.topology.view import Endpoint, MeshView, ServiceView
from meshd.topology.vips import Book, Pool, allocate

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def build_views(resources: Iterable[Resource], zone: str = "zone-a") -> dict[str, MeshView]:
    """The views of a zone whose store holds these resources and that has just started."""
    topology = Topology(zone, "mesh", 80)
    for resource in resources:
        topology.apply(resource.key, resource)
    settle(topology, Book())
    return topology.views


def settle(topology: Topology, book: Book) -> Book:
    wanted = [entry.key for of_mesh in topology.entries().values() for entry in of_mesh]
    book = allocate(book, wanted, Pool("240.0.0.0/4"), NOW).book
    for _ in topology.rebuild(book.addresses):
        pass
    return book


def shares(service: ServiceView, priority: int = 0) -> dict[str, Fraction]:
    """What part of the traffic goes to each zone by the weights of one priority."""
    found: dict[str, Fraction] = {}
    chosen = [e for e in service.endpoints if e.priority == priority]
    total = sum(e.weight for e in chosen)
    for endpoint in chosen:
        found[endpoint.zone] = found.get(endpoint.zone, Fraction(0)) + Fraction(endpoint.weight, total)
    return found


def rows(endpoints: Iterable[Endpoint]) -> list[tuple[str, int, str, int, int, str]]:
    return [(e.address, e.port, e.zone, e.weight, e.priority, e.reach.value) for e in endpoints]
