from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.model.duration import format_duration, format_go_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("0", 0),
        ("0s", 0),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        (".5m", 30),
        ("1h30m", 5400),
        ("1h0m0s", 3600),
        ("7d", 604800),
        ("1w", 604800),
        ("10y", 315360000),
        ("-1s", -1),
        ("3µs", 3e-6),
        ("3us", 3e-6),
        ("999ns", 0),
    ],
)
def test_go_durations(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "10", "s", "1s ", " 1s", "1 s", "1x", "1s2", "--1s", "1e3s", "1" * 65 + "s", "³s"]
)
def test_what_is_no_duration_is_named(text):
    with pytest.raises(ValueError, match="is not a duration; write a number with a unit"):
        parse_duration(text)


def test_endless_duration_is_refused():
    with pytest.raises(ValueError, match="ten thousand years"):
        parse_duration("20000y")


@given(st.timedeltas(timedelta(days=-4000), timedelta(days=4000)))
def test_what_is_written_is_read(length):
    assert parse_duration(format_duration(length)) == length


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(minutes=1), "60s"),
        (timedelta(milliseconds=250), "0.250s"),
        (timedelta(microseconds=-1500001), "-1.500001s"),
        (timedelta(), "0s"),
    ],
)
def test_protobuf_form(length, text):
    assert format_duration(length) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (3e-6, "3µs"),
        (0.0015, "1.5ms"),
        (0.25, "250ms"),
        (1.5, "1.5s"),
        (90, "1m30s"),
        (3600, "1h0m0s"),
        (7200.000001, "2h0m0.000001s"),
        (90000, "25h0m0s"),
        (-60, "-1m0s"),
    ],
)
def test_go_form(seconds, text):
    assert format_go_duration(timedelta(seconds=seconds)) == text


@given(st.timedeltas(timedelta(days=-3000), timedelta(days=3000)))
def test_go_form_is_read_back(length):
    assert parse_duration(format_go_duration(length)) == length
