from ipaddress import IPv4Address, IPv4Network

import dns.reversename
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.dns.table import NOTHING, Change, Entry, NameTable, ancestors, between, reverse_name, reverse_zones
from meshd.dns.wire import labels_at, name_to_wire
from tests.dns.support import contents, table

APEX = name_to_wire("mesh")
NAMES = st.sampled_from(["a.mesh", "b.mesh", "x.a.mesh", "y.x.a.mesh", "mesh", "example.com", "mesh.example.com"])
CHANGES = st.dictionaries(
    NAMES.map(name_to_wire), st.none() | st.integers(1, 3).map(lambda i: Entry(bytes((240, 0, 0, i)))), max_size=6
)


def test_ancestors_are_the_names_above() -> None:
    assert list(ancestors(name_to_wire("a.b.mesh"))) == [name_to_wire("b.mesh"), APEX]
    assert list(ancestors(b"\0")) == []


def test_between_counts_only_names_under_the_apex() -> None:
    assert between(name_to_wire("a.b.mesh"), APEX) == (name_to_wire("b.mesh"),)
    assert between(APEX, APEX) == ()
    assert between(name_to_wire("mesh.example.com"), APEX) is None


def test_a_label_that_contains_the_apex_bytes_is_not_under_it() -> None:
    inside_a_label = b"\x08abc" + APEX  # one label of eight bytes: abc\x04mesh
    assert inside_a_label.endswith(APEX)
    assert not NameTable("mesh", recursive=False).is_ours(inside_a_label)


def test_a_name_without_an_entry_stays_while_there_are_names_beneath_it() -> None:
    names = table()
    split = name_to_wire("b.c.mesh")
    assert names.names[split] is NOTHING
    names.change(Change({split: Entry(b"\xf0\0\0\x09")}))
    names.change(Change({split: None}))
    assert names.names[split] is NOTHING
    names.change(Change({name_to_wire("a.b.c.mesh"): None}))
    assert split not in names.names
    assert name_to_wire("c.mesh") not in names.names


@given(st.lists(CHANGES, max_size=5))
@settings(max_examples=100)
def test_differences_give_what_building_anew_gives(changes: list[dict[bytes, Entry | None]]) -> None:
    step_by_step = NameTable("mesh", recursive=True)
    final: dict[bytes, Entry | None] = {}
    for change in changes:
        step_by_step.change(Change(change))
        final.update(change)
    anew = NameTable("mesh", recursive=True)
    anew.change(Change({name: entry for name, entry in final.items() if entry}))
    assert contents(step_by_step) == contents(anew)
    assert anew.count == sum(entry is not None for entry in final.values())


@given(st.lists(CHANGES, max_size=3))
def test_what_a_table_contains_makes_another_like_it(changes: list[dict[bytes, Entry | None]]) -> None:
    first, second = NameTable("mesh", recursive=False), NameTable("mesh", recursive=False, is_known=False)
    for change in changes:
        first.change(Change(change, {b"\xf0\0\0\x01": APEX}))
    second.change(first.contents())
    assert contents(first) == contents(second)


@pytest.mark.parametrize(
    ("cidr", "v4", "v6"),
    [
        ("127.1.0.0/16", ["1.127.in-addr.arpa"], ["1.0.f.7.f.f.f.f" + ".0" * 20 + ".ip6.arpa"]),
        ("240.0.0.0/4", [f"{i}.in-addr.arpa" for i in range(240, 256)], ["f.f.f.f.f" + ".0" * 20 + ".ip6.arpa"]),
        ("10.0.0.8/30", [f"{i}.0.0.10.in-addr.arpa" for i in range(8, 12)], None),
    ],
)
def test_reverse_zones_hold_a_range_and_nothing_else(cidr: str, v4: list[str], v6: list[str] | None) -> None:
    zones = [b".".join(labels).decode() for labels in reverse_zones(IPv4Network(cidr))]
    assert [zone for zone in zones if zone.endswith("in-addr.arpa")] == v4
    assert v6 is None or [zone for zone in zones if zone.endswith("ip6.arpa")] == v6


@given(st.ip_addresses(v=4), st.booleans())
def test_a_reverse_name_is_of_the_address_that_it_was_made_of(address: IPv4Address, mapped: bool) -> None:
    name = dns.reversename.from_address(f"::ffff:{address}" if mapped else str(address), v6_origin=None)
    if mapped:
        digits = "".join(f"{byte:02x}" for byte in b"\0" * 10 + b"\xff\xff" + address.packed)
        name = dns.name.from_text(".".join(reversed(digits)) + ".ip6.arpa.")
    assert reverse_name(labels_at(name.to_wire(), 0)[0]) == address.packed


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("240.in-addr.arpa", b"\xf0"),
        ("0.240.in-addr.arpa", b"\xf0\0"),
        ("01.240.in-addr.arpa", None),
        ("256.240.in-addr.arpa", None),
        ("x.0.0.0.240.in-addr.arpa", None),
        ("1.2.0.0.0.240.in-addr.arpa", None),
        ("f.f.f.f.f" + ".0" * 20 + ".ip6.arpa", b""),
        ("0.f.f.f.f.f" + ".0" * 20 + ".ip6.arpa", b"\xf0"),
        ("g.f.f.f.f.f" + ".0" * 20 + ".ip6.arpa", None),
        ("0" + ".0" * 32 + ".ip6.arpa", None),
    ],
)
def test_reverse_names_of_more_and_of_less_than_an_address(name: str, address: bytes | None) -> None:
    assert reverse_name(tuple(name.encode().split(b"."))) == address
