import pytest

from meshd.policies.mesh_http_route.envoy import HttpRouteShaper, route_matches
from meshd.policies.mesh_http_route.filters import fraction
from meshd.policies.mesh_http_route.merge import route_name, takes_all
from meshd.policies.mesh_http_route.spec import Match
from meshd.rules.checks import decimal
from tests.policies.shaped import WANTED, clusters, outbounds, proxy, routes, server
from tests.policies.support import policy

API = {"kind": "MeshService", "name": "backend"}
V2 = {"kind": "MeshServiceSubset", "name": "backend", "tags": {"version": "v2"}}
ALL = "9Zuf5Tg79OuZcQITwBbQykxAk2u4fRKrwYn3//AL4Yo="


def route_policy(name, *rules, top=None, to=API, labels=None):
    spec = {"to": [{"targetRef": to, "rules": list(rules)}], **({"targetRef": top} if top else {})}
    return policy("MeshHTTPRoute", name, spec, labels)


def rule(*matches, **conf):
    return {"matches": list(matches), "default": conf}


def prefix(value, **more):
    return {"path": {"type": "PathPrefix", "value": value}, **more}


def exact(value, **more):
    return {"path": {"type": "Exact", "value": value}, **more}


def regex(value, **more):
    return {"path": {"type": "RegularExpression", "value": value}, **more}


def to_service(name):
    return {"backendRefs": [{"kind": "MeshService", "name": name}]}


def led(resources):
    """(path condition, where to) of each route."""
    return [
        (
            next(r["match"][key] for key in ("path", "prefix", "safeRegex") if key in r["match"]),
            r.get("route", {}).get("cluster", r.get("directResponse", {}).get("status")),
        )
        for r in routes(resources)
    ]


def test_requests_that_no_rule_is_about_go_where_they_were_sent():
    found = outbounds(server(), route_policy("p", rule(prefix("/v2"), **to_service("other"))))
    assert led(found) == [("/v2", "other"), ("/v2/", "other"), ("/", "backend")]
    assert set(clusters(found)) == {"backend", "other"}
    assert [r["name"] for r in routes(found)][2] == ALL


@pytest.mark.parametrize(
    "policies",
    [
        [],
        [route_policy("p", rule({}, **to_service("other")), to={"kind": "MeshService", "name": "else"})],
        [route_policy("p", rule({}, **to_service("other")), top={"kind": "MeshService", "name": "else"})],
    ],
)
def test_without_a_policy_about_it_all_goes_to_the_destination(policies):
    assert led(outbounds(server(), *policies)) == [("/", "backend")]


def test_a_destination_that_speaks_no_http_has_no_such_routes():
    found = outbounds(server(protocol="tcp"), route_policy("p", rule({}, **to_service("other"))))
    assert proxy(found)["cluster"] == "backend"


def test_an_empty_policy_about_it_keeps_the_connections_of_tcp_routes_away():
    tcp = {"to": [{"targetRef": API, "rules": [{"default": to_service("other")}]}]}
    found = outbounds(server(), route_policy("p"), policy("MeshTCPRoute", "t", tcp))
    assert led(found) == [("/", "backend")]


def test_the_more_specific_condition_is_tried_first():
    rules = [
        rule({}, **to_service("nothing")),
        rule(prefix("/"), **to_service("root")),
        rule({"headers": [{"name": "a", "value": "b"}]}, **to_service("header")),
        rule({"method": "GET"}, **to_service("method")),
        rule(regex("/r.*"), **to_service("regex")),
        rule(prefix("/a"), prefix("/a/b"), **to_service("prefix")),
        rule(prefix("/a", method="GET"), **to_service("method-prefix")),
        rule(exact("/a/b/c"), **to_service("exact")),
    ]
    assert [place for _, place in led(outbounds(server(), route_policy("p", *rules)))] == [
        "exact",
        *["prefix"] * 2,  # /a/b
        *["method-prefix"] * 2,
        *["prefix"] * 2,  # /a
        "regex",
        "method",
        "header",
        "nothing",
        "root",
    ]


@pytest.mark.parametrize(
    ("policies", "place"),
    [
        ([("a", "1", {}), ("b", "2", {})], "1"),
        ([("a", "1", {}), ("b", "2", {"kind": "MeshService", "name": "client"})], "2"),
    ],
)
def test_of_equal_conditions_the_more_specific_policy_has_the_say(policies, place):
    made = [route_policy(name, rule(exact("/x"), **to_service(to)), top=top) for name, to, top in policies]
    assert led(outbounds(server(), *made)) == [("/x", place), ("/", "backend")]


def test_of_equal_conditions_in_one_policy_the_first_has_the_say():
    rules = [rule(exact("/x"), **to_service("1")), rule(exact("/x"), **to_service("2"))]
    assert led(outbounds(server(), route_policy("p", *rules))) == [("/x", "1"), ("/", "backend")]


def test_equal_conditions_are_merged_field_by_field():
    headers = {"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x"]}}]}
    made = [route_policy("a", rule(exact("/x"), **headers)), route_policy("b", rule(exact("/x"), **to_service("1")))]
    [first, _] = routes(outbounds(server(), *made))
    assert (first["route"]["cluster"], first["requestHeadersToRemove"]) == ("1", ["x"])


def test_of_equally_specific_conditions_the_order_is_of_policies_then_of_the_document():
    def by(name, value):
        return {"headers": [{"name": name, "value": value}]}

    made = [
        route_policy("b", rule(by("b", "1"), **to_service("b1")), rule(by("b", "2"), **to_service("b2"))),
        route_policy("a", rule(by("a", "1"), **to_service("a1")), rule(by("a", "2"), **to_service("a2"))),
    ]
    assert [place for _, place in led(outbounds(server(), *made))] == ["a1", "a2", "b1", "b2", "backend"]


def test_weights():
    refs = [{**V2, "weight": 3}, {**API, "weight": 1}, {"kind": "MeshService", "name": "none", "weight": 0}]
    found = outbounds(server(version="v2"), route_policy("p", rule({}, backendRefs=refs)))
    [route] = routes(found)
    shares = [(c["name"], c["weight"]) for c in route["route"]["weightedClusters"]["clusters"]]
    assert [weight for _, weight in shares] == [3, 1]
    assert shares[1][0] == "backend"
    assert shares[0][0].startswith("backend-")


@pytest.mark.parametrize(
    "refs",
    [
        [{**API, "weight": 0}],
        [{"kind": "MeshExternalService", "name": "x"}],
        [{"kind": "MeshMultiZoneService", "name": "x", "port": 80}],
        [{"kind": "MeshService", "name": "x", "port": 80}],
        [{"kind": "MeshService", "labels": {"a": "b"}}],
    ],
)
def test_a_rule_that_leads_nowhere_answers_so(refs):
    assert led(outbounds(server(), route_policy("p", rule({}, backendRefs=refs)))) == [("/", 500)]


def test_an_outbound_for_some_instances_stays_with_them():
    wanted = WANTED.__class__("127.0.0.1", 10001, "backend", (("version", "v1"),))
    found = outbounds(server(version="v1"), route_policy("p", rule(exact("/x"))), wanted=wanted)
    names = {place for _, place in led(found)}
    assert len(names) == 1
    assert names.pop().startswith("backend-")


def with_filters(*filters, match=None):
    found = outbounds(server(), route_policy("p", rule(match or {}, filters=list(filters))))
    return routes(found)


def test_headers():
    modifier = {"set": [{"name": "s", "value": "1"}], "add": [{"name": "a", "value": "2"}], "remove": ["r"]}
    [route] = with_filters(
        {"type": "RequestHeaderModifier", "requestHeaderModifier": modifier},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": modifier},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["q"]}},
    )
    changed = [
        {"header": {"key": "s", "value": "1"}, "appendAction": "OVERWRITE_IF_EXISTS_OR_ADD"},
        {"header": {"key": "a", "value": "2"}},  # APPEND_IF_EXISTS_OR_ADD, which is the first of its kind
    ]
    assert (route["requestHeadersToAdd"], route["requestHeadersToRemove"]) == (changed, ["r"])
    assert (route["responseHeadersToAdd"], route["responseHeadersToRemove"]) == (changed, ["r", "q"])


@pytest.mark.parametrize(
    ("match", "path", "expected"),
    [
        (exact("/a"), {"type": "ReplaceFullPath", "replaceFullPath": "/b"}, ["/b"]),
        (prefix("/a"), {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}, ["/b", "prefix /b/"]),
        (prefix("/a"), {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b/"}, ["/b", "prefix /b/"]),
        (prefix("/a"), {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}, ["/", "prefix /"]),
        (prefix("/a"), {"type": "ReplacePrefixMatch", "replacePrefixMatch": ""}, ["/", "prefix /"]),
        (prefix("/"), {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}, ["prefix /b/"]),
        (exact("/a"), {"type": "ReplaceFullPath", "replaceFullPath": r"/\1"}, [r"/\\1"]),
    ],
)
def test_paths_are_rewritten(match, path, expected):
    def said(part):
        return f"prefix {part['prefixRewrite']}" if "prefixRewrite" in part else part["regexRewrite"]["substitution"]

    found = with_filters({"type": "URLRewrite", "urlRewrite": {"hostname": "h.example", "path": path}}, match=match)
    mine = [r["route"] for r in found if r["name"] != ALL or match == prefix("/")]
    assert [said(part) for part in mine] == expected
    assert {part["hostRewriteLiteral"] for part in mine} == {"h.example"}
    found = with_filters({"type": "RequestRedirect", "requestRedirect": {"path": path}}, match=match)
    assert [said(r["redirect"]) for r in found if "redirect" in r] == expected


def test_redirects():
    redirect = {"scheme": "https", "hostname": "h.example", "port": 444, "statusCode": 308}
    headers = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["q"]}}
    rewrite = {"type": "URLRewrite", "urlRewrite": {"hostname": "other.example"}}
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"kind": "MeshService", "name": "m"}}}
    [route] = with_filters({"type": "RequestRedirect", "requestRedirect": redirect}, headers, rewrite, mirror)
    assert route["redirect"] == {
        "schemeRedirect": "https",
        "hostRedirect": "h.example",
        "portRedirect": 444,
        "responseCode": "PERMANENT_REDIRECT",
    }
    assert route["responseHeadersToRemove"] == ["q"]
    assert "route" not in route


def test_mirrors():
    def mirror(ref, **more):
        return {"type": "RequestMirror", "requestMirror": {"backendRef": ref, **more}}

    found = outbounds(
        server(),
        route_policy(
            "p",
            rule(
                {},
                filters=[
                    mirror({"kind": "MeshService", "name": "m"}, percentage=7),
                    mirror({"kind": "MeshService", "labels": {"a": "b"}}),
                    mirror(V2),
                ],
            ),
        ),
    )
    [route] = routes(found)
    [first, second] = route["route"]["requestMirrorPolicies"]
    assert first == {"cluster": "m", "runtimeFraction": {"defaultValue": {"numerator": 7}}}
    assert second["cluster"].startswith("backend-")
    assert len(clusters(found)) == 3


@pytest.mark.parametrize(
    ("percent", "expected"),
    [
        (7, {"numerator": 7, "denominator": "HUNDRED"}),
        ("50.0", {"numerator": 50, "denominator": "HUNDRED"}),
        ("0.25", {"numerator": 25, "denominator": "TEN_THOUSAND"}),
        ("0.0125", {"numerator": 125, "denominator": "MILLION"}),
    ],
)
def test_fractions(percent, expected):
    assert fraction(decimal(percent)) == expected


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({}, [{"prefix": "/"}]),
        (prefix("/a"), [{"path": "/a"}, {"prefix": "/a/"}]),
        (regex("/a+"), [{"safeRegex": {"regex": "/a+"}}]),
        (
            exact(
                "/a",
                method="PUT",
                headers=[
                    {"name": "e", "value": "1"},
                    {"name": "e", "value": "ignored"},
                    {"name": "p", "type": "Present"},
                    {"name": "n", "type": "Absent"},
                    {"name": "r", "type": "RegularExpression", "value": "x+"},
                    {"name": "f", "type": "Prefix", "value": "y"},
                    {"name": "g", "type": "Prefix", "value": ""},
                ],
                queryParams=[
                    {"type": "Exact", "name": "q", "value": "1"},
                    {"type": "RegularExpression", "name": "s", "value": "2+"},
                ],
            ),
            [
                {
                    "path": "/a",
                    "headers": [
                        {"name": ":method", "stringMatch": {"exact": "PUT"}},
                        {"name": "e", "stringMatch": {"exact": "1"}},
                        {"name": "p", "presentMatch": True},
                        {"name": "n", "presentMatch": False},
                        {"name": "r", "stringMatch": {"safeRegex": {"regex": "x+"}}},
                        {"name": "f", "stringMatch": {"prefix": "y"}},
                        {"name": "g", "presentMatch": True},
                    ],
                    "queryParameters": [
                        {"name": "q", "stringMatch": {"exact": "1"}},
                        {"name": "s", "stringMatch": {"safeRegex": {"regex": "2+"}}},
                    ],
                }
            ],
        ),
    ],
)
def test_conditions(match, expected):
    assert list(route_matches(Match.model_validate(match))) == expected


@pytest.mark.parametrize(
    ("matches", "name"),
    [
        # both are in Kuma's own golden files
        ([prefix("/")], ALL),
        ([prefix("/v1")], "bzv64o+joRk33jfDADgGv5ar4QyONO0NEVKnoBfJW/E="),
    ],
)
def test_routes_are_called_what_kuma_calls_them(matches, name):
    assert route_name([Match.model_validate(match) for match in matches]) == name


def test_what_go_never_writes_as_it_is_is_in_the_name_as_go_writes_it():
    assert route_name([Match.model_validate(exact("/<&>"))]) != route_name([Match.model_validate(exact("/<>"))])


@pytest.mark.parametrize(
    ("match", "expected"), [({}, True), (prefix("/"), True), (prefix("/a"), False), ({"method": "GET"}, False)]
)
def test_what_takes_all(match, expected):
    assert takes_all(Match.model_validate(match)) is expected


def test_the_parts_of_services_that_are_sent_to():
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {**V2, "name": "m"}}}
    made = route_policy("p", rule({}, filters=[mirror], backendRefs=[V2, API, {**V2, "tags": {}}]))
    assert list(HttpRouteShaper().subsets([made])) == [
        ("backend", (("version", "v2"),)),
        ("m", (("version", "v2"),)),
    ]
