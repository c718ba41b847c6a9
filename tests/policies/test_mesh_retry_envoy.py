import pytest

from tests.policies.shaped import outbounds, proxy, routes, server
from tests.policies.support import policy
from tests.policies.test_mesh_http_route_envoy import exact, route_policy, rule

RETRY = "type.googleapis.com/envoy.extensions.retry."


def retry(name="p", kind="Mesh", service=None, top=None, **conf):
    ref = {"kind": kind, **({"name": service} if service else {})}
    spec = {"to": [{"targetRef": ref, "default": conf}], **({"targetRef": top} if top else {})}
    return policy("MeshRetry", name, spec)


def of_http(protocol="http", **http):
    [route] = routes(outbounds(server(protocol=protocol), retry(http=http)))
    return route["route"].get("retryPolicy")


def of_grpc(**grpc):
    [route] = routes(outbounds(server(protocol="grpc"), retry(grpc=grpc)))
    return route["route"].get("retryPolicy")


HTTP = "gateway-error,connect-failure,refused-stream"
ELSEWHERE = {
    "retryHostPredicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typedConfig": {"@type": f"{RETRY}host.previous_hosts.v3.PreviousHostsPredicate"},
        }
    ],
    "hostSelectionRetryMaxAttempts": "5",
}
GRPC = "cancelled,connect-failure,gateway-error,refused-stream,reset,resource-exhausted,unavailable"


@pytest.mark.parametrize(
    ("http", "expected"),
    [
        ({"numRetries": 0}, None),
        ({"numRetries": 3}, {"retryOn": HTTP, "numRetries": 3}),
        ({"perTryTimeout": "1s"}, {"retryOn": HTTP, "perTryTimeout": "1s"}),
        (
            {"backOff": {"baseInterval": "10ms", "maxInterval": "1s"}},
            {"retryOn": HTTP, "retryBackOff": {"baseInterval": "0.010s", "maxInterval": "1s"}},
        ),
        (
            {"backOff": {"maxInterval": "1s"}},
            {"retryOn": HTTP, "retryBackOff": {"baseInterval": "0.025s", "maxInterval": "1s"}},
        ),
        (
            {"backOff": {"baseInterval": "2s", "maxInterval": "1s"}},
            {"retryOn": HTTP, "retryBackOff": {"baseInterval": "2s", "maxInterval": "2s"}},
        ),
        (
            {
                "rateLimitedBackOff": {
                    "resetHeaders": [{"name": "a", "format": "Seconds"}, {"name": "b", "format": "UnixTimestamp"}],
                    "maxInterval": "9s",
                }
            },
            {
                "retryOn": HTTP,
                "rateLimitedRetryBackOff": {
                    "resetHeaders": [{"name": "a"}, {"name": "b", "format": "UNIX_TIMESTAMP"}],
                    "maxInterval": "9s",
                },
            },
        ),
        ({"rateLimitedBackOff": {"resetHeaders": []}}, {"retryOn": HTTP}),
        (
            {"retryOn": ["5xx", "Reset", "Retriable4xx", "EnvoyRatelimited", "Http3PostConnectFailure"]},
            {"retryOn": "5xx,reset,retriable-4xx,envoy-ratelimited,http3-post-connect-failure"},
        ),
        (
            {"retryOn": ["503", "429"]},
            {"retryOn": f"{HTTP},retriable-status-codes", "retriableStatusCodes": [503, 429]},
        ),
        (
            {"retryOn": ["5xx", "HttpMethodGet"], "retriableRequestHeaders": [{"name": "x", "type": "Present"}]},
            {
                "retryOn": "5xx",
                "retriableRequestHeaders": [
                    {"name": ":method", "stringMatch": {"exact": "GET"}},
                    {"name": "x", "presentMatch": True},
                ],
            },
        ),
        (
            {"retriableResponseHeaders": [{"name": "x", "type": "Absent"}]},
            {"retryOn": HTTP, "retriableHeaders": [{"name": "x", "presentMatch": False}]},
        ),
        (
            {
                "hostSelection": [
                    {"predicate": "OmitPreviousHosts"},
                    {"predicate": "OmitHostsWithTags", "tags": {"version": "v1"}},
                    {"predicate": "OmitPreviousPriorities"},
                ],
                "hostSelectionMaxAttempts": 7,
            },
            {
                "retryOn": HTTP,
                "retryHostPredicate": [
                    {
                        "name": "envoy.retry_host_predicates.previous_hosts",
                        "typedConfig": {"@type": f"{RETRY}host.previous_hosts.v3.PreviousHostsPredicate"},
                    },
                    {
                        "name": "envoy.retry_host_predicates.omit_host_metadata",
                        "typedConfig": {
                            "@type": f"{RETRY}host.omit_host_metadata.v3.OmitHostMetadataConfig",
                            "metadataMatch": {"filterMetadata": {"envoy.lb": {"version": "v1"}}},
                        },
                    },
                ],
                "retryPriority": {
                    "name": "envoy.retry_priorities.previous_priorities",
                    "typedConfig": {
                        "@type": f"{RETRY}priority.previous_priorities.v3.PreviousPrioritiesConfig",
                        "updateFrequency": 2,
                    },
                },
                "hostSelectionRetryMaxAttempts": "7",
            },
        ),
    ],
)
def test_requests(http, expected):
    # Where nothing is said of hosts, a retry leaves out those that have just failed.
    by_default = {} if expected is None or "hostSelection" in http else ELSEWHERE
    assert of_http(**http) == (expected and {**by_default, **expected})


def test_hosts_are_not_chosen_where_a_policy_says_so():
    assert of_http(hostSelection=[]) == {"retryOn": HTTP}


@pytest.mark.parametrize(
    ("grpc", "expected"),
    [
        ({"numRetries": 0}, None),
        ({"numRetries": 3}, {"retryOn": GRPC, "numRetries": 3}),
        ({"retryOn": ["Canceled", "Internal"]}, {"retryOn": "cancelled,internal"}),
    ],
)
def test_grpc_calls(grpc, expected):
    assert of_grpc(**grpc) == (expected and {**ELSEWHERE, **expected})


def test_each_protocol_has_its_own():
    assert of_http("http2", numRetries=1)["retryOn"] == HTTP
    assert of_http("grpc", numRetries=1) is None
    assert "maxConnectAttempts" not in proxy(outbounds(server(protocol="tcp"), retry(http={"numRetries": 1})))


def test_connections():
    found = outbounds(server(protocol="tcp"), retry(tcp={"maxConnectAttempt": 4}))
    assert proxy(found)["maxConnectAttempts"] == 4
    assert proxy(found)["backoffOptions"] == {"baseInterval": "0.025s", "maxInterval": "0.100s"}
    once = proxy(outbounds(server(protocol="tcp"), retry(tcp={"maxConnectAttempt": 1})))
    assert "backoffOptions" not in once


def test_without_a_policy_nothing_is_tried_again():
    assert "retryPolicy" not in routes(outbounds(server()))[0]["route"]
    assert "maxConnectAttempts" not in proxy(outbounds(server(protocol="tcp")))


ROUTES = route_policy(
    "exports",
    rule(exact("/x")),
    rule(exact("/y"), filters=[{"type": "RequestRedirect", "requestRedirect": {"port": 1}}]),
)


@pytest.mark.parametrize(
    "about_route",
    [
        retry("p", "MeshHTTPRoute", "exports", http={"numRetries": 0}),
        retry("p", top={"kind": "MeshHTTPRoute", "name": "exports"}, http={"numRetries": 0}),
    ],
)
def test_a_route_can_go_without(about_route):
    found = routes(outbounds(server(), ROUTES, about_route, retry("all", http={"numRetries": 2})))
    said = {r["match"].get("path", "rest"): "retryPolicy" in r.get("route", {}) for r in found}
    assert said == {"/x": False, "/y": False, "rest": True}
