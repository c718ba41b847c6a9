import pytest

from meshd.ca.envoy_admin import server_tls
from meshd.model.resource import ResourceKey
from meshd.xds.abilities import Abilities
from meshd.xds.admin import admin, refusal
from meshd.xds.resources import CLUSTER, LISTENER
from tests.ca.builders import kuma_like_pair
from tests.xds.support import GOLDENS, by_name, golden_text

SHOWN = server_tls(kuma_like_pair(), ResourceKey("Dataplane", "default", "web-1"))
"""Derived, from a CA that never changes: so it may be in a golden."""
TCP = Abilities(admin_address="127.0.0.1", admin_port=9901, readiness_port=9902)


@pytest.mark.parametrize(
    ("case", "address", "abilities"),
    [
        ("tcp", "192.168.0.1", TCP),
        ("ipv4-only", "192.168.0.1", Abilities(admin_address="", admin_port=9901, readiness_port=9902, ipv6=False)),
        ("ipv6", "fd00::1", Abilities(admin_address="::1", admin_port=9901, readiness_port=9902, reuse_port=True)),
        (
            "sockets",
            "192.168.0.1",
            Abilities(
                admin_socket="/tmp/dp/kuma-envoy-admin.sock", admin_port=9901, readiness_socket=True, workdir="/tmp/dp"
            ),
        ),
        ("no-kuma-dp", "192.168.0.1", Abilities(admin_socket="/var/lib/meshd/admin.sock", admin_port=9901)),
    ],
)
def test_admin(golden, case, address, abilities):
    golden(GOLDENS / f"admin-{case}.yaml", golden_text(admin(address, abilities, SHOWN)))


@pytest.mark.parametrize(
    ("listens_at", "reached_at"),
    [("", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::", "::1"), ("::1", "::1")],
)
def test_the_admin_api_is_reached_by_loopback(listens_at, reached_at):
    abilities = Abilities(admin_address=listens_at, admin_port=9901, readiness_port=9902)

    for name, port in (("kuma:envoy:admin", 9901), ("kuma:readiness", 9902)):
        cluster = by_name(admin("192.168.0.1", abilities, SHOWN), CLUSTER)[name]
        (group,) = cluster["loadAssignment"]["endpoints"]
        assert group["lbEndpoints"][0]["endpoint"]["address"]["socketAddress"] == {
            "address": reached_at,
            "portValue": port,
        }


@pytest.mark.parametrize(
    ("address", "abilities"),
    [
        ("127.0.0.1", TCP),
        ("192.168.0.1", Abilities(admin_address="0.0.0.0", admin_port=9901, readiness_port=9902)),
        ("192.168.0.1", Abilities(admin_socket="/var/lib/meshd/admin.sock")),
    ],
    ids=["the admin API's own address", "every address", "no port"],
)
def test_there_is_no_listener_where_the_admin_api_is(address, abilities):
    found = list(admin(address, abilities, SHOWN))

    assert by_name(found, LISTENER) == {}
    assert "kuma:envoy:admin" in by_name(found, CLUSTER)


def test_without_an_admin_api_there_is_nothing():
    assert list(admin("192.168.0.1", Abilities(readiness_port=9902), SHOWN)) == []


@pytest.mark.parametrize("elsewhere", ["10.0.0.1", "localhost", "127.0.0.2"])
def test_an_admin_api_at_another_host_is_refused(elsewhere):
    abilities = Abilities(admin_address=elsewhere, admin_port=9901, readiness_port=9902)

    assert f'dataplane.admin.address: is "{elsewhere}", must be one of' in ": ".join(refusal(abilities))
    assert list(admin("192.168.0.1", abilities, SHOWN)) == []


@pytest.mark.parametrize("abilities", [TCP, Abilities(), Abilities(admin_address="10.0.0.1")])
def test_what_is_harmless_is_not_refused(abilities):
    assert refusal(abilities) is None


def test_without_a_ca_the_listener_tells_readiness_only():
    [listener] = by_name(admin("192.168.0.1", TCP, None), LISTENER).values()

    [chain] = listener["filterChains"]
    assert "transportSocket" not in chain
    assert "listenerFilters" not in listener
    [host] = chain["filters"][0]["typedConfig"]["routeConfig"]["virtualHosts"]
    assert [route["match"] for route in host["routes"]] == [{"prefix": "/ready"}]
