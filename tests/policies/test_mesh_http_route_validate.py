import pytest

from tests.policies.support import policy, wrong

API = {"kind": "MeshService", "name": "api"}
PREFIX = {"path": {"type": "PathPrefix", "value": "/a"}}


def to(*filters, matches=(PREFIX,), **conf):
    default = {**conf, **({"filters": list(filters)} if filters else {})}
    return {"to": [{"targetRef": API, "rules": [{"matches": list(matches), "default": default}]}]}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"to": []},
        to(matches=[{}]),
        to(
            matches=[
                {"path": {"type": "PathPrefix", "value": "/"}},
                {"path": {"type": "RegularExpression", "value": "a"}},
            ]
        ),
        to(backendRefs=[{"kind": "MeshExternalService", "name": "x"}]),
        {
            "targetRef": {"kind": "MeshGateway", "name": "g"},
            "to": [
                {
                    "targetRef": {"kind": "Mesh"},
                    "hostnames": ["a.b"],
                    "rules": [
                        {
                            "matches": [{}],
                            "default": {
                                "filters": [{"type": "URLRewrite", "urlRewrite": {"hostToBackendHostname": True}}],
                                "backendRefs": [API],
                            },
                        },
                        {"matches": [{}], "default": {"filters": [{"type": "RequestRedirect", "requestRedirect": {}}]}},
                    ],
                }
            ],
        },
    ],
)
def test_good_specs(spec):
    assert wrong("MeshHTTPRoute", spec) == []


@pytest.mark.parametrize(
    ("spec", "violations"),
    [
        (
            {
                "targetRef": {"kind": "MeshHTTPRoute", "name": "r"},
                "to": [{"targetRef": {"kind": "Mesh"}, "rules": [], "hostnames": ["x"]}],
            },
            [
                (
                    "spec.targetRef.kind: value 'MeshHTTPRoute' is not supported here, use one of "
                    "Mesh, Dataplane, MeshSubset, MeshGateway, MeshService, MeshServiceSubset"
                ),
                (
                    "spec.to[0].targetRef.kind: value 'Mesh' is not supported here, use one of "
                    "MeshService, MeshExternalService, MeshMultiZoneService"
                ),
                "spec.to[0].hostnames: can only be set when the top-level targetRef is a MeshGateway",
            ],
        ),
        (
            {
                "targetRef": {"kind": "MeshGateway", "name": "g"},
                "to": [{"targetRef": {"kind": "Mesh"}, "rules": [{"matches": [], "default": {}}]}],
            },
            [
                "spec.to[0].rules[0].matches: must have at least one item: [{}] is met by every request",
                (
                    "spec.to[0].rules[0].default.backendRefs: "
                    "must not be empty at a MeshGateway, but for a rule that redirects"
                ),
            ],
        ),
        (
            to(
                matches=[
                    {"path": {"type": "PathPrefix", "value": "a/"}},
                    {"path": {"type": "Exact", "value": ""}},
                    {"path": {"type": "Exact", "value": "a/"}},
                    {
                        "queryParams": [
                            {"type": "Exact", "name": "", "value": ""},
                            {"type": "Exact", "name": "q", "value": "1"},
                            {"type": "Exact", "name": "q", "value": "2"},
                        ],
                        "headers": [{"name": "a b"}, {"name": "a", "type": "Absent", "value": "x"}],
                    },
                ]
            ),
            [
                'spec.to[0].rules[0].matches[0].path.value: must be an absolute path, "/a/"',
                (
                    "spec.to[0].rules[0].matches[0].path.value: "
                    'must not end with a slash: a prefix is always of whole segments, "a"'
                ),
                "spec.to[0].rules[0].matches[1].path.value: must not be empty",
                'spec.to[0].rules[0].matches[2].path.value: must be an absolute path, "/a/"',
                "spec.to[0].rules[0].matches[3].queryParams[0].name: must not be empty",
                'spec.to[0].rules[0].matches[3].queryParams[2].name: "q" is there twice',
                (
                    'spec.to[0].rules[0].matches[3].headers[0].name: "a b" is no header name: '
                    'use lower case letters, digits and "-", at most 256'
                ),
                'spec.to[0].rules[0].matches[3].headers[1].value: must not be set with type Absent: "x"',
            ],
        ),
        (
            to(matches=[{"method": "get"}]),
            [
                (
                    'spec.to[0].rules[0].matches[0].method: must be one of "CONNECT", "DELETE", "GET", "HEAD", '
                    '"OPTIONS", "PATCH", "POST", "PUT" or "TRACE", not "get"'
                )
            ],
        ),
    ],
)
def test_all_violations_are_reported(spec, violations):
    assert wrong("MeshHTTPRoute", spec) == violations


@pytest.mark.parametrize(
    ("filter_", "violations"),
    [
        ({"type": "RequestHeaderModifier"}, [".requestHeaderModifier: must be set with type RequestHeaderModifier"]),
        ({"type": "ResponseHeaderModifier"}, [".responseHeaderModifier: must be set with type ResponseHeaderModifier"]),
        ({"type": "RequestRedirect"}, [".requestRedirect: must be set with type RequestRedirect"]),
        ({"type": "URLRewrite"}, [".urlRewrite: must be set with type URLRewrite"]),
        ({"type": "RequestMirror"}, [".requestMirror: must be set with type RequestMirror"]),
        (
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {}},
            [".requestHeaderModifier: must have at least one of set, add and remove"],
        ),
        (
            {
                "type": "ResponseHeaderModifier",
                "responseHeaderModifier": {
                    "set": [{"name": "a", "value": "1"}],
                    "add": [{"name": "A", "value": "1"}, {"name": "a", "value": "1"}],
                    "remove": ["a", "", *(f"x{i}" for i in range(15))],
                },
            },
            [
                (
                    '.responseHeaderModifier.add[0].name: "A" is no header name: '
                    'use lower case letters, digits and "-", at most 256'
                ),
                '.responseHeaderModifier.add[1].name: "a" is there twice: only one action is possible for a header',
                ".responseHeaderModifier.remove: must have at most 16 items, not 17",
                '.responseHeaderModifier.remove[0]: "a" is there twice: only one action is possible for a header',
                ".responseHeaderModifier.remove[1]: must not be empty",
            ],
        ),
        (
            {
                "type": "RequestHeaderModifier",
                "requestHeaderModifier": {
                    "set": [
                        {"name": "a", "value": "100%%"},
                        {"name": "b", "value": "%REQ(:path):10% %PROTOCOL%"},
                        {"name": "c", "value": "100%"},
                    ]
                },
            },
            ['.requestHeaderModifier.set[2].value: "100%" is no command of Envoy: write %% for a percent sign'],
        ),
        (
            {
                "type": "RequestRedirect",
                "requestRedirect": {
                    "scheme": "ftp",
                    "hostname": "10.0.0.1",
                    "port": 0,
                    "statusCode": 304,
                    "path": {"type": "ReplacePrefixMatch"},
                },
            },
            [
                '.requestRedirect.scheme: must be http or https, not "ftp"',
                '.requestRedirect.hostname: "10.0.0.1" cannot be an IP address',
                ".requestRedirect.path.replacePrefixMatch: must be set with type ReplacePrefixMatch",
                ".requestRedirect.port: must be a port from 1 to 65535, not 0",
                ".requestRedirect.statusCode: must be one of 301, 302, 303, 307, 308, not 304",
            ],
        ),
        (
            {
                "type": "URLRewrite",
                "urlRewrite": {
                    "hostname": "A.b",
                    "hostToBackendHostname": True,
                    "path": {"type": "ReplaceFullPath", "replacePrefixMatch": "/"},
                },
            },
            [
                '.urlRewrite.hostname: "A.b" is no host name: use lower case letters, digits, "-" and "."',
                ".urlRewrite.path.replaceFullPath: must be set with type ReplaceFullPath",
                ".urlRewrite.path.replacePrefixMatch: can only be set if all matches of the rule are of path prefixes",
                ".urlRewrite.hostToBackendHostname: can only be set with a MeshGateway",
                ".urlRewrite.hostToBackendHostname: cannot be set together with hostname",
            ],
        ),
        (
            {
                "type": "RequestMirror",
                "requestMirror": {"percentage": "x", "backendRef": {"kind": "MeshExternalService", "name": "x"}},
            },
            [
                '.requestMirror.percentage: must be a number, not "x"',
                (
                    ".requestMirror.backendRef.kind: value 'MeshExternalService' is not supported here, use one of "
                    "MeshService, MeshServiceSubset"
                ),
            ],
        ),
    ],
)
def test_what_is_wrong_with_a_filter(filter_, violations):
    matches = (PREFIX, {}) if filter_["type"] == "URLRewrite" else (PREFIX,)
    found = wrong("MeshHTTPRoute", to(filter_, matches=matches))
    assert found == [f"spec.to[0].rules[0].default.filters[0]{violation}" for violation in violations]


def test_a_redirect_without_a_status_is_written_out():
    spec = policy("MeshHTTPRoute", "p", to({"type": "RequestRedirect", "requestRedirect": {"port": 81}})).spec
    [filter_] = spec.model_dump(mode="json", exclude_unset=True)["to"][0]["rules"][0]["default"]["filters"]
    assert filter_["requestRedirect"] == {"port": 81, "statusCode": 302}
