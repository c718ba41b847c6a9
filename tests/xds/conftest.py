"""Fixtures of all tests of xds."""

import pytest

from meshd.xds.encode import encode, message_class
from tests.xds.documents import IN_ANY, TOP


@pytest.fixture(autouse=True, scope="session")
def known_types():
    """Load the generated classes once: it takes long, and they read an Any only of a known type."""
    for type_url in (*TOP, *IN_ANY):
        message_class(type_url)
        encode(type_url, {})
