import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.rest.errors import RequestError
from meshd.rest.query import Page, next_link, read_filters, read_page


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
    assert link == "http://h/dataplanes?name=a+b&size=2&offset=2"
    assert next_link("http://h/dataplanes", [], Page(2, 4), 5) is None


@pytest.mark.parametrize("pair", [("filter[spec.x]", "1"), ("tag", "x"), ("gateway", "maybe")])
def test_an_unknown_filter_is_400(pair):
    with pytest.raises(RequestError) as caught:
        read_filters([pair], "Dataplane")
    assert caught.value.status == 400


@settings(max_examples=50)
@given(st.integers(0, 50), st.integers(1, 10))
def test_pages_cover_everything_once(total, size):
    seen, offset = [], 0
    while True:
        seen += list(range(total))[offset : offset + size]
        link = next_link("http://h/x", [("size", str(size))], Page(size, offset), total)
        if link is None:
            break
        offset = int(link.rsplit("=", 1)[1])
    assert seen == list(range(total))
