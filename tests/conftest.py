"""Fixtures of several packages."""

import os

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
"""How long an example takes says how busy the machine is."""
settings.load_profile("untimed")


@pytest.fixture
def golden():
    """Compare a text with a golden file; UPDATE_GOLDEN=1 writes it anew."""

    def compare(path, text):
        if os.environ.get("UPDATE_GOLDEN"):
            path.write_text(text)
        assert text == path.read_text()

    return compare
