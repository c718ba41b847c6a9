"""Received batches against what is stored (reference/kds.md 5.3, 5.7 and 7.2)."""

import dataclasses

from meshd.discovery import Entry, Received
from meshd.discovery.fields import bytes_field, string_field
from meshd.discovery.wire import any_bytes
from meshd.kds import crossing
from meshd.kds.envelope import KUMA_RESOURCE, TYPE_PREFIX, encode
from meshd.kds.merge import Merged, complaint, joined, on_global, on_zone, open_batch, pieces
from meshd.kinds.secret import Secret
from meshd.kinds.zone import Zone
from meshd.model import codec
from meshd.model import labels as label
from meshd.model.resource import Resource, ResourceKey
from meshd.store.store import Create, Delete, Update
from tests.kds.lab import REGISTRY, dataplane, ingress, mesh, permission


class Shelf(dict):
    """Stored resources."""

    def __init__(self, *resources: Resource) -> None:
        super().__init__({r.key: dataclasses.replace(r, version=1) for r in resources})

    def list(self, kind: str, mesh: str | None = None) -> tuple[Resource, ...]:
        return tuple(r for k, r in self.items() if k.kind == kind and mesh in (None, k.mesh))


def received(kind: str, *entries: Entry, removed: tuple[str, ...] = (), complete: bool = True) -> Received:
    return Received(kind, complete, entries, removed, "1", "")


def sent_up(document: dict, zone: str = "zone-a", **labels: str) -> tuple[Resource, Entry]:
    type_ = REGISTRY[document["type"]]
    made = dataclasses.replace(codec.decode_document(document, REGISTRY), labels=labels)
    up = crossing.to_global(type_, made, zone)
    return up, encode(type_, up)


def sent_down(document: dict) -> tuple[Resource, Entry]:
    type_ = REGISTRY[document["type"]]
    down = crossing.to_zone(type_, codec.decode_document(document, REGISTRY))
    return down, encode(type_, down)


def globally(shelf: Shelf, got: Received, zone: str = "zone-a") -> Merged:
    return on_global(open_batch(REGISTRY[got.type_url], got), shelf, zone)


def zonally(shelf: Shelf, got: Received) -> Merged:
    return on_zone(open_batch(REGISTRY[got.type_url], got), shelf)


def keys(merged: Merged) -> list[tuple[str, str]]:
    return [(type(e).__name__, e.key.name if isinstance(e, Delete) else e.resource.key.name) for e in merged.edits]


def stored_copy(document: dict, zone: str = "zone-a") -> Resource:
    [edit] = globally(Shelf(), received(document["type"], sent_up(document, zone)[1]), zone).edits
    return edit.resource


# ---------------------------------------------------------------- on the global


def test_a_new_resource_is_labelled_owned_and_pinned() -> None:
    _, entry = sent_up(ingress("in", zone="zone-z"), **{"kuma.io/env": "universal"})
    merged = globally(Shelf(), received("ZoneIngress", entry))
    [edit] = merged.edits
    assert isinstance(edit, Create)
    assert edit.resource.owner == ResourceKey("Zone", "", "zone-a")
    assert edit.resource.labels["kuma.io/zone"] == "zone-a"
    assert edit.resource.labels["kuma.io/env"] == "universal"
    assert edit.resource.spec.zone == "zone-a"
    assert merged.relabelled == ("zone-z",)


def test_the_same_again_writes_nothing() -> None:
    copy = stored_copy(dataplane("dp"))
    assert globally(Shelf(copy), received("Dataplane", sent_up(dataplane("dp"))[1])).edits == ()


def test_a_complete_state_deletes_what_it_lacks_of_that_zone_only() -> None:
    mine, gone = stored_copy(dataplane("dp")), stored_copy(dataplane("gone"))
    others = stored_copy(dataplane("other"), "zone-b")
    merged = globally(Shelf(mine, gone, others), received("Dataplane", sent_up(dataplane("dp"))[1]))
    assert keys(merged) == [("Delete", gone.key.name)]


def test_an_empty_complete_state_deletes_everything_of_the_zone() -> None:
    mine = stored_copy(dataplane("dp"))
    assert keys(globally(Shelf(mine), received("Dataplane"))) == [("Delete", mine.key.name)]


def test_an_increment_deletes_what_it_names() -> None:
    a, b = stored_copy(dataplane("a")), stored_copy(dataplane("b"))
    got = received("Dataplane", removed=(f"{a.key.name}.default", "never.default"), complete=False)
    assert keys(globally(Shelf(a, b), got)) == [("Delete", a.key.name)]


def test_named_as_changed_and_removed_is_changed() -> None:
    a = stored_copy(dataplane("a"))
    entry = sent_up(dataplane("a", service="new"))[1]
    got = received("Dataplane", entry, removed=(entry.name,), complete=False)
    assert keys(globally(Shelf(a), got)) == [("Update", a.key.name)]


def test_a_zone_cannot_remove_what_another_has() -> None:
    others = stored_copy(dataplane("a"), "zone-b")
    got = received("Dataplane", removed=(f"{others.key.name}.default",), complete=False)
    assert globally(Shelf(others), got).edits == ()


def test_a_zone_cannot_overwrite_or_squat_on_names_of_another() -> None:
    others, entry = stored_copy(dataplane("a"), "zone-b"), sent_up(dataplane("a"), "zone-b")[1]
    taken = globally(Shelf(others), received("Dataplane", entry))
    assert taken.edits == ()
    assert "belongs to zone 'zone-b'" in taken.refused[0].reason
    ahead = globally(Shelf(), received("Dataplane", entry))
    assert ahead.edits == ()
    assert "its name is not the one" in ahead.refused[0].reason


def test_what_is_larger_than_any_honest_resource_is_refused_undecoded() -> None:
    up, _ = sent_up(dataplane("dp"))
    filler = bytes_field(100, b"x" * (256 * 1024))
    wire = codec.spec_to_wire(REGISTRY["Dataplane"], up.spec) + filler
    merged = globally(Shelf(), received("Dataplane", encode(REGISTRY["Dataplane"], dataclasses.replace(up, wire=wire))))
    assert merged.edits == ()
    assert "of a Dataplane at most 262144 are taken from a zone" in merged.refused[0].reason
    up, _ = sent_up(ingress("in"))
    wire = codec.spec_to_wire(REGISTRY["ZoneIngress"], up.spec) + filler
    entry = encode(REGISTRY["ZoneIngress"], dataclasses.replace(up, wire=wire))
    assert keys(globally(Shelf(), received("ZoneIngress", entry))) == [("Create", up.key.name)]


def test_labels_have_a_limit() -> None:
    _, entry = sent_up(dataplane("dp"), team="x" * 70_000)
    assert "more than 65536 characters" in globally(Shelf(), received("Dataplane", entry)).refused[0].reason


def test_a_namespace_does_not_make_a_zone_another_one() -> None:
    namespace = {"k8s.kuma.io/namespace": "2"}
    mine, entry = sent_up(dataplane("dp-1"), "east", **namespace)
    assert mine.key == sent_up(dataplane("dp-1"), "east2")[0].key, "the hash has no separators"
    east2 = Resource(ResourceKey("Zone", "", "east2"), Zone())
    refused = globally(Shelf(east2), received("Dataplane", entry), "east")
    assert refused.edits == ()
    assert "gives the names of zone 'east2'" in refused.refused[0].reason
    assert keys(globally(Shelf(), received("Dataplane", entry), "east")) == [("Create", mine.key.name)]
    own = sent_up(dataplane("dp-1"), "east2")[1]
    east = Resource(ResourceKey("Zone", "", "east"), Zone())
    assert keys(globally(Shelf(east, east2), received("Dataplane", own), "east2")) == [("Create", mine.key.name)]


def test_that_a_file_owns_it_somewhere_else_means_nothing_here() -> None:
    labels = {"kuma.io/origin": "zone", label.MANAGED_BY_FILE: "true", "team": "x"}
    _, honest = sent_up(ingress("in"), **labels)
    up = dataclasses.replace(sent_up(ingress("in"))[0], labels={**sent_up(ingress("in"))[0].labels, **labels})
    for entry in (honest, encode(REGISTRY["ZoneIngress"], up)):
        [edit] = globally(Shelf(), received("ZoneIngress", entry)).edits
        assert edit.resource.labels["team"] == "x"
        assert label.MANAGED_BY_FILE not in edit.resource.labels
    forwarded = dataclasses.replace(up, labels={**up.labels, "kuma.io/origin": "global"})
    [edit] = zonally(Shelf(), received("ZoneIngress", encode(REGISTRY["ZoneIngress"], forwarded))).edits
    assert label.MANAGED_BY_FILE not in edit.resource.labels


def test_one_bad_resource_stays_out_and_is_left_as_it_was() -> None:
    good, old = sent_up(dataplane("good"))[1], stored_copy(dataplane("bad"))
    body = string_field(1, old.key.name) + string_field(2, "default")
    spec = any_bytes("type.googleapis.com/kuma.mesh.v1alpha1.Dataplane", b"\x0a\xff")
    broken = Entry(
        f"{old.key.name}.default",
        "",
        any_bytes(TYPE_PREFIX + KUMA_RESOURCE, bytes_field(1, body) + bytes_field(2, spec)),
    )
    merged = globally(Shelf(old), received("Dataplane", good, broken))
    assert keys(merged) == [("Create", good.name.removesuffix(".default"))]
    assert [r.key for r in merged.refused] == [old.key]
    assert str(old.key) in complaint(merged.refused)


def test_with_an_unknown_key_among_the_broken_nothing_is_deleted() -> None:
    old = stored_copy(dataplane("old"))
    merged = globally(Shelf(old), received("Dataplane", Entry("", "", b"\xff")))
    assert merged.edits == ()
    assert len(merged.refused) == 1


def test_rules_of_the_kind_are_kept() -> None:
    document = dataplane("dp")
    type_ = REGISTRY["Dataplane"]
    good = codec.decode_document(document, REGISTRY)
    inbound = good.spec.networking.inbound[0].model_copy(update={"tags": {"version": "1"}})
    networking = good.spec.networking.model_copy(update={"inbound": (inbound,)})
    bad = dataclasses.replace(good, spec=good.spec.model_copy(update={"networking": networking}))
    entry = encode(type_, crossing.to_global(type_, bad, "zone-a"))
    merged = globally(Shelf(), received("Dataplane", entry))
    assert merged.edits == ()
    assert "kuma.io/service" in merged.refused[0].reason


def test_unknown_fields_are_kept_for_the_next() -> None:
    type_ = REGISTRY["ZoneIngress"]
    up, _ = sent_up(ingress("in"))
    wire = codec.spec_to_wire(type_, up.spec) + bytes_field(900, b"later")
    entry = encode(type_, dataclasses.replace(up, wire=wire))
    [edit] = globally(Shelf(), received("ZoneIngress", entry)).edits
    assert edit.resource.wire.endswith(bytes_field(900, b"later"))
    assert encode(type_, crossing.to_zone(type_, edit.resource)).body.find(b"later") > 0


# ---------------------------------------------------------------- in a zone


def test_a_zone_takes_what_the_global_sends() -> None:
    down, entry = sent_down(permission("p"))
    [edit] = zonally(Shelf(), received("MeshTrafficPermission", entry)).edits
    assert isinstance(edit, Create)
    assert edit.resource.key == down.key
    assert edit.resource.owner is None


def test_of_shared_kinds_only_the_globals_are_touched() -> None:
    own = codec.decode_document(ingress("own"), REGISTRY)
    synced = dataclasses.replace(stored_copy(ingress("far")), labels={"kuma.io/origin": "global"})
    assert keys(zonally(Shelf(own, synced), received("ZoneIngress"))) == [("Delete", synced.key.name)]


def test_of_the_globals_kinds_everything_is_replaced() -> None:
    local = codec.decode_document(mesh("made-here"), REGISTRY)
    merged = zonally(Shelf(local), received("Mesh", sent_down(mesh("default"))[1]))
    assert keys(merged) == [("Create", "default"), ("Delete", "made-here")]
    assert merged.overruled == (local.key,)
    [copy] = [edit.resource for edit in merged.edits if isinstance(edit, Create)]
    assert zonally(Shelf(copy), received("Mesh")).overruled == ()


def test_what_is_removed_from_a_mesh_with_dots_in_its_name_goes() -> None:
    stored = dataclasses.replace(sent_down(permission("p"))[0], key=ResourceKey("MeshTrafficPermission", "a.b", "p-1"))
    got = received("MeshTrafficPermission", removed=("p-1.a.b",), complete=False)
    assert keys(zonally(Shelf(stored), got)) == [("Delete", "p-1")]


def test_without_the_label_nothing_of_a_shared_kind_comes_in() -> None:
    _, entry = sent_up(ingress("in"), "zone-b")
    merged = zonally(Shelf(), received("ZoneIngress", entry))
    assert merged.edits == ()
    assert "kuma.io/origin=global" in merged.refused[0].reason


def test_a_secret_that_the_zone_made_stays() -> None:
    key = ResourceKey("Secret", "default", "token")
    own = Resource(key, Secret(data=b"mine"))
    theirs = crossing.to_zone(REGISTRY["Secret"], Resource(key, Secret(data=b"theirs")))
    merged = zonally(Shelf(own), received("Secret", encode(REGISTRY["Secret"], theirs)))
    assert merged.edits == ()
    assert merged.refused[0].reason.startswith("user error")


def test_changed_labels_alone_are_an_update() -> None:
    down, entry = sent_down(permission("p"))
    [create] = zonally(Shelf(), received("MeshTrafficPermission", entry)).edits
    type_ = REGISTRY["MeshTrafficPermission"]
    relabelled = encode(type_, dataclasses.replace(down, labels={**down.labels, "team": "x"}))
    [edit] = zonally(Shelf(create.resource), received("MeshTrafficPermission", relabelled)).edits
    assert isinstance(edit, Update)
    assert edit.resource.version == 1
    assert edit.resource.labels["team"] == "x"


# ---------------------------------------------------------------- in pieces


def in_pieces(shelf: Shelf, got: Received, size: int) -> Merged:
    return joined(on_global(piece, shelf, "zone-a") for piece in pieces(REGISTRY[got.type_url], got, size))


def test_pieces_come_to_the_same_as_the_whole() -> None:
    kept, gone = stored_copy(dataplane("d-0")), stored_copy(dataplane("gone"))
    changed = stored_copy(dataplane("d-1", service="old"))
    entries = [sent_up(dataplane(f"d-{n}"))[1] for n in range(5)]
    broken = Entry("gone-not.default", "", b"\xff")
    for complete in (True, False):
        got = received("Dataplane", *entries, broken, complete=complete)
        shelf = Shelf(kept, gone, changed)
        whole = globally(shelf, got)
        for size in (1, 2, 100):
            assert in_pieces(shelf, got, size) == whole
    assert [type(e).__name__ for e in in_pieces(shelf, received("Dataplane", *entries), 2).edits] == [
        *["Create"] * 3,
        "Delete",
        "Update",
    ]


def test_a_broken_key_in_one_piece_protects_from_deletion_in_the_last() -> None:
    shelf = Shelf(stored_copy(dataplane("old")))
    got = received("Dataplane", Entry("", "", b"\xff"), *[sent_up(dataplane(f"d-{n}"))[1] for n in range(3)])
    assert {type(e).__name__ for e in in_pieces(shelf, got, 1).edits} == {"Create"}


def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    got = received("Dataplane", sent_up(dataplane("d", service="a"))[1], sent_up(dataplane("d", service="b"))[1])
    [edit] = in_pieces(Shelf(), got, 1).edits
    assert edit.resource.spec.networking.inbound[0].tags["kuma.io/service"] == "b"
