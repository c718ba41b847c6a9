"""Who may write what where: the table over every kind, as a golden, and the rules about stored resources."""

from pathlib import Path

import pytest

from meshd.cli.known import registry
from meshd.model import labels as label
from meshd.model.errors import ConflictError, InvalidError
from meshd.model.resource import Resource, ResourceKey, Spec
from meshd.rest.access import Role, check_stored, label_violations, refusal

GLOBAL = Role(is_global=True, is_federated=False)
STANDALONE = Role(is_global=False, is_federated=False, zone="zone-a")
FEDERATED = Role(is_global=False, is_federated=True, zone="zone-a")
PERMISSIVE = Role(is_global=False, is_federated=True, zone="zone-a", allow_zone_policies=True)
READ_ONLY = Role(is_global=True, is_federated=False, read_only=True)
ROLES = {"global": GLOBAL, "standalone": STANDALONE, "federated": FEDERATED, "permissive": PERMISSIVE, "ro": READ_ONLY}


def test_the_table(golden):
    lines = [f"{'kind':26}" + "".join(f"{name:12}" for name in ROLES)]
    for type_ in registry():
        if type_.path:
            cells = ["405" if refusal(type_, role) else "yes" for role in ROLES.values()]
            lines.append(f"{type_.kind:26}" + "".join(f"{cell:12}" for cell in cells))
    golden(Path(__file__).with_name("access.golden"), "\n".join(line.rstrip() for line in lines) + "\n")


def with_labels(labels):
    return Resource(ResourceKey("MeshTrafficPermission", "default", "x"), Spec(), labels=labels)


@pytest.mark.parametrize("role", ROLES.values(), ids=list(ROLES))
def test_what_a_file_owns_is_a_conflict_everywhere(role):
    with pytest.raises(ConflictError, match="belongs to the configuration file"):
        check_stored(with_labels({label.MANAGED_BY_FILE: "true"}), role)


def test_what_came_from_elsewhere_cannot_be_changed_here():
    with pytest.raises(InvalidError, match="it came from the global"):
        check_stored(with_labels({label.ORIGIN: "global"}), PERMISSIVE)
    with pytest.raises(InvalidError, match="it came from zone 'zone-b'; change it there"):
        check_stored(with_labels({label.ORIGIN: "zone", label.ZONE: "zone-b"}), GLOBAL)
    with pytest.raises(InvalidError, match="it belongs to zone 'zone-b'; change it there"):
        check_stored(with_labels({label.ORIGIN: "zone", label.ZONE: "zone-b"}), FEDERATED)
    check_stored(with_labels({label.ORIGIN: "zone", label.ZONE: "zone-a"}), PERMISSIVE)
    check_stored(with_labels({label.ORIGIN: "global"}), GLOBAL)


def test_a_zone_cannot_delete_itself():
    own, other = (Resource(ResourceKey("Zone", "", name), Spec()) for name in ("zone-a", "zone-b"))
    for role in (STANDALONE, FEDERATED):
        with pytest.raises(InvalidError, match='zone "zone-a" is the one of this control plane'):
            check_stored(own, role, "delete")
        check_stored(own, role)
        check_stored(other, role, "delete")
    check_stored(own, GLOBAL, "delete")


def test_a_policy_that_the_zone_made_itself_may_go():
    type_ = registry()["MeshTrafficPermission"]
    assert refusal(type_, FEDERATED, with_labels({label.ORIGIN: "zone", label.ZONE: "zone-a"})) is None
    assert refusal(type_, FEDERATED, with_labels({label.ORIGIN: "global"})) is not None
    assert refusal(type_, FEDERATED) is not None


@pytest.mark.parametrize(
    ("role", "labels", "stored", "fields"),
    [
        (GLOBAL, {}, None, []),
        (GLOBAL, {label.ORIGIN: "zone"}, None, [label.ORIGIN]),
        (PERMISSIVE, {}, None, [label.ORIGIN]),
        (PERMISSIVE, {label.ORIGIN: "global"}, None, [label.ORIGIN]),
        (PERMISSIVE, {label.ORIGIN: "zone"}, None, []),
        (STANDALONE, {}, None, []),
        (STANDALONE, {label.ZONE: "zone-b"}, None, [label.ZONE]),
        (STANDALONE, {label.MANAGED_BY_FILE: "true"}, None, [label.MANAGED_BY_FILE]),
        (STANDALONE, {label.DISPLAY_NAME: "b"}, {label.DISPLAY_NAME: "a"}, [label.DISPLAY_NAME]),
        (STANDALONE, {label.DISPLAY_NAME: "a"}, {label.DISPLAY_NAME: "a"}, []),
    ],
)
def test_labels(role, labels, stored, fields):
    before = with_labels(stored) if stored is not None else None
    found = label_violations(registry()["MeshTrafficPermission"], labels, before, role)
    assert [v.field for v in found] == [f'labels["{f}"]' for f in fields]


@pytest.mark.parametrize("role", [STANDALONE, FEDERATED], ids=["standalone", "federated"])
@pytest.mark.parametrize("kind", ["Dataplane", "ZoneIngress", "ZoneEgress"])
def test_what_a_zone_makes_cannot_claim_to_be_the_globals(role, kind):
    for origin, fields in (("global", [label.ORIGIN]), ("zone", []), (None, [])):
        labels = {label.ORIGIN: origin} if origin else {}
        found = label_violations(registry()[kind], labels, None, role)
        assert [v.field for v in found] == [f'labels["{f}"]' for f in fields]
