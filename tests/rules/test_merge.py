import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.model.resource import Spec
from meshd.rules.merge import merge_confs, merge_documents, merge_patch


class Inner(Spec):
    low: int | None = None
    append_tags: tuple[str, ...] | None = None


class Conf(Spec):
    action: str | None = None
    retries: int = 7
    names: tuple[str, ...] | None = None
    inner: Inner | None = None


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [  # the examples of RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_is_rfc_7396(target, patch, merged):
    assert merge_patch(target, patch) == merged


def test_later_confs_win_field_by_field_and_unset_defaults_override_nothing():
    first = Conf.model_validate({"retries": 2, "names": ["a"], "inner": {"low": 1}})
    second = Conf.model_validate({"action": "Deny", "names": ["b"], "inner": {}})
    merged = merge_confs([first, second])
    assert merged == Conf.model_validate({"action": "Deny", "retries": 2, "names": ["b"], "inner": {"low": 1}})


def test_append_lists_are_joined_over_all_confs_at_any_depth():
    confs = [Conf.model_validate({"inner": {"appendTags": [t]}}) for t in ("a", "b", "c")]
    merged = merge_confs(confs)
    assert merged.inner is not None
    assert merged.inner.append_tags == ("a", "b", "c")


def test_nothing_to_merge_is_an_error():
    with pytest.raises(ValueError, match="nothing"):
        merge_confs([])


LEAVES = st.one_of(st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2))
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "action": LEAVES,
        "names": LEAVES,
        "appendX": st.lists(st.integers(), max_size=3),
        "inner": st.fixed_dictionaries({}, optional={"low": LEAVES, "appendY": st.lists(st.integers(), max_size=2)}),
    },
)


@settings(max_examples=100)
@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_merging_documents_of_one_shape_is_associative(a, b, c):
    left = merge_documents([merge_documents([a, b]), c])
    right = merge_documents([a, merge_documents([b, c])])
    assert left == right == merge_documents([a, b, c])


@settings(max_examples=50)
@given(DOCUMENTS)
def test_an_empty_document_changes_nothing(a):
    assert merge_documents([{}, a]) == merge_documents([a, {}]) == a
