"""Sums of hashes: kept up they are those of the whole set, and no two sets that are seen have the same."""

from hypothesis import given
from hypothesis import strategies as st

from meshd.discovery.sums import of_one, shown

SETS = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=5)


@given(SETS, SETS)
def test_equal_sums_are_equal_sets(a, b):
    assert (shown(total(a)) == shown(total(b))) == (a == b)


@given(SETS, SETS)
def test_a_sum_can_be_kept_up(a, b):
    kept_up = total(a) - sum(of_one(n, v) for n, v in a.items()) + total(b)
    assert shown(kept_up) == shown(total(b))


def test_a_sum_below_or_above_all_digits_is_shown_in_them():
    assert shown(-1) == "f" * 32
    assert shown(1 << 128) == shown(0) == "0" * 32


def total(versions):
    return sum(of_one(name, version) for name, version in versions.items())
