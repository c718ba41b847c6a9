"""Fixtures of several packages."""

import os

import pytest


@pytest.fixture
def golden():
    """Compare a text with a golden file; UPDATE_GOLDEN=1 writes it anew."""

    def compare(path, text):
        if os.environ.get("UPDATE_GOLDEN"):
            path.write_text(text)
        assert text == path.read_text()

    return compare
