import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.model.documents import MAX_BYTES, load_documents
from meshd.model.errors import InvalidError


def test_many_documents_with_their_lines():
    text = "a: 1\n---\n\n# nothing\n---\nb:\n  - c: x\n    d: {e: y}\n"
    documents = load_documents(text)
    assert [d.data for d in documents] == [{"a": 1}, {"b": [{"c": "x", "d": {"e": "y"}}]}]
    assert [d.line for d in documents] == [1, 6]
    assert documents[1].line_of("b[0].d.e") == 8
    assert documents[1].line_of("b[0].missing.deep") == 7
    assert documents[1].line_of("") == 6


def test_lines_of_keys_that_need_quotes():
    (document,) = load_documents("tags:\n  kuma.io/service: web\n")
    assert document.line_of('tags["kuma.io/service"]') == 2


def test_json_is_yaml():
    assert load_documents('{"a": [1, null, true, 1.5, "x"]}')[0].data == {"a": [1, None, True, 1.5, "x"]}


def test_dates_stay_text():
    assert load_documents("t: 2026-01-02\nu: 2026-01-02T03:04:05Z")[0].data == {
        "t": "2026-01-02",
        "u": "2026-01-02T03:04:05Z",
    }


def test_anchors_and_merges_are_written_out():
    text = "base: &b {x: 1, y: 1}\nuse: {<<: *b, y: 2}\nboth: {<<: [*b, {z: 3, x: 9}]}"
    assert load_documents(text)[0].data == {
        "base": {"x": 1, "y": 1},
        "use": {"x": 1, "y": 2},
        "both": {"x": 1, "y": 1, "z": 3},
    }


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: 2\na: 3", 'line 3: field "a" is there twice, first on line 1'),
        ("a: [1, 2", "line 2: "),
        ("a:\n\t- b", "line 2: "),
        ("x:\n  1: a", "line 2: field names must be text; put 1 in quotes"),
        ("true: a", "line 1: field names must be text; put true in quotes"),
        ("? [a]\n: b", "line 1: field names must be text; put a list or object in quotes"),
        (
            "a: !!python/object/apply:os.system [id]",
            "line 1: tag tag:yaml.org,2002:python/object/apply:os.system is not",
        ),
        ("a: !thing x", "line 1: "),
        ("a: *nowhere", "line 1: "),
        ("a: &x [*x]", "line 1: is nested deeper than 64, or an anchor contains itself"),
        ("[" * 5000, "line 1: is nested deeper than 64"),
        ("{a: " * 5000, "line 1: is nested deeper than 64"),
        (BOMB, "has more than 500000 values with its anchors written out"),
        ("a: \x00", "is not YAML"),
        ("a: !!int x", "line 1: "),
        ("a: {<<: 5}", "line 1: only an object can be merged"),
    ],
)
def test_traps_are_refused_with_their_line(text, complaint):
    with pytest.raises(InvalidError) as caught:
        load_documents(text, "apply.yaml")
    assert str(caught.value).startswith("apply.yaml: ")
    assert complaint in str(caught.value)


def test_texts_that_are_too_long_are_not_even_parsed():
    with pytest.raises(InvalidError, match="at most 8388608 are read"):
        load_documents(" " * (MAX_BYTES + 1))


@given(st.text(alphabet="ab:-[]{}&*!<>|?'\"%@`#, \n\t0~", max_size=60))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(InvalidError):
        for document in load_documents(text):
            assert document.line >= 1
