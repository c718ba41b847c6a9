import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.model.documents import load_documents
from meshd.model.errors import InvalidError

INDENTATION = "; check the indentation of this line"


@pytest.mark.parametrize(
    ("text", "line", "ends"),
    [
        ("a:\n  b: 1\n c: 2\n", 3, INDENTATION),
        ("a:\n    b: 1\n  c: 2\n", 3, INDENTATION),
        ("mode: zone\n multizone:\n  zone: {}\n", 2, INDENTATION),
        ("a: 1\n  b: 2\n", 2, INDENTATION),
        ("a:\n  - b: 1\n   c: 2\n", 3, INDENTATION),
        ("- a\nb: 1\n", 2, INDENTATION),
        ("a: - b\n", 1, INDENTATION),
        ("a: 1\n\tb: 2\n", 2, "; use spaces, not tabs, to indent this line"),
        ("a:\n  b: 1\n  \tc: 2\n", 3, "; use spaces, not tabs, to indent this line"),
        ("a:\n\tb: 2\n", 2, "; use spaces, not tabs, to indent this line"),
        ("a: b: c\n", 1, "; put the value in quotes, for it has a ':' in it"),
        ("type: Mesh\nname:default\n", 2, "; write 'key: value', with a space after the colon"),
        ("a: 1\nb: @x\n", 2, "; put the value that begins with '@' in quotes"),
        ("a: *x\n", 1, "; put the value that begins with '*' in quotes"),
        ("a: 1\nb: 'x\nc: 1\n", 2, "; close the quote that begins on this line"),
        ("a: [1, 2\nb: 3\n", 2, "; close the bracket that is open since line 1"),
        ('a: "\\q"\n', 1, "found unknown escape character"),
    ],
)
def test_a_mistake_has_its_line_and_what_to_do(text, line, ends):
    with pytest.raises(InvalidError) as caught:
        load_documents(text)
    [violation] = caught.value.violations
    assert violation.field == f"line {line}"
    assert violation.message.endswith(ends)
    assert not violation.message.startswith(";")
    assert "{" not in violation.message


@settings(max_examples=100)
@given(st.text(alphabet="ab:-[]{}'\"\t\n\r #&*|>@%\u2028"))
def test_any_text_is_read_or_explained(text):
    try:
        read = load_documents(text)
    except InvalidError:
        return
    assert all(document.data is not None for document in read)
