import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.rest.body import read_body
from meshd.rest.errors import RequestError, answer


@pytest.mark.parametrize("kind", ["", "application/json", "application/json; charset=utf-8"])
def test_json(kind):
    assert read_body(b'{"type": "Mesh"}', kind) == {"type": "Mesh"}


@pytest.mark.parametrize("kind", ["application/yaml", "text/yaml; charset=utf-8"])
def test_yaml(kind):
    assert read_body(b"type: Mesh\nname: x", kind) == {"type": "Mesh", "name": "x"}


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"", "", "not JSON"),
        (b"{", "", "not JSON"),
        (b'{"a": 1, "a": 2}', "", 'field "a" is there twice'),
        (b'{"a": NaN}', "", "NaN is no JSON value"),
        (b"\xff", "", "not UTF-8 at byte 0"),
        (b"[" * 100_000, "", "nested too deep"),
        (b"[" * 100 + b"]" * 100, "", "nested deeper than 64"),
        (b'{"a": ' + b"9" * 5000 + b"}", "", "not JSON"),
        (b'{"a": ["\\ud800"]}', "", "half a character"),
        (b'{"\\uDFFF": 1}', "", "half a character"),
        (b'"\\udc00\\ud800"', "", "half a character"),
        (b'a: "\\ud800"', "application/yaml", "not YAML"),
        (b"a: 1\n---\nb: 2", "application/yaml", "one document, not 2"),
        (b"a: 1\na: 2", "application/yaml", "there twice"),
    ],
)
def test_what_cannot_be_read_says_why(data, kind, reason):
    with pytest.raises(RequestError) as caught:
        read_body(data, kind)
    assert caught.value.status == 400
    assert reason in caught.value.detail


def test_a_pair_of_escapes_is_one_character():
    assert read_body(b'{"a": "\\ud83d\\ude00", "b": "\\\\ud800"}', "") == {"a": "\U0001f600", "b": "\\ud800"}


@settings(max_examples=100)
@given(st.binary(max_size=200), st.sampled_from(["", "application/yaml"]))
def test_any_bytes_are_data_or_400(data, kind):
    try:
        read_body(data, kind)
    except RequestError as error:
        status = error.status
    else:
        status = 200
    assert status in (200, 400)


def test_an_error_can_be_answered_whatever_it_says():
    refused = RequestError(400, "Bad Request", "\ud800 \u00e4")
    assert json.loads(answer(refused).body)["detail"] == "\ud800 \u00e4"
