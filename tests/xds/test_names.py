import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.xds import names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("inbound:192.168.0.1:80", "inbound_192_168_0_1_80"),
        ("inbound:[fd00::1]:80", "inbound__fd00__1__80"),
        ("backend_ns_svc-80", "backend_ns_svc-80"),
        ("größe", "gr__e"),
        ("", ""),
    ],
)
def test_names_in_statistics(name, expected):
    assert names.stat_name(name) == expected


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (names.inbound_listener("192.168.0.1", 80), "inbound:192.168.0.1:80"),
        (names.inbound_listener("fd00::1", 80), "inbound:[fd00::1]:80"),
        (names.outbound_listener("240.0.0.1", 80), "outbound:240.0.0.1:80"),
        (names.local_cluster(8080), "localhost:8080"),
        (names.inbound_routes("web"), "inbound:web"),
        (names.outbound_routes("web"), "outbound:web"),
        (names.mesh_cluster("default", "web"), "default:web"),
        (names.egress_chain("web", "default"), "web_default"),
        (names.passthrough("inbound", "ipv6"), "inbound:passthrough:ipv6"),
        (names.identity_secret("default"), "identity_cert:secret:default"),
        (names.ca_secret("default"), "mesh_ca:secret:default"),
    ],
)
def test_names_are_those_of_kuma(made, expected):
    assert made == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ((), "backend"),
        # Both from Kuma's goldens (pkg/plugins/policies/meshhttproute/plugin/v1alpha1/testdata).
        ((("region", "us"),), "backend-c72efb5be46fae6b"),
        ((("region", "eu"),), "backend-bb38a94289f18fb9"),
    ],
)
def test_subsets_of_a_service(tags, expected):
    assert names.service_cluster("backend", tags) == expected


def test_order_of_tags_does_not_matter():
    one = names.service_cluster("backend", (("a", "1"), ("b", "2")))

    assert names.service_cluster("backend", (("b", "2"), ("a", "1"))) == one


@pytest.mark.parametrize(
    ("workdir", "expected"),
    [
        ("/tmp/dp", "/tmp/dp/kuma-envoy-admin.sock"),
        ("/tmp/dp/", "/tmp/dp/kuma-envoy-admin.sock"),
        ("/tmp//dp/../x", "/tmp/x/kuma-envoy-admin.sock"),
        ("", "kuma-envoy-admin.sock"),
        ("/" + "d" * 120, "/" + "d" * 97 + ".sock"),
    ],
)
def test_sockets_are_where_kuma_dp_has_them(workdir, expected):
    assert names.socket_path(workdir, "kuma-envoy-admin") == expected


@given(st.text("/ab.", max_size=130), st.text("abc-", min_size=1, max_size=130))
def test_a_socket_path_is_never_longer_than_a_socket_may_be(workdir, name):
    assert len(names.socket_path(workdir, name)) <= 103


def test_who_asks_is_told_in_order():
    header = names.tags_header({"version": ["v2", "v1", "v1"], "kuma.io/service": ["web"]})

    assert header == "&kuma.io/service=web&&version=v1,v2&"
