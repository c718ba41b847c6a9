import pytest

from meshd.rules.client_match import ClientMatch, spiffe_id_problem, violations


def match(**document):
    return ClientMatch.model_validate(document)


@pytest.mark.parametrize(
    ("document", "uris", "sni", "holds"),
    [
        ({"spiffeID": {"type": "Exact", "value": "spiffe://m/web"}}, ["kuma://v/1", "spiffe://m/web"], "", True),
        ({"spiffeID": {"type": "Exact", "value": "spiffe://m/web"}}, ["spiffe://m/web2"], "", False),
        ({"spiffeID": {"type": "Prefix", "value": "spiffe://m/web"}}, ["spiffe://m/web2"], "", True),
        ({"spiffeID": {"type": "Prefix", "value": "spiffe://m"}}, [], "", False),
        ({"sni": {"type": "Exact", "value": "a.b"}}, [], "a.b", True),
        (
            {"sni": {"type": "Exact", "value": "a.b"}, "spiffeID": {"type": "Exact", "value": "spiffe://m/w"}},
            [],
            "a.b",
            False,
        ),
        ({}, ["spiffe://m/web"], "a.b", False),
    ],
)
def test_a_condition_holds_if_all_its_parts_do(document, uris, sni, holds):
    assert match(**document).holds(uris, sni) is holds


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("spiffe://default/web", True),
        ("spiffe://default", True),
        ("spiffe://default/ns/a/sa/b_c.d-E", True),
        ("spiffe://default/", False),
        ("spiffe://default//a", False),
        ("spiffe://default/../a", False),
        ("spiffe://Default/a", False),
        ("spiffe:///a", False),
        ("spiffe://default/a b", False),
        ("http://default/a", False),
        ("", False),
    ],
)
def test_spiffe_ids(value, good):
    assert (spiffe_id_problem(value) == "") is good


def test_violations_name_the_place():
    bad = match(spiffeID={"type": "Prefix", "value": "web"}, sni={"type": "Exact", "value": "UPPER"})
    assert [v.field for v in violations(bad, "x[0]")] == ["x[0].spiffeID.value", "x[0].sni.value"]
    assert [v.field for v in violations(match(sni={"type": "Exact", "value": ""}), "x")] == ["x.sni.value"]
