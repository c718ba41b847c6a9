"""Incremental tables: always what a rendering from scratch gives, at the cost of what changed."""

import random
from dataclasses import replace
from ipaddress import IPv4Address
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.kinds.zone_ingress import AvailableService, ZoneIngress
from meshd.l4.render import Settings
from meshd.l4.table import EMPTY
from meshd.l4.update import NOTHING, Rendering, render, updating
from meshd.model.resource import Resource
from meshd.model.steps import finished
from meshd.topology.view import MeshView, Reach, ServiceView, Vip
from tests.l4 import pki
from tests.l4.lab import Allow, dataplane, egress, endpoint, ingress, mesh, service, view
from tests.l4.test_external import external

SETTINGS = Settings(owns_vips=True)
PROXIES = {
    "owner of the vips": dataplane("host", inbound=[(1, 2, "host")], outbound=[(9, "s1"), (10, "s2"), (11, "gone")]),
    "without identity": dataplane("host", outbound=[(9, "s1")]),
    "ingress": ingress(3),
    "egress": egress(3),
}


class Permits:
    """Gives a permit that tells by which policies it was made, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, view: MeshView, dataplane: Resource | None, tags: object, section: str) -> Allow:
        del dataplane, tags, section
        self.asked += 1
        return Allow(frozenset(str(r) for r in view.policies.get("MeshTrafficPermission", ())))


def big(count: int = 1000) -> MeshView:
    services = [service(f"s{i}", endpoint(1000 + i)) for i in range(count)]
    vips = {s.name: Vip(IPv4Address(0xF0000001 + i), {80: s.name}, ()) for i, s in enumerate(services)}
    return view(*services, egress=services, ingress=services, vips=vips)


def with_service(before: MeshView, changed: ServiceView) -> MeshView:
    def among(services):
        return {**services, changed.name: changed}

    return replace(
        before,
        services=among(before.services),
        egress_services=among(before.egress_services),
        ingress_services=among(before.ingress_services),
    )


def after(previous: Rendering, views: dict[str, MeshView], proxy: Resource, permits: Permits) -> tuple[Rendering, int]:
    """The next rendering and in how many steps it was made."""
    steps = 0
    work = updating(previous, views, proxy, permits, SETTINGS)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value, steps
        steps += 1


@pytest.mark.parametrize("proxy", PROXIES.values(), ids=PROXIES)
def test_one_changed_service_among_a_thousand_costs_one(proxy):
    permits = Permits()
    first = {"default": big()}
    before = finished(updating(NOTHING, first, proxy, permits, SETTINGS))
    asked = permits.asked
    second = {"default": with_service(first["default"], service("s1", endpoint(5)))}
    now, steps = after(before, second, proxy, permits)
    assert now.table == render(second, proxy, permits, SETTINGS)
    assert now.table != before.table
    assert steps <= 5
    assert permits.asked - asked <= 1  # that of the rendering from scratch just above
    for old, new in zip(before.table.vips, now.table.vips, strict=True):
        assert sum(new.clusters[ip] is not old.clusters[ip] for ip in new.clusters) == 1
    for old, new in zip(before.table.sni, now.table.sni, strict=True):
        assert sum(new.routes[sni] is not old.routes[sni] for sni in new.routes) == 1
    assert all(new is old for new, old in zip(now.table.inbounds, before.table.inbounds, strict=True))


@pytest.mark.parametrize("proxy", PROXIES.values(), ids=PROXIES)
def test_the_first_rendering_of_a_thousand_has_many_steps(proxy):
    _, steps = after(NOTHING, {"default": big()}, proxy, Permits())
    assert steps >= (1 if proxy.spec is PROXIES["without identity"].spec else 1000)


@pytest.mark.parametrize("proxy", PROXIES.values(), ids=PROXIES)
def test_a_view_that_changes_nothing_keeps_the_table(proxy):
    first = {"default": big(3)}
    before, _ = after(NOTHING, first, proxy, Permits())
    now, _ = after(before, {"default": replace(first["default"], version="2")}, proxy, Permits())
    assert now.table is before.table
    assert now.views["default"].version == "2"


def test_what_an_ingress_has_to_offer_is_no_reason_to_render():
    proxy = PROXIES["ingress"]
    views = {"default": big(3)}
    before, _ = after(NOTHING, views, proxy, Permits())
    offer = (AvailableService(tags={"kuma.io/service": "s1"}, instances=1, mesh="default"),)
    assert isinstance(proxy.spec, ZoneIngress)
    offering = replace(proxy, spec=proxy.spec.model_copy(update={"available_services": offer}), version=7)
    now, steps = after(before, views, offering, Permits())
    assert now.table is before.table
    assert steps == 0


def test_another_address_is_one():
    before, _ = after(NOTHING, {"default": big(3)}, PROXIES["ingress"], Permits())
    now, _ = after(before, {"default": big(3)}, ingress(4), Permits())
    assert now.table.sni[0].port == 4


def test_tls_material_is_read_again_with_every_view():
    """Secrets and files are not in the view, so their change does not show there."""
    one, two = pki.trust("one").pem, pki.trust("two").pem
    secret = [one]
    reading = Settings(read_source=lambda *_: secret[0])
    tls = {"enabled": True, "caCert": {"secret": "ca"}}
    outside = service("out", endpoint(443, address="a.example", reach=Reach.EXTERNAL), external=external(443, tls))
    first = view(egress=[outside])
    before = finished(updating(NOTHING, {"default": first}, egress(3), Permits(), reading))
    secret[0] = two
    now = finished(updating(before, {"default": replace(first, version="2")}, egress(3), Permits(), reading))
    (route,) = now.table.sni[0].routes.values()
    assert route.cluster.origination.ca_pem == two.decode()


@st.composite
def changes(draw):
    """One after the other: what is done to a view. Few names, so that things collide, go and come back."""
    return draw(
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["service", "gone", "external", "vip", "no vip", "mesh", "policy", "mesh gone", "proxy"]
                ),
                st.integers(0, 3),
                st.integers(0, 3),
            ),
            max_size=12,
        )
    )


def applied(views: dict[str, MeshView], what: str, name: int, value: int) -> dict[str, MeshView]:
    """The views after one change; as the topology's, they share what did not change."""
    views = dict(views)
    at = "other" if name == 3 else "default"
    now = views.pop(at, None) or view(name=at)
    sections = ("services", "egress_services", "ingress_services")
    key = f"s{name}"
    match what:
        case "service":
            now = with_service(now, service(key, *(endpoint(p) for p in range(1, value + 1))))
        case "external":
            out = endpoint(443, address=f"{value}.example", reach=Reach.EXTERNAL)
            now = with_service(now, service(key, out, external=external(443, {"enabled": value > 1})))
        case "gone":
            now = replace(
                now, **{s: {k: v for k, v in getattr(now, s).items() if k != key} for s in sections[value % 3 :]}
            )
        case "vip":
            ports = {80: key} if value < 2 else {80: key, 443: f"s{value}"}
            now = replace(now, vips={**now.vips, key: Vip(IPv4Address(0xF0000001 + name), ports, ())})
        case "no vip":
            now = replace(now, vips=MappingProxyType({k: v for k, v in now.vips.items() if k != key}))
        case "mesh":
            now = replace(now, mesh=mesh(at, [None, "STRICT", "PERMISSIVE", "STRICT"][value]))
        case "policy":
            now = replace(now, policies={"MeshTrafficPermission": (mesh(str(value)),)})
        case "mesh gone":
            return views
    views[at] = now
    return views


@settings(max_examples=80, deadline=None)
@given(history=changes(), start=st.integers(0, 4), seed=st.integers(0, 3))
@pytest.mark.parametrize("proxy", PROXIES.values(), ids=PROXIES)
def test_the_differences_give_what_a_rendering_from_scratch_gives(proxy, history, start, seed):
    views: dict[str, MeshView] = {"default": big(start)} if start else {}
    rendering, _ = after(NOTHING, views, proxy, Permits())
    rng = random.Random(seed)
    for what, name, value in history:
        views = applied(views, what, name, value)
        if what == "proxy" and proxy.key.kind == "Dataplane":
            proxy = dataplane("host", inbound=[(1, 2, "host")][: value % 2], outbound=[(9, f"s{value}")])
        if rng.random() < 0.7:  # else several changes come at once
            rendering, _ = after(rendering, views, proxy, Permits())
            assert rendering.table == render(views, proxy, Permits(), SETTINGS)
    assert render({}, proxy, Permits(), SETTINGS) in (EMPTY, after(rendering, {}, proxy, Permits())[0].table)
