from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.topology.view import Endpoint, Reach
from meshd.xds import clusters
from meshd.xds.resources import CLUSTER, ENDPOINTS, resource
from tests.xds.support import GOLDENS, document_of, golden_text


def endpoint(address="10.0.0.1", port=80, zone="", weight=1, priority=0, **tags):
    return Endpoint(address, port, zone, weight, priority, Reach.INSTANCE, {"kuma.io/service": "web", **tags})


def assigned(*endpoints, **options):
    return document_of(resource(ENDPOINTS, clusters.assignment("web", endpoints, **options)))


def hosts(document):
    """(priority, zone, address, port, weight) of every endpoint."""
    for group in document.get("endpoints", []):
        for host in group["lbEndpoints"]:
            at = host["endpoint"]["address"]["socketAddress"]
            zone = group.get("locality", {}).get("zone", "")
            yield group.get("priority", 0), zone, at["address"], at["portValue"], host["loadBalancingWeight"]


def test_kinds_of_clusters(golden):
    at = [clusters.at_socket("10.0.0.1", 80), clusters.at_pipe("/tmp/app.sock")]
    http2 = clusters.fixed("c:static", "STATIC", at, "10s")
    clusters.speak(http2, 2)
    http1 = clusters.fixed("dns", "STRICT_DNS", [clusters.at_socket("example.com", 443)])
    clusters.http_options(http1)["commonHttpProtocolOptions"] = {"idleTimeout": "60s"}
    clusters.speak(http1, 1)
    bound = clusters.cluster("bound", "ORIGINAL_DST")
    bound["lbPolicy"] = "CLUSTER_PROVIDED"
    clusters.bind_from(bound, "127.0.0.6")
    guarded = {**clusters.eds("eds", "5s"), "outlierDetection": clusters.PASSIVE_EJECTION}

    golden(GOLDENS / "clusters.yaml", golden_text(resource(CLUSTER, c) for c in (http2, http1, bound, guarded)))


def test_endpoints_by_priority_and_zone(golden):
    found = clusters.assignment(
        "web",
        [
            endpoint("10.0.0.1", zone="a", weight=3, version="v1"),
            endpoint("10.0.0.2", zone="b"),
            endpoint("10.0.0.3", zone="b", weight=2),
            endpoint("10.0.0.4", zone="c", priority=1),
            endpoint("fd00::5"),
        ],
        {"mesh": "default"},
    )

    golden(GOLDENS / "endpoints.yaml", golden_text([resource(ENDPOINTS, found)]))


def test_no_endpoints_are_an_empty_assignment():
    assert assigned() == {"@type": ENDPOINTS, "clusterName": "web"}


def test_weights_are_no_more_than_envoy_counts():
    large = assigned(endpoint(weight=30 * 2**32), endpoint("10.0.0.2", weight=10 * 2**32), endpoint("10.0.0.3"))

    weights = [weight for *_, weight in hosts(large)]

    assert sum(weights) < 2**32
    assert abs(weights[0] / weights[1] - 3) < 0.01
    assert weights[2] == 1


def test_names_are_left_out_until_somebody_knows_their_address():
    known = {"a.internal": "10.0.0.1"}.get
    both = endpoint("a.internal"), endpoint("b.internal")

    assert list(hosts(assigned(*both))) == []
    assert list(hosts(assigned(*both, address_of=known))) == [(0, "", "10.0.0.1", 80, 1)]


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        ([endpoint(zone="b", weight=3), endpoint(zone="b", weight=2)], [(0, "b", "10.0.0.1", 80, 5)]),
        ([endpoint(zone="b", weight=3), endpoint(zone="c", weight=2)], [(0, "", "10.0.0.1", 80, 5)]),
        ([endpoint(zone="c", priority=1), endpoint(zone="b", weight=2)], [(0, "b", "10.0.0.1", 80, 2)]),
        ([endpoint(port=81), endpoint()], [(0, "", "10.0.0.1", 81, 1), (0, "", "10.0.0.1", 80, 1)]),
    ],
    ids=["same zone", "two zones behind an egress", "also as a last resort", "other port"],
)
def test_one_address_is_one_endpoint(endpoints, expected):
    """Envoy takes only the first of several, with its weight."""
    assert list(hosts(assigned(*endpoints))) == expected


def test_zones_at_one_address_have_the_tags_they_share():
    document = assigned(endpoint(zone="b", version="v1", env="x"), endpoint(zone="c", version="v2", env="x"))

    (group,) = document["endpoints"]
    assert group["lbEndpoints"][0]["metadata"]["filterMetadata"]["envoy.lb"] == {"env": "x"}


places = st.builds(
    endpoint,
    address=st.sampled_from(["10.0.0.1", "10.0.0.2", "a.internal"]),
    port=st.sampled_from([80, 81]),
    zone=st.sampled_from(["", "b", "c"]),
    weight=st.integers(1, 9),
    priority=st.integers(0, 1),
)


@given(st.lists(places, max_size=8))
def test_no_address_comes_twice_and_no_weight_of_the_best_gets_lost(endpoints):
    found = list(hosts(assigned(*endpoints)))

    best, weight = {}, Counter()
    for e in endpoints:
        best[e.address, e.port] = min(e.priority, best.get((e.address, e.port), e.priority))
    for e in endpoints:
        if e.priority == best[e.address, e.port] and clusters.is_ip(e.address):
            weight[e.priority, e.address, e.port] += e.weight
    assert {(priority, address, port): w for priority, _, address, port, w in found} == weight
    assert len(found) == len(weight)


@pytest.mark.parametrize(
    ("text", "expected"), [("10.0.0.1", True), ("::1", True), ("10.0.0", False), ("web.mesh", False), ("", False)]
)
def test_what_needs_no_resolving(text, expected):
    assert clusters.is_ip(text) is expected
