import pytest

from meshd.kinds.dataplane import Inbound
from meshd.model.shape import read_strict
from meshd.xds.abilities import Abilities, Redirect
from meshd.xds.inbound import inbounds, protocol_of
from meshd.xds.resources import CLUSTER, LISTENER
from tests.xds.support import GOLDENS, by_name, dataplane, golden_text, mesh, mtls

PLAIN = Abilities()
REDIRECTED = Abilities(redirect=Redirect(15006, 15001, ipv6=True), reuse_port=True)


def unshaped(draft):
    """As no policy would have it otherwise."""


def with_inbounds(*found, address="192.168.0.1"):
    return dataplane({"networking": {"address": address, "inbound": list(found)}})


def web(port=80, service="web", protocol="", **others):
    tags = {"kuma.io/service": service, **({"kuma.io/protocol": protocol} if protocol else {})}
    return {"port": port, "tags": tags, **others}


def rendered(dataplane_, spec=None, abilities=PLAIN, shape=unshaped):
    return list(inbounds(dataplane_, mesh(spec).spec.enabled_backend(), abilities, shape))


@pytest.mark.parametrize(
    ("case", "spec", "inbound", "abilities"),
    [
        ("tcp-plain", {}, web(servicePort=8080), PLAIN),
        ("tcp-strict", mtls(), web(servicePort=8080), REDIRECTED),
        ("http-permissive", mtls("PERMISSIVE"), web(protocol="http", serviceAddress="127.0.0.1"), REDIRECTED),
        ("http2-strict", mtls(), web(protocol="http2", address="fd00::1"), REDIRECTED),
        ("grpc-plain", {}, web(protocol="grpc"), Abilities(ipv6=False)),
        ("no-service", mtls(), {"port": 80, "protocol": "http"}, PLAIN),
    ],
)
def test_inbound(golden, case, spec, inbound, abilities):
    golden(GOLDENS / f"inbound-{case}.yaml", golden_text(rendered(with_inbounds(inbound), spec, abilities)))


@pytest.mark.parametrize("hidden", [web(state="Ignored"), web(port=49151)], ids=["ignored", "no service port"])
def test_what_is_not_listened_on_costs_nothing(hidden):
    assert rendered(with_inbounds(hidden)) == []


def test_an_instance_that_is_not_ready_is_there():
    assert len(rendered(with_inbounds(web(state="NotReady")))) == 2


@pytest.mark.parametrize(
    ("tags", "protocol", "expected"),
    [
        ({}, "", "tcp"),
        ({"kuma.io/protocol": "http"}, "", "http"),
        ({"kuma.io/protocol": "HTTP2"}, "", "http2"),
        ({"kuma.io/protocol": "tcp"}, "grpc", "grpc"),
        ({"kuma.io/protocol": "kafka"}, "", "tcp"),
        ({"kuma.io/protocol": "tls"}, "", "tcp"),
    ],
)
def test_protocols(tags, protocol, expected):
    assert protocol_of(read_strict(Inbound, {"port": 80, "tags": tags, "protocol": protocol})) == expected


def clusters_of(*found):
    """Address and port of the application, by cluster."""
    made = {}
    for name, cluster in by_name(rendered(with_inbounds(*found)), CLUSTER).items():
        (group,) = cluster["loadAssignment"]["endpoints"]
        at = group["lbEndpoints"][0]["endpoint"]["address"]["socketAddress"]
        made[name] = (at["address"], at["portValue"])
    return made


def leads_to(*found):
    """The cluster of each listener, by port."""
    made = {}
    for listener in by_name(rendered(with_inbounds(*found)), LISTENER).values():
        (chain,) = listener["filterChains"]
        made[listener["address"]["socketAddress"]["portValue"]] = chain["filters"][0]["typedConfig"]["cluster"]
    return made


def test_inbounds_of_one_application_share_its_cluster():
    both = web(80, servicePort=8080), web(81, servicePort=8080)

    assert clusters_of(*both) == {"localhost:8080": ("192.168.0.1", 8080)}


def test_an_address_of_one_s_own_is_the_same_as_none():
    both = web(80, servicePort=8080, address="192.168.0.1"), web(81, servicePort=8080)

    assert clusters_of(*both) == {"localhost:8080": ("192.168.0.1", 8080)}


def test_applications_at_two_addresses_are_two_clusters():
    found = (
        web(80, servicePort=8080),
        web(81, servicePort=8080, serviceAddress="127.0.0.1"),
        web(82, servicePort=8080, serviceAddress="127.0.0.1"),
    )

    assert clusters_of(*found) == {
        "localhost:8080": ("192.168.0.1", 8080),
        "localhost:127.0.0.1:8080": ("127.0.0.1", 8080),
    }
    assert leads_to(*found) == {
        80: "localhost:8080",
        81: "localhost:127.0.0.1:8080",
        82: "localhost:127.0.0.1:8080",
    }


def test_an_ignored_inbound_has_no_say_in_names():
    found = web(80, servicePort=8080, address="10.0.0.9", state="Ignored"), web(81, servicePort=8080)

    assert clusters_of(*found) == {"localhost:8080": ("192.168.0.1", 8080)}


@pytest.mark.parametrize(
    ("abilities", "host", "source"),
    [
        (REDIRECTED, "192.168.0.1", "127.0.0.6"),
        (REDIRECTED, "fd00::1", "::6"),
        (REDIRECTED, "127.0.0.1", None),
        (REDIRECTED, "::1", None),
        (PLAIN, "192.168.0.1", None),
    ],
)
def test_connections_to_a_redirected_application_are_told_apart(abilities, host, source):
    found = by_name(rendered(with_inbounds(web(serviceAddress=host)), abilities=abilities), CLUSTER)["localhost:80"]

    assert found.get("upstreamBindConfig", {}).get("sourceAddress", {}).get("address") == source


def test_the_applications_own_tls_is_not_read():
    """Also where it is HTTPS: only the application has the key."""
    (listener,) = by_name(rendered(with_inbounds(web(protocol="http")), mtls("PERMISSIVE")), LISTENER).values()

    kinds = [
        (chain["filterChainMatch"]["transportProtocol"], "transportSocket" in chain, chain["filters"][0]["name"])
        for chain in listener["filterChains"]
    ]
    http, tcp = "envoy.filters.network.http_connection_manager", "envoy.filters.network.tcp_proxy"
    assert kinds == [("raw_buffer", False, http), ("tls", False, tcp), ("tls", True, http)]


def test_policies_shape_what_is_sent():
    def shape(draft):
        assert (draft.mesh, draft.inbound.port, draft.protocol, draft.has_mtls) == ("default", 80, "tcp", True)
        draft.cluster["connectTimeout"] = "1s"
        draft.chains[0].tcp["idleTimeout"] = "2s"
        draft.chains[0].filters.append(
            {
                "name": "envoy.filters.network.rbac",
                "typedConfig": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
                    "statPrefix": "x",
                },
            }
        )

    found = rendered(with_inbounds(web()), mtls(), shape=shape)

    assert by_name(found, CLUSTER)["localhost:80"]["connectTimeout"] == "1s"
    (chain,) = by_name(found, LISTENER)["inbound:192.168.0.1:80"]["filterChains"]
    assert [f["name"].rpartition(".")[2] for f in chain["filters"]] == ["rbac", "tcp_proxy"]
    assert chain["filters"][1]["typedConfig"]["idleTimeout"] == "2s"
