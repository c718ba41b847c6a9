from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.rest.errors import RequestError
from meshd.rest.query import Page, next_link, read_filters, read_page, read_service_types, select
from tests.topology import builders as b


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [([], Page(100, 0)), ([("size", "1"), ("offset", "3")], Page(1, 3)), ([("size", "1000")], Page(1000, 0))],
)
def test_page(pairs, expected):
    assert read_page(pairs) == expected


@pytest.mark.parametrize("size", ["0", "1001", "-1", "x", "1e3", "٣", "9" * 30])
def test_a_bad_size_is_kumas_400(size):
    with pytest.raises(RequestError) as caught:
        read_page([("size", size)])
    assert (caught.value.status, caught.value.detail) == (400, "Invalid page size")
    assert caught.value.violations[0].field == "size"


@pytest.mark.parametrize("offset", ["x", "-1", "9" * 30])
def test_a_bad_offset_is_400(offset):
    with pytest.raises(RequestError) as caught:
        read_page([("offset", offset)])
    assert caught.value.status == 400


def test_next_keeps_the_filters():
    link = next_link("http://h/dataplanes", [("name", "a b"), ("offset", "0"), ("size", "2")], Page(2, 0), 5)
    assert link == "http://h/dataplanes?name=a+b&offset=2&size=2"  # the order of Kuma
    assert next_link("http://h/dataplanes", [], Page(2, 4), 5) is None


@pytest.mark.parametrize("pair", [("filter[spec.x]", "1"), ("filter[labels.x][gt]", "1"), ("gateway", "maybe")])
def test_an_unknown_filter_is_400(pair):
    with pytest.raises(RequestError) as caught:
        read_filters([pair], "Dataplane")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("pairs", "names"),
    [
        ([("tag", "kuma.io/service:we")], ["web-1"]),
        ([("tag", "kuma.io/service:*")], ["gw-1", "web-1"]),
        ([("tag", "kuma.io/service:web"), ("tag", "version:1")], ["web-1"]),
        ([("tag", "kuma.io/service:admin"), ("tag", "version:1")], []),  # not on one inbound
        ([("tag", "kuma.io/service:web"), ("tag", "kuma.io/service:gw")], ["gw-1"]),
        ([("tag", "kuma.io/service")], ["gw-1", "web-1"]),  # none
        ([("gateway", "TRUE")], ["gw-1"]),
        ([("gateway", "delegated"), ("tag", "kuma.io/service:web")], []),
        ([("filter[labels.team]", "red")], ["web-1"]),
        ([("filter[labels.team]", "re")], []),
    ],
)
def test_filters_of_dataplanes_are_those_of_kuma(pairs, names):
    web = b.inbound("web", tags={"version": "1"})
    found = [
        b.dataplane("gw-1", gateway={"type": "DELEGATED", "tags": {"kuma.io/service": "gw"}}),
        b.dataplane("web-1", web, b.inbound("admin", 8081), labels={"team": "red"}),
    ]
    assert [r.key.name for r in select(found, read_filters(pairs, "Dataplane"))] == names


def test_external_services_are_found_by_tags():
    found = [b.external("es", "outside", "example.com:443")]
    assert select(found, read_filters([("tag", "kuma.io/service:out")], "ExternalService")) == found
    assert select(found, read_filters([("tag", "kuma.io/service:in")], "ExternalService")) == []


def test_types_of_services():
    assert read_service_types("internal, EXTERNAL") == {"internal", "external"}
    with pytest.raises(RequestError) as caught:
        read_service_types("internal,odd")
    assert caught.value.detail.startswith("unsupported service type 'odd'")


@settings(max_examples=50)
@given(st.integers(0, 50), st.integers(1, 10))
def test_pages_cover_everything_once(total, size):
    seen, offset = [], 0
    while True:
        seen += list(range(total))[offset : offset + size]
        link = next_link("http://h/x", [("size", str(size))], Page(size, offset), total)
        if link is None:
            break
        offset = int(parse_qs(urlsplit(link).query)["offset"][0])
    assert seen == list(range(total))
