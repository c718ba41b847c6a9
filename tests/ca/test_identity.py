import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.ca.identity import dataplane_uris, egress_uris, identity_uris, spiffe_uri, tag_uri, tag_values
from meshd.kinds.dataplane import Dataplane, Gateway, Inbound, Networking
from meshd.model.resource import Resource, ResourceKey

SAFE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~$&+,/:;=@!'()*[]%"


def dataplane(*inbounds, gateway=None, labels=None):
    networking = Networking(
        address="10.0.0.1",
        inbound=tuple(Inbound(port=80 + i, tags=t) for i, t in enumerate(inbounds)),
        gateway=Gateway(tags=gateway) if gateway else None,
    )
    return Resource(ResourceKey("Dataplane", "default", "dp"), Dataplane(networking=networking), labels or {})


def test_services_come_first_then_every_tag_sorted():
    tags = {"version": ["v2", "v1"], "kuma.io/service": ["web-api", "web"]}
    assert identity_uris("default", tags) == (
        "spiffe://default/web",
        "spiffe://default/web-api",
        "kuma://kuma.io/service/web",
        "kuma://kuma.io/service/web-api",
        "kuma://version/v1",
        "kuma://version/v2",
    )


def test_egress_has_its_service_name():
    assert egress_uris("demo") == ("spiffe://demo/zone-egress", "kuma://kuma.io/service/zone-egress")


def test_tags_of_all_inbounds_and_the_gateway_are_united():
    resource = dataplane({"kuma.io/service": "a", "v": "1"}, {"kuma.io/service": "b"}, gateway={"v": "2"})
    assert tag_values(resource) == {"kuma.io/service": ("a", "b"), "v": ("1", "2")}


def test_workload_label_stands_in_for_a_missing_service():
    resource = dataplane({"v": "1"}, labels={"kuma.io/workload": "w"})
    assert dataplane_uris(resource) == ("spiffe://default/w", "kuma://kuma.io/service/w")


def test_a_proxy_without_a_name_has_no_identity():
    with pytest.raises(ValueError, match=r"kuma\.io/service"):
        dataplane_uris(dataplane({"v": "1"}))


@pytest.mark.parametrize(
    ("value", "uri"),
    [
        ("v1.2_3-x:80", "kuma://t/v1.2_3-x:80"),
        ("", "kuma://t/"),
        ("a b", "kuma://t/a%20b"),
        # Go keeps parentheses as they are, unless something beside them must be encoded
        ("(x)", "kuma://t/(x)"),
        ("(a b)", "kuma://t/%28a%20b%29"),
        ("50%", "kuma://t/50%25"),
        ("a?b#c", "kuma://t/a%3Fb%23c"),
        ("é", "kuma://t/%C3%A9"),
    ],
)
def test_values_are_encoded_as_go_does(value, uri):
    assert tag_uri("t", value) == uri


@settings(max_examples=100)
@given(st.text(), st.text())
def test_different_tag_values_never_share_a_uri(one, other):
    assert (tag_uri("t", one) == tag_uri("t", other)) == (one == other)
    assert set(spiffe_uri("m", one).removeprefix("spiffe://m/")) <= set(SAFE)
