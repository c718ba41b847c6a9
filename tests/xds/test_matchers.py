import pytest

from meshd.rules.header_match import HeaderMatch
from meshd.xds import matchers
from meshd.xds.encode import encode

HEADER = "type.googleapis.com/envoy.config.route.v3.HeaderMatcher"


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"value": "1"}, {"stringMatch": {"exact": "1"}}),
        ({"type": "Prefix", "value": "1"}, {"stringMatch": {"prefix": "1"}}),
        ({"type": "Prefix"}, {"presentMatch": True}),
        ({"type": "RegularExpression", "value": "1+"}, {"stringMatch": {"safeRegex": {"regex": "1+"}}}),
        ({"type": "Present"}, {"presentMatch": True}),
        ({"type": "Absent"}, {"presentMatch": False}),
    ],
)
def test_headers(match, expected):
    document = matchers.header(HeaderMatch.model_validate({"name": "x", **match}))
    assert document == {"name": "x", **expected}
    assert len(encode(HEADER, document)) > len(encode(HEADER, {"name": "x"}))


def test_methods():
    assert matchers.methods(["GET"]) == [{"name": ":method", "stringMatch": {"exact": "GET"}}]
