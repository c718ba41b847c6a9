from types import MappingProxyType

import pytest

from meshd.topology.view import MeshView
from meshd.xds.abilities import Abilities, Redirect
from meshd.xds.resources import CLUSTER, LISTENER
from meshd.xds.transparent import direct_access, passthrough
from tests.xds.support import GOLDENS, by_name, dataplane, golden_text, mesh, mtls

DUAL = Abilities(redirect=Redirect(15006, 15001, ipv6=True), reuse_port=True)
IPV4 = Abilities(redirect=Redirect(15006, 15001, ipv6=False))
NO_PASSTHROUGH = {"networking": {"outbound": {"passthrough": False}}}


def view_of(mesh_, *dataplanes):
    nothing = MappingProxyType({})
    here = {d.key.name: d for d in dataplanes}
    return MeshView("default", "zone-a", "1", mesh_, nothing, nothing, nothing, nothing, here, nothing)


def strict(*ports):
    inbounds = [{"port": port, "tags": {"kuma.io/service": f"web-{port}"}} for port in ports]
    return dataplane({"networking": {"address": "192.168.0.1", "inbound": inbounds}})


@pytest.mark.parametrize(
    ("case", "spec", "abilities", "dataplane_"),
    [
        ("dual-stack", {}, DUAL, dataplane()),
        ("ipv4", {}, IPV4, dataplane()),
        ("no-way-out", NO_PASSTHROUGH, IPV4, dataplane()),
        (
            "strict-ports",
            mtls(),
            Abilities(redirect=Redirect(15006, 15001, ipv6=False), strict_inbound_ports=True),
            strict(80, 8080, 80, 49151),
        ),
    ],
)
def test_passthrough(golden, case, spec, abilities, dataplane_):
    found = passthrough(mesh(spec).spec, dataplane_, abilities)

    golden(GOLDENS / f"transparent-{case}.yaml", golden_text(found))


@pytest.mark.parametrize(
    "abilities",
    [Abilities(), Abilities(redirect=Redirect(15006, 15001, ipv6=True), bind_outbounds=True)],
    ids=["not redirected", "binds the virtual IPs"],
)
def test_nothing_is_redirected_to_who_listens_itself(abilities):
    assert list(passthrough(mesh().spec, dataplane(), abilities)) == []


@pytest.mark.parametrize(("ports", "directions"), [((15006, 0), {"inbound"}), ((0, 15001), {"outbound"})])
def test_only_the_direction_that_is_redirected_gets_a_listener(ports, directions):
    found = passthrough(mesh().spec, dataplane(), Abilities(redirect=Redirect(*ports, ipv6=False)))

    assert set(by_name(found, LISTENER)) == {f"{d}:passthrough:ipv4" for d in directions}


@pytest.mark.parametrize(
    ("spec", "has_feature", "is_strict"),
    [(mtls(), True, True), (mtls(), False, False), (mtls("PERMISSIVE"), True, False), ({}, True, False)],
)
def test_ports_are_strict_where_the_mesh_is_and_the_proxy_can(spec, has_feature, is_strict):
    abilities = Abilities(redirect=Redirect(15006, 15001, ipv6=False), strict_inbound_ports=has_feature)

    found = by_name(passthrough(mesh(spec).spec, strict(80), abilities), LISTENER)["inbound:passthrough:ipv4"]

    assert ("filterChainMatch" in found["filterChains"][0]) is is_strict


def test_a_gateway_without_inbounds_takes_what_comes():
    gateway = {"address": "192.168.0.1", "gateway": {"tags": {"kuma.io/service": "edge"}}}
    abilities = Abilities(redirect=Redirect(15006, 15001, ipv6=False), strict_inbound_ports=True)

    found = by_name(passthrough(mesh(mtls()).spec, dataplane({"networking": gateway}), abilities), LISTENER)

    assert len(found["inbound:passthrough:ipv4"]["filterChains"]) == 1


def direct(services, *, address="192.168.0.1"):
    said = {"redirectPortInbound": 15006, "redirectPortOutbound": 15001, "directAccessServices": services}
    inbound = [{"port": 80, "tags": {"kuma.io/service": "web"}}]
    return dataplane({"networking": {"address": address, "inbound": inbound, "transparentProxying": said}})


def backend(name, address, *inbounds):
    return dataplane({"networking": {"address": address, "inbound": list(inbounds)}}, name=name)


BACKEND = {"port": 1234, "tags": {"kuma.io/service": "backend"}}
API = {"port": 1235, "tags": {"kuma.io/service": "backend-api"}}


def test_direct_access_with_mtls(golden):
    me = direct(["backend"])
    others = backend("b-1", "192.168.0.2", BACKEND, API), backend("b-2", "192.168.0.3", BACKEND)

    found = direct_access(view_of(mesh(mtls()), me, *others), me, IPV4)

    golden(GOLDENS / "direct-access-mtls.yaml", golden_text(found))


def test_direct_access_without_mtls(golden):
    me = direct(["*"])

    found = direct_access(view_of(mesh(), me, backend("b-1", "fd00::2", BACKEND, API)), me, IPV4)

    golden(GOLDENS / "direct-access-plain.yaml", golden_text(found))


def test_direct_access_leaves_out_what_is_not_listened_on():
    me = direct(["*"])
    others = [
        backend("ignored", "192.168.0.2", {**BACKEND, "state": "Ignored"}),
        backend("no-port", "192.168.0.3", {**BACKEND, "port": 49151}),
        backend("name", "backend.internal", BACKEND),
        backend("own-address", "192.168.0.4", {**BACKEND, "address": "192.168.0.5"}),
        backend("the-same", "192.168.0.5", BACKEND),
    ]

    found = by_name(direct_access(view_of(mesh(), me, *others), me, IPV4), LISTENER)

    assert set(found) == {"direct_access_192.168.0.5:1234"}


@pytest.mark.parametrize(
    ("services", "abilities"),
    [([], IPV4), (["backend"], Abilities())],
    ids=["nothing asked for", "nothing redirected"],
)
def test_no_direct_access(services, abilities):
    me = direct(services)

    assert list(direct_access(view_of(mesh(), me, backend("b", "192.168.0.2", BACKEND)), me, abilities)) == []


def test_direct_access_to_a_service_without_instances_is_a_cluster():
    me = direct(["other"])
    found = list(direct_access(view_of(mesh(), me, backend("b", "192.168.0.2", BACKEND)), me, IPV4))

    assert [r.type_url for r in found] == [CLUSTER]
