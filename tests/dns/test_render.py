from collections.abc import Mapping
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.dns.render import Rendering, table_of
from meshd.dns.table import Change, Entry, NameTable
from meshd.dns.wire import name_to_wire
from meshd.model.steps import finished
from meshd.topology.view import BoundVips, MeshView, ServiceView, Vip
from tests.dns.support import contents, view, vip

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


def service(name: str, local: int = 0, protocol: str = "http", **remote: int) -> ServiceView:
    return ServiceView(name, protocol, (), local, {zone.replace("_", "-"): count for zone, count in remote.items()})


class Following:
    """A rendering and the table that it keeps."""

    def __init__(self) -> None:
        self.rendering = Rendering("mesh", recursive=False)
        self.table = self.rendering.table
        self.copy = NameTable("mesh", recursive=False)
        self.told: list[Change] = []

    def go_on(self, to: MeshView | None, bound: BoundVips | None = None) -> None:
        self.told = []
        finished(self.rendering.update(to, bound, self.told.append))
        for change in self.told:
            self.copy.change(change)
        assert contents(self.copy) == contents(self.table)

    def address(self, name: str) -> str:
        entry = self.table.names[name_to_wire(name)]
        assert entry is not None
        return str(IPv4Address(entry.address))


def names_of(table: NameTable) -> set[bytes]:
    return set(table.contents().names)


def test_every_name_of_a_vip_is_answered() -> None:
    table = table_of(view({"a_b": vip("240.0.0.1", "a_b.mesh", "a.b.mesh")}), None)
    assert names_of(table) == {name_to_wire("a_b.mesh"), name_to_wire("a.b.mesh")}
    assert table.titles == {IPv4Address("240.0.0.1").packed: name_to_wire("a_b.mesh")}


def test_what_is_known_of_a_name_comes_from_the_services_behind_its_ports() -> None:
    seen = view(
        {"web": vip("240.0.0.1", "web.mesh", ports={80: "web", 443: "secure"})},
        services={"web": service("web", 2, zone_b=1), "secure": service("secure", 0, "tcp", zone_b=3, zone_c=0)},
    )
    (entry,) = table_of(seen, None).contents().names.values()
    assert entry == Entry(IPv4Address("240.0.0.1").packed, ((80, "http"), (443, "tcp")), (("zone-a", 2), ("zone-b", 4)))


def test_a_service_that_changed_costs_its_own_names() -> None:
    vips = {name: vip(f"240.0.0.{i}", f"{name}.mesh", ports={80: name}) for i, name in enumerate("abc")}
    services = {name: service(name, 1) for name in vips}
    following = Following()
    following.go_on(view(vips, services=services))
    following.go_on(view(vips, services={**services, "b": service("b", 2)}))
    assert [set(change.names) for change in following.told if change.names] == [{name_to_wire("b.mesh")}]
    entry = following.table.names[name_to_wire("b.mesh")]
    assert entry is not None
    assert entry.zones == (("zone-a", 2),)


def test_work_is_cut_into_steps_and_names_change_in_portions() -> None:
    vips = {f"s{i}": vip(f"240.0.{i // 250}.{i % 250}", f"s{i}.mesh") for i in range(1000)}
    following = Following()
    steps = list(following.rendering.update(view(vips), None, following.told.append))
    assert len(steps) > 100
    assert max(len(change.names) + len(change.titles) for change in following.told) <= 20


def test_at_every_step_a_name_is_answered_as_before_or_as_after() -> None:
    """No gap: of 1,000 names some stay, some move, some go and some come, and never is anything else said."""

    def vips(first: int, count: int, net: int) -> dict[str, Vip]:
        return {f"s{i}": vip(f"240.{net}.{i // 250}.{i % 250}", f"s{i}.mesh") for i in range(first, first + count)}

    before = vips(0, 1000, 0)
    after = {**{f"s{i}": before[f"s{i}"] for i in range(500)}, **vips(500, 250, 1), **vips(1000, 250, 2)}
    following = Following()
    following.go_on(view(before))
    wanted = {
        name_to_wire(f"{key}.mesh"): {key in side and side[key].address.packed for side in (before, after)}
        for key in {**before, **after}
    }
    steps = 0
    for _ in following.rendering.update(view(after), None):
        steps += 1
        names = following.table.names
        said = {name: name in names and names[name].address for name in wanted}
        assert not [name for name, address in said.items() if address not in wanted[name]]
    assert steps > 50
    assert names_of(following.table) == {name_to_wire(f"{key}.mesh") for key in after}


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
    assert names_of(table_of(view(vips), bound)) == {name_to_wire(name) for name in answered}


def test_the_service_that_is_called_so_gets_a_contested_name() -> None:
    vips = {"a_b": vip("240.0.0.1", "a_b.mesh", "a.b.mesh"), "a.b": vip("240.0.0.2", "a.b.mesh")}
    following = Following()
    following.go_on(view(vips))
    assert following.address("a.b.mesh") == "240.0.0.2"
    following.go_on(view({"a_b": vips["a_b"]}))
    assert following.address("a.b.mesh") == "240.0.0.1"


def test_a_name_that_dns_cannot_carry_is_left_out_with_its_reason() -> None:
    following = Following()
    following.go_on(view({"x": vip("240.0.0.1", "x" * 64 + ".mesh", "x.mesh")}))
    assert names_of(following.table) == {name_to_wire("x.mesh")}
    assert "longer than 63" in following.rendering.refused["x", "x" * 64 + ".mesh"]
    following.go_on(None)
    assert following.rendering.refused == {}


def test_an_unchanged_view_changes_nothing() -> None:
    vips = {"web": vip("240.0.0.1", "web.mesh")}
    following = Following()
    following.go_on(view(vips))
    following.go_on(view(dict(vips)))
    assert following.told == []


def unique(vips: Mapping[str, Vip]) -> dict[str, Vip]:
    """The first of those that share an address, as an allocation has them."""
    return {key: vip for key, vip in vips.items() if vip.address not in [v.address for k, v in vips.items() if k < key]}


SERVICES = st.dictionaries(st.sampled_from(["s", "t"]), st.builds(service, st.just("s"), st.integers(0, 2)))


@given(st.lists(st.tuples(VIPS.map(unique), SERVICES, BOUND), min_size=1, max_size=5))
@settings(max_examples=100)
def test_differences_give_what_rendering_anew_gives(
    steps: list[tuple[Mapping[str, Vip], Mapping[str, ServiceView], BoundVips | None]],
) -> None:
    following = Following()
    for vips, services, bound in steps:
        following.go_on(view(vips, services=services), bound)
    vips, services, bound = steps[-1]
    anew = Following()
    anew.go_on(view(vips, services=services), bound)
    assert contents(following.table) == contents(anew.table)
    assert following.rendering.refused == anew.rendering.refused
