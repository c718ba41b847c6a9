"""Versions of Kuma's parts."""

import pytest

from meshd.model.versions import compatible


@pytest.mark.parametrize(
    ("ours", "theirs", "fits"),
    [
        ("2.14.3", "2.12.0", True),
        ("2.14.3", "2.11.9", False),
        ("2.14.3", "2.16.1", True),
        ("2.14.3", "3.0.0", False),
        ("2.14.3", "dev-abc", True),
        ("0.1.0", "", True),
    ],
)
def test_versions_fit_within_two_minors(ours: str, theirs: str, fits: bool) -> None:
    assert compatible(ours, theirs) is fits
