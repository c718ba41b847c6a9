"""Differences of JSON values."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.rest.patch import patch

values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text("ab~/", max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab~/", max_size=2), inner, max_size=3),
    max_leaves=8,
)


def same(one, other):
    """Equal, and true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def applied(document, operations):
    """By RFC 6902."""
    root = {"": copy.deepcopy(document)}
    for operation in operations:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")]
        at = root
        for part in way:
            at = at[int(part) if isinstance(at, list) else part]
        key = int(last) if isinstance(at, list) else last
        match operation["op"]:
            case "test":
                assert same(at[key], operation["value"])
            case "remove":
                del at[key]
            case "add" if isinstance(at, list):
                at.insert(key, operation["value"])
            case "add":
                at[key] = operation["value"]
    return root[""]


@given(values, values)
def test_what_it_says_makes_the_one_of_the_other(before, after):
    assert same(applied(before, list(patch(before, after))), after)


@given(values)
def test_of_equal_values_there_is_nothing_to_say(value):
    assert list(patch(value, copy.deepcopy(value))) == []


@pytest.mark.parametrize(
    ("before", "after", "operations"),
    [
        ({"a": 1}, {"a": 2}, [("test", "/a", 1), ("remove", "/a", 1), ("add", "/a", 2)]),
        ({"a/b~": 1}, {}, [("test", "/a~1b~0", 1), ("remove", "/a~1b~0", 1)]),
        ([1, 2, 3], [1, 3], [("test", "/1", 2), ("remove", "/1", 2)]),
        ([{"a": 1}, 2], [{"a": 1, "b": 1}, 2], [("add", "/0/b", 1)]),
    ],
)
def test_operations(before, after, operations):
    assert [(o["op"], o["path"], o["value"]) for o in patch(before, after)] == operations
