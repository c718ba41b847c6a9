import io
import json
import logging

import pytest

from meshd.runtime.log import set_up


@pytest.fixture
def logged():
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()

    def start(level, form):
        set_up(level, form, stream)
        return stream

    yield start
    root.handlers[:] = before
    root.setLevel(level)


def test_text_is_one_line_even_when_a_peer_sends_line_breaks(logged):
    stream = logged("info", "text")
    logging.getLogger("meshd.x").info("peer said %s", "a\nb\x1b[31m")
    logging.getLogger("meshd.x").debug("unseen")
    assert stream.getvalue().endswith("Z INFO meshd.x: peer said a\\nb\\x1b[31m\n")
    assert stream.getvalue().count("\n") == 1


def test_json_is_one_object_a_line_with_the_traceback_inside(logged):
    stream = logged("debug", "json")
    try:
        int("no")
    except ValueError:
        logging.getLogger("meshd.x").exception("failed zone=%s", "a")
    entry = json.loads(stream.getvalue())
    assert entry["level"] == "error"
    assert entry["message"] == "failed zone=a"
    assert entry["error"].endswith("'no'")


def test_libraries_are_quiet_until_debug(logged):
    stream = logged("info", "text")
    logging.getLogger("httpx").info("GET /")
    assert stream.getvalue() == ""
    logged("debug", "text")
    logging.getLogger("httpx").info("GET /")
    assert "GET /" in stream.getvalue()
