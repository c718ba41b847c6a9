from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.dns.table import ancestors, between, empty_table
from meshd.dns.wire import name_to_wire
from tests.dns.support import table

APEX = name_to_wire("mesh")
NAMES = st.sampled_from(["a.mesh", "b.mesh", "x.a.mesh", "y.x.a.mesh", "mesh", "example.com", "mesh.example.com"])
CHANGES = st.dictionaries(
    NAMES.map(name_to_wire), st.none() | st.integers(1, 3).map(lambda i: IPv4Address(f"240.0.0.{i}")), max_size=6
)


def test_ancestors_are_the_names_above() -> None:
    assert list(ancestors(name_to_wire("a.b.mesh"))) == [name_to_wire("b.mesh"), APEX]
    assert list(ancestors(b"\0")) == []


def test_between_counts_only_names_under_the_apex() -> None:
    assert between(name_to_wire("a.b.mesh"), APEX) == (name_to_wire("b.mesh"),)
    assert between(name_to_wire("mesh.example.com"), APEX) == ()


def test_a_label_that_contains_the_apex_bytes_is_not_under_it() -> None:
    inside_a_label = b"\x08abc" + APEX  # one label of eight bytes: abc\x04mesh
    assert inside_a_label.endswith(APEX)
    assert not empty_table("mesh", recursive=False).is_ours(inside_a_label)


def test_a_changed_table_leaves_the_old_one_alone() -> None:
    before = table()
    after = before.changed({name_to_wire("backend.mesh"): None})
    assert name_to_wire("backend.mesh") in before.addresses
    assert name_to_wire("backend.mesh") not in after.addresses


@given(st.lists(CHANGES, max_size=5))
@settings(max_examples=100)
def test_differences_give_what_building_anew_gives(changes: list[dict[bytes, IPv4Address | None]]) -> None:
    step_by_step = empty_table("mesh", recursive=True)
    final: dict[bytes, IPv4Address | None] = {}
    for change in changes:
        step_by_step = step_by_step.changed(change)
        final.update(change)
    assert step_by_step == empty_table("mesh", recursive=True).changed({n: a for n, a in final.items() if a})
