from collections.abc import Mapping
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.dns import render
from meshd.dns.wire import name_to_wire
from meshd.topology.view import BoundVips, Vip
from tests.dns.support import view, vip

VIPS = st.dictionaries(
    st.sampled_from(["a_b", "a.b", "c", "api.example.com"]),
    st.builds(
        lambda last, names, port: Vip(IPv4Address(f"240.0.0.{last}"), {port: "s"}, tuple(names)),
        st.integers(1, 3),
        st.lists(st.sampled_from(["a_b.mesh", "a.b.mesh", "c.mesh", "api.example.com", "é.mesh"]), max_size=3),
        st.sampled_from([80, 443]),
    ),
)
PORTS = st.sampled_from([80, 443])
BOUND = st.none() | st.builds(
    BoundVips, st.frozensets(PORTS), st.frozensets(st.tuples(st.sampled_from(["240.0.0.1", "240.0.0.2"]), PORTS))
)


def addresses(rendering: render.Rendering) -> dict[bytes, bytes]:
    return dict(rendering.table.addresses)


def test_every_name_of_a_vip_is_answered() -> None:
    table = render.names(view({"a_b": vip("240.0.0.1", "a_b.mesh", "a.b.mesh")}), None)
    assert set(table.addresses) == {name_to_wire("a_b.mesh"), name_to_wire("a.b.mesh")}


@pytest.mark.parametrize(
    ("bound", "answered"),
    [
        (None, {"web.mesh", "api.example.com"}),
        (BoundVips(), set()),
        (BoundVips(frozenset({443})), {"api.example.com"}),
        (BoundVips(frozenset({80})), {"web.mesh", "api.example.com"}),
        (BoundVips(single=frozenset({("240.0.0.1", 80)})), {"web.mesh"}),
        (BoundVips(single=frozenset({("240.0.0.1", 443), ("240.0.0.3", 80)})), set()),
        (BoundVips(frozenset({443}), frozenset({("240.0.0.1", 80)})), {"web.mesh", "api.example.com"}),
    ],
)
def test_a_vip_is_answered_only_if_one_of_its_ports_is_bound(bound: BoundVips | None, answered: set[str]) -> None:
    vips = {
        "web": vip("240.0.0.1", "web.mesh", ports={80: "web"}),
        "api.example.com": vip("240.0.0.2", "api.example.com", ports={80: "api", 443: "api"}),
    }
    assert set(render.names(view(vips), bound).addresses) == {name_to_wire(name) for name in answered}


def test_the_service_that_is_called_so_gets_a_contested_name() -> None:
    vips = {"a_b": vip("240.0.0.1", "a_b.mesh", "a.b.mesh"), "a.b": vip("240.0.0.2", "a.b.mesh")}
    first = render.updated(render.start("mesh", recursive=False), vips, None)
    assert addresses(first)[name_to_wire("a.b.mesh")] == IPv4Address("240.0.0.2").packed
    without = render.updated(first, {"a_b": vips["a_b"]}, None)
    assert addresses(without)[name_to_wire("a.b.mesh")] == IPv4Address("240.0.0.1").packed


def test_a_name_that_dns_cannot_carry_is_left_out_with_its_reason() -> None:
    rendering = render.updated(
        render.start("mesh", recursive=False), {"x": vip("240.0.0.1", "x" * 64 + ".mesh", "x.mesh")}, None
    )
    assert set(rendering.table.addresses) == {name_to_wire("x.mesh")}
    assert "longer than 63" in rendering.refused["x", "x" * 64 + ".mesh"]
    assert render.updated(rendering, {}, None).refused == {}


def test_an_unchanged_view_keeps_the_table_object() -> None:
    vips = {"web": vip("240.0.0.1", "web.mesh")}
    first = render.updated(render.start("mesh", recursive=False), vips, None)
    assert render.updated(first, dict(vips), None).table is first.table


@given(st.lists(st.tuples(VIPS, BOUND), min_size=1, max_size=5))
@settings(max_examples=100)
def test_differences_give_what_rendering_anew_gives(
    steps: list[tuple[Mapping[str, Vip], BoundVips | None]],
) -> None:
    rendering = render.start("mesh", recursive=False)
    for vips, bound in steps:
        rendering = render.updated(rendering, vips, bound)
    anew = render.updated(render.start("mesh", recursive=False), *steps[-1])
    assert rendering.table == anew.table
    assert (dict(rendering.claims), dict(rendering.refused)) == (dict(anew.claims), dict(anew.refused))
