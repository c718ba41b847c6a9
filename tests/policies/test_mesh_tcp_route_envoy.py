import pytest

from meshd.policies.mesh_tcp_route.envoy import TcpRouteShaper
from tests.policies.shaped import clusters, outbounds, proxy, routes, server
from tests.policies.support import policy

BACKEND = {"kind": "MeshService", "name": "backend"}


def tcp_route(*refs, name="p", top=None, to=BACKEND):
    rules = [{"default": {"backendRefs": list(refs)}}] if refs else []
    spec = {"to": [{"targetRef": to, "rules": rules}], **({"targetRef": top} if top else {})}
    return policy("MeshTCPRoute", name, spec)


def service(name, weight=1, **tags):
    kind = "MeshServiceSubset" if tags else "MeshService"
    return {"kind": kind, "name": name, "weight": weight, **({"tags": tags} if tags else {})}


def shares(resources):
    found = proxy(resources)
    if "cluster" in found:
        return [(found["cluster"], 1)]
    return [(c["name"], c["weight"]) for c in found["weightedClusters"]["clusters"]]


def tcp(*policies):
    return outbounds(server(protocol="tcp", version="v1"), *policies)


def test_connections_are_shared_by_weight():
    found = tcp(tcp_route(service("backend", 9, version="v1"), service("other", 1), service("unused", 0)))
    (subset, nine), (other, one) = shares(found)
    assert (nine, one) == (9, 1)
    assert subset.startswith("backend-")
    assert other == "other"


@pytest.mark.parametrize(
    "policies",
    [
        [],
        [tcp_route(service("other"), to={"kind": "MeshService", "name": "else"})],
        [tcp_route(service("other"), top={"kind": "MeshService", "name": "else"})],
        [tcp_route(service("other"), name="b"), tcp_route(name="a")],
    ],
)
def test_all_goes_to_the_destination(policies):
    assert shares(tcp(*policies)) == [("backend", 1)]


def test_the_more_specific_policy_has_the_say():
    specific = tcp_route(service("right"), name="z", top={"kind": "MeshService", "name": "client"})
    assert shares(tcp(tcp_route(service("wrong"), name="a"), specific)) == [("right", 1)]


@pytest.mark.parametrize("ref", [service("backend", 0), {"kind": "MeshExternalService", "name": "x"}])
def test_connections_that_lead_nowhere_are_closed(ref):
    found = tcp(tcp_route(ref))
    [(name, _)] = shares(found)
    assert name not in clusters(found)


def test_it_is_in_force_for_a_service_that_speaks_http_unless_an_http_route_is():
    http = {"to": [{"targetRef": BACKEND, "rules": [{"matches": [{}], "default": {"backendRefs": [service("http")]}}]}]}
    mine, theirs = tcp_route(service("tcp")), policy("MeshHTTPRoute", "h", http)
    assert shares(outbounds(server(), mine)) == [("tcp", 1)]
    assert [r["route"]["cluster"] for r in routes(outbounds(server(), mine, theirs))] == ["http"]


def test_the_parts_of_services_that_are_sent_to():
    made = tcp_route(service("backend", b="2", a="1"), service("other"))
    assert list(TcpRouteShaper().subsets([made])) == [("backend", (("a", "1"), ("b", "2")))]
