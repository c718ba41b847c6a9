from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.kds.ledger import EMPTY, Kept, KindSync, State, behind, contradicts, listed, sum_of
from meshd.kinds.mesh import Mesh
from meshd.model.resource import Resource, ResourceKey

NAMES = st.sampled_from(["a.default", "b.default", "c."])
CHANGES = st.lists(st.tuples(NAMES, st.one_of(st.none(), st.sampled_from(["v1", "v2"]))))


@given(CHANGES)
def test_a_sum_that_is_kept_up_is_the_sum_of_what_is_there(changes):
    versions, kept_up = {}, EMPTY
    for name, version in changes:
        kept_up = kept_up.changed(name, versions.get(name), version)
        if version is None:
            versions.pop(name, None)
        else:
            versions[name] = version
    assert kept_up == sum_of(versions)
    assert kept_up == sum_of(dict(reversed(versions.items())))


def test_other_sets_have_other_digests():
    sets = [{}, {"a.": "1"}, {"a.": "2"}, {"b.": "1"}, {"a.": "1", "b.": "1"}, {"a.1": ""}]
    assert len({sum_of(one).digest for one in sets}) == len(sets)
    assert sum_of({}).digest == "0" * 32


def test_only_a_sum_of_meshd_contradicts():
    own = sum_of({"a.": "1"})
    assert contradicts(sum_of({"a.": "2"}).mark, own)
    assert not contradicts(own.mark, own)
    for said in ("", "7", "v1-abc"):  # Kuma leaves it empty; what others put there says nothing
        assert not contradicts(said, own)


def test_how_far_one_set_is_behind_another():
    assert behind({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "1", "x": "9"}) == 3
    assert behind({"a": "1"}, {"a": "1"}) == 0


def test_a_copy_may_get_a_status_and_nothing_else():
    stored = Resource(ResourceKey("Mesh", "", "m"), Mesh(), labels={"a": "b"}, wire=b"x")
    kept = Kept(stored.labels, stored.wire)
    assert kept.is_still(replace(stored, version=7, labels={"a": "b"}, wire=bytes(bytearray(b"x"))))
    assert not kept.is_still(None)
    assert not kept.is_still(replace(stored, labels={}))
    assert not kept.is_still(replace(stored, wire=None))


@pytest.mark.parametrize(
    ("state", "more", "words"),
    [
        (State.IN_SYNC, {}, "in sync"),
        (State.BEHIND, {"behind": 3}, "behind by 3"),
        (
            State.BEHIND,
            {"behind": 1, "since": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)},
            "behind by 1 since 2026-01-02T03:04:05Z",
        ),
        (State.REFUSED, {"reason": "no"}, "refused: no"),
        (State.DIVERGED, {"reason": "x was changed here"}, "diverged: x was changed here"),
        (State.WAITING, {}, "waiting"),
    ],
)
def test_states_in_words(state, more, words):
    assert KindSync("Mesh", state, 1, EMPTY, **more).words == words


def test_some_names_stand_for_many():
    assert listed(["b", "a"]) == "a, b"
    assert listed("abcdefg") == "a, b, c, d, e and 2 more"
