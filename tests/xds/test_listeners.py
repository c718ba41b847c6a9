import pytest

from meshd.xds import listeners
from meshd.xds.resources import LISTENER, resource
from tests.xds.support import GOLDENS, document_of, golden_text


def listening(*filters):
    document = listeners.listener("outbound:127.0.0.1:80", "127.0.0.1", 80, "OUTBOUND")
    document["filterChains"] = [listeners.chain([listeners.network_filter(f) for f in filters])]
    return document


def test_an_http_listener(golden):
    routes = listeners.route_configuration(
        "outbound:web",
        "web",
        [listeners.route_to("web", {"prefix": "/"}, "0s"), listeners.route_to("b", {"path": "/b"})],
    )
    manager = listeners.connection_manager("web", routes, ipv6=True)
    manager["httpFilters"].insert(0, listeners.GRPC_STATS)
    document = listening(manager)
    listeners.with_tags(document, {"kuma.io/service": "web"})
    document["listenerFilters"] = [listeners.TLS_INSPECTOR]

    golden(GOLDENS / "listener-http.yaml", golden_text([resource(LISTENER, document)]))


def test_a_tcp_listener(golden):
    document = listening(listeners.weighted_tcp_proxy("a:b.c", [("a", 1), ("b", 3)]))

    golden(GOLDENS / "listener-tcp.yaml", golden_text([resource(LISTENER, document)]))


def proxy(config):
    (chain,) = document_of(resource(LISTENER, listening(config)))["filterChains"]
    return chain["filters"][0]["typedConfig"]


def test_one_cluster_needs_no_weight():
    found = proxy(listeners.weighted_tcp_proxy("a", [("a", 7)]))

    assert found["cluster"] == "a"
    assert "weightedClusters" not in found


def test_idle_connections_end_where_that_is_said():
    assert proxy(listeners.tcp_proxy("a", "a", "60s"))["idleTimeout"] == "60s"
    assert "idleTimeout" not in proxy(listeners.tcp_proxy("a", "a"))


@pytest.mark.parametrize(("ipv6", "count"), [(True, 7), (False, 4)])
def test_internal_addresses(ipv6, count):
    found = proxy(listeners.connection_manager("a", listeners.route_configuration("", "a", []), ipv6=ipv6))

    assert len(found["internalAddressConfig"]["cidrRanges"]) == count


def test_without_tags_there_is_no_metadata():
    document = listening(listeners.tcp_proxy("a", "a"))

    listeners.with_tags(document, {})

    assert "metadata" not in document


def test_shared_pieces_are_not_changed_by_who_uses_them():
    first = listeners.connection_manager("a", listeners.route_configuration("", "a", []), ipv6=True)
    first["httpFilters"].insert(0, listeners.GRPC_STATS)
    first["internalAddressConfig"]["cidrRanges"].clear()

    second = listeners.connection_manager("a", listeners.route_configuration("", "a", []), ipv6=True)

    assert len(second["httpFilters"]) == 1
    assert len(second["internalAddressConfig"]["cidrRanges"]) == 7
