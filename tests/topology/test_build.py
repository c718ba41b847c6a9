"""Views: their versions, their identity, and that building in steps is building."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.model.resource import Resource, ResourceKey
from meshd.policies.mesh_traffic_permission.spec import MeshTrafficPermission
from meshd.topology.build import Topology
from meshd.topology.services import available_services
from meshd.topology.vips import Book
from tests.topology.builders import available, dataplane, egress, external, inbound, ingress, mesh
from tests.topology.views import build_views, settle


def policy(name: str, kind: str = "Mesh", mesh: str = "default") -> Resource:
    spec = MeshTrafficPermission.model_validate({"targetRef": {"kind": kind}})
    return Resource(ResourceKey("MeshTrafficPermission", mesh, name), spec)


def test_a_view_has_everything_of_its_mesh():
    dp = dataplane("d", "web")
    resources = [
        mesh(),
        mesh("other"),
        dp,
        dataplane("o", "x", mesh="other"),
        policy("b"),
        policy("a"),
        policy("z", mesh="other"),
    ]
    view = build_views(resources)["default"]
    assert (view.mesh_name, view.zone, view.mesh) == ("default", "zone-a", resources[0])
    assert list(view.services) == ["web"]
    assert view.local_dataplanes == {"d": dp}
    assert [p.key.name for p in view.policies["MeshTrafficPermission"]] == ["a", "b"]
    assert str(view.vips["web"].address) == "240.0.0.1"
    assert view.reasons == ()


def test_a_mesh_without_its_resource_has_no_view_and_gets_one_with_it():
    topology = Topology("zone-a", "mesh", 80)
    d, m = dataplane("d", "web"), mesh()
    topology.apply(d.key, d)
    book = settle(topology, Book())
    assert (topology.views, book.addresses, topology.offer()) == ({}, {}, ())
    topology.apply(m.key, m)
    book = settle(topology, book)
    first = topology.views["default"]
    assert first == build_views([d, m])["default"]
    topology.apply(m.key, None)
    book = settle(topology, book)
    assert (topology.views, dict(book.addresses)) == ({}, {})
    topology.apply(m.key, m)
    settle(topology, book)
    assert topology.views["default"].version == first.version


def test_unchanged_views_and_services_keep_their_identity():
    topology = Topology("zone-a", "mesh", 80)
    resources = [mesh(), mesh("other"), dataplane("d", "web"), dataplane("e", "db"), dataplane("o", "x", mesh="other")]
    for r in resources:
        topology.apply(r.key, r)
    book = settle(topology, Book())
    before = topology.views
    for r in resources:
        topology.apply(r.key, r)
    settle(topology, book)
    assert all(topology.views[name] is before[name] for name in before)
    changed = dataplane("d", inbound("web", 9999))
    topology.apply(changed.key, changed)
    settle(topology, book)
    after = topology.views
    assert after["other"] is before["other"]
    assert after["default"].version != before["default"].version
    assert after["default"].services["db"] is before["default"].services["db"]
    assert after["default"].services["web"] is not before["default"].services["web"]
    assert after["default"].vips is before["default"].vips
    assert after["default"].egress_services is before["default"].egress_services


def test_the_version_is_of_the_content_not_of_its_history():
    a, b, m = dataplane("a", "web"), dataplane("b", "web", address="10.0.0.2"), mesh()
    topology = Topology("zone-a", "mesh", 80)
    book = Book()
    for resource in (m, b, dataplane("a", "db"), a):
        topology.apply(resource.key, resource)
        book = settle(topology, book)
    fresh = build_views([a, b, m])["default"]
    assert (topology.views["default"].services, fresh.services) == (fresh.services, fresh.services)
    again = Topology("zone-a", "mesh", 80)
    for resource in (a, m, b):
        again.apply(resource.key, resource)
    settle(again, book)
    assert again.views["default"].version == topology.views["default"].version
    assert build_views([mesh(locality=True), a])["default"].version != build_views([mesh(), a])["default"].version
    assert build_views([mesh(), a, policy("p")])["default"].version != build_views([mesh(), a])["default"].version


NAMES = ["web", "Web", "db", "a_b", "ext"]
ZONES = ["zone-a", "zone-b", "zone-c"]


def random_resource(rng: random.Random) -> tuple[ResourceKey, Resource | None]:
    name, mesh_name = rng.choice(["r1", "r2", "r3"]), rng.choice(["default", "other"])
    services = rng.sample(NAMES, rng.randint(0, 3))
    states: list[Any] = [{}, {}, {"state": "NotReady"}, {"state": "Ignored"}]
    made = rng.choice(
        [
            lambda: mesh(
                mesh_name,
                mtls=rng.random() < 0.8,
                zone_egress=rng.random() < 0.5,
                locality=rng.random() < 0.5,
                labels={"x": rng.choice("ab")},
            ),
            lambda: dataplane(
                name,
                *(inbound(s, rng.randint(1, 3), {"v": rng.choice("12")}, **rng.choice(states)) for s in services),
                mesh=mesh_name,
                address=f"10.0.0.{rng.randint(1, 3)}",
            ),
            lambda: ingress(
                name,
                rng.choice(["", *ZONES]),
                [
                    available(
                        s,
                        rng.randint(0, 3),
                        mesh=rng.choice(["default", "other"]),
                        external=rng.random() < 0.2,
                        v=rng.choice("12"),
                    )
                    for s in services
                ],
                address=rng.choice(["", "i1", "i2"]),
            ),
            lambda: egress(name, rng.choice(["", "zone-a", "zone-b"]), rng.choice(["e1", "e2"])),
            lambda: external(
                name,
                rng.choice(NAMES),
                rng.choice(["h1.example:1", "h2.example:2", "192.0.2.1:3", "a.b:4", "web:5"]),
                mesh=mesh_name,
                tags={"kuma.io/zone": rng.choice(ZONES)} if rng.random() < 0.5 else {},
            ),
            lambda: policy(name, rng.choice(["Mesh", "Dataplane"]), mesh_name),
        ]
    )()
    return made.key, made if rng.random() < 0.8 else None


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.booleans())
def test_building_what_changed_is_building_everything(seed, steps, start_with_meshes):
    rng = random.Random(seed)
    topology, book = Topology("zone-a", "mesh", 80), Book()
    stored: dict[ResourceKey, Resource] = {}
    first = [(m.key, m) for m in (mesh(), mesh("other", zone_egress=True))] if start_with_meshes else []
    for key, resource in [*first, *(random_resource(rng) for _ in range(steps))]:
        if resource is None:
            stored.pop(key, None)
        else:
            stored[key] = resource
        topology.apply(key, resource)
        if rng.random() < 0.5:
            book = settle(topology, book)
    book = settle(topology, book)
    fresh = Topology("zone-a", "mesh", 80)
    for resource in rng.sample(list(stored.values()), len(stored)):
        fresh.apply(resource.key, resource)
    assert settle(fresh, book).addresses == book.addresses
    assert topology.views == fresh.views
    assert topology.offer() == fresh.offer()
    through_egress = {
        n for n, v in fresh.views.items() if v.mesh.spec.routing.zone_egress and v.mesh.spec.enabled_backend()
    }
    assert topology.offer() == available_services(
        [r for k, r in stored.items() if k.kind == "Dataplane" and k.mesh in fresh.views],
        [r for k, r in stored.items() if k.kind == "ExternalService" and k.mesh in through_egress],
        "zone-a",
    )


def test_the_work_is_that_of_the_services_a_change_names():
    offer = [available(f"s{i}", 2) for i in range(300)]
    resources = [mesh(), ingress("b", "zone-b", offer), *(dataplane(f"d{i}", f"s{i}") for i in range(300))]
    topology = Topology("zone-a", "mesh", 80)
    for r in resources:
        topology.apply(r.key, r)
    book = settle(topology, Book())

    def steps(resource: Resource) -> int:
        topology.apply(resource.key, resource)
        return sum(1 for _ in topology.rebuild(book.addresses))

    of_the_mesh, of_a_view = 1, 5
    assert steps(dataplane("d7", "s7", address="10.9.9.9")) == 1 + of_a_view
    offer[11] = available("s11", 3)
    assert steps(ingress("b", "zone-b", offer)) == 1 + of_a_view
    assert steps(policy("p")) == of_a_view
    assert steps(mesh(labels={"a": "b"})) == of_a_view
    assert steps(resources[9]) == 1 + of_a_view
    assert steps(resources[9]) == of_the_mesh
    assert steps(mesh(locality=True)) == 300 + of_a_view


def test_what_a_new_service_leaves_alone_keeps_its_identity():
    topology = Topology("zone-a", "mesh", 80)
    for r in (
        mesh(),
        policy("p"),
        ingress("b", "zone-b", [available("far", 2)]),
        *(dataplane(f"d{i}", f"s{i}") for i in range(300)),
    ):
        topology.apply(r.key, r)
    book = settle(topology, Book())
    before, entries = topology.views["default"], topology.entries()["default"]
    new = dataplane("new", "new")
    topology.apply(new.key, new)
    settle(topology, book)
    after = topology.views["default"]
    assert after.policies is before.policies
    assert after.egress_services is before.egress_services
    assert [n for n in after.services if after.services[n] is not before.services.get(n)] == ["new"]
    assert [n for n in after.vips if after.vips[n] is not before.vips.get(n)] == ["new"]
    assert len(set(map(id, topology.entries()["default"])) - set(map(id, entries))) == 1
