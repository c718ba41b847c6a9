"""The encoded resources of one role."""

from dataclasses import replace

from meshd.kds import crossing
from meshd.kds.outbox import Outbox
from meshd.kinds.secret import Secret
from meshd.model import codec
from meshd.model.resource import Resource, ResourceKey
from tests.kds.lab import REGISTRY, mesh, permission

KINDS = ("Mesh", "MeshTrafficPermission", "GlobalSecret")


def resource(document: dict) -> Resource:
    return codec.decode_document(document, REGISTRY)


def test_it_tells_the_names_that_changed_and_only_those() -> None:
    box, stored = Outbox(REGISTRY, KINDS, crossing.to_zone), {}
    made = resource(permission("p"))
    stored[made.key] = made
    name = f"{crossing.to_zone(REGISTRY['MeshTrafficPermission'], made).key.name}.default"
    assert box.update([made.key], stored.get) == {"MeshTrafficPermission": {name}}
    assert box.update([made.key], stored.get) == {}
    stored[made.key] = resource(permission("p", "Deny"))
    assert box.update([made.key], stored.get) == {"MeshTrafficPermission": {name}}
    del stored[made.key]
    assert box.update([made.key], stored.get) == {"MeshTrafficPermission": {name}}
    assert box.get("MeshTrafficPermission", name) is None
    assert list(box.names("MeshTrafficPermission")) == []


def test_a_resource_that_is_kept_home_from_now_on_is_gone() -> None:
    box, made = Outbox(REGISTRY, KINDS, crossing.to_zone), resource(mesh())
    box.update([made.key], lambda _: made)
    home = replace(made, labels={"kuma.io/kds-sync": "disabled"})
    assert box.update([made.key], lambda _: home) == {"Mesh": {"default."}}
    assert box.get("Mesh", "default.") is None


def test_what_cannot_be_encoded_keeps_its_last_good_form() -> None:
    box = Outbox(REGISTRY, KINDS, lambda _, r: r if r.spec.data != b"bad" else crossing.public_half(r))
    key = ResourceKey("GlobalSecret", "", "zone-token-signing-key-1")
    good = Resource(key, Secret(data=b"good"))
    box.update([key], lambda _: good)
    before = box.get("GlobalSecret", f"{key.name}.")
    assert box.update([key], lambda _: replace(good, spec=Secret(data=b"bad"))) == {}
    assert box.get("GlobalSecret", f"{key.name}.") is before
    assert key in box.refused
    box.update([key], lambda _: good)
    assert box.refused == {}


def test_kinds_that_are_not_sent_are_not_looked_at() -> None:
    box = Outbox(REGISTRY, KINDS, crossing.to_zone)
    assert box.update([ResourceKey("Dataplane", "default", "x")], lambda _: None) == {}
    assert list(box.names("Dataplane")) == []


def test_kinds_with_what_cannot_be_read_are_withheld_until_all_of_it_is_written_again() -> None:
    outbox = Outbox(REGISTRY, {"Mesh"}, crossing.to_zone)
    a, b = ResourceKey("Mesh", "", "a"), ResourceKey("Mesh", "", "b")
    assert outbox.withhold([b, a, ResourceKey("Dataplane", "default", "web")]) == frozenset()
    assert outbox.withheld == {"Mesh": "Mesh a, Mesh b"}
    assert outbox.withhold([a]) == frozenset()
    assert outbox.withhold([]) == {"Mesh"}
    assert outbox.withheld == {}


def test_what_is_held_back_is_not_there_and_tells_its_name_when_that_changes() -> None:
    box, made = Outbox(REGISTRY, KINDS, crossing.to_zone), resource(permission("p"))
    [name] = box.update([made.key], lambda _: made)["MeshTrafficPermission"]
    assert box.sources("MeshTrafficPermission") == {name: made.key}
    assert box.hold_back("MeshTrafficPermission", {made.key: "taken"}) == {name}
    assert box.hold_back("MeshTrafficPermission", {made.key: "taken"}) == set()
    assert box.hold_back("Mesh", {}) == set()
    assert box.get("MeshTrafficPermission", name) is None
    assert box.kept_back("MeshTrafficPermission") == "MeshTrafficPermission default/p: taken"
    assert box.kept_back("Mesh") == ""
    assert box.hold_back("MeshTrafficPermission", {}) == {name}
    assert box.get("MeshTrafficPermission", name) is not None
    assert box.kept_back("MeshTrafficPermission") == ""
