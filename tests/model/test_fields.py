from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from meshd.model.fields import Bytes, UInt64, format_timestamp, parse_timestamp
from meshd.model.resource import Spec


class Sample(Spec):
    data: Bytes = b""
    count: UInt64 = 0


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_read_as_written(moment):
    assert parse_timestamp(format_timestamp(moment)) == moment


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 120000, tzinfo=UTC), "2026-01-02T03:04:05.120Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 1, tzinfo=UTC), "2026-01-02T03:04:05.000001Z"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T01:04:05Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
    ],
)
def test_times_are_utc_with_as_few_decimals_as_needed(moment, text):
    assert format_timestamp(moment) == text


def test_nanoseconds_are_cut():
    assert parse_timestamp("2026-01-02T03:04:05.123456789Z").microsecond == 123456


@pytest.mark.parametrize("text", ["2026-01-02T03:04:05", "yesterday", "", "2026-13-01T00:00:00Z"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="time"):
        parse_timestamp(text)


@pytest.mark.parametrize("text", ["-_8=", "+/8=", "-_8"])
def test_both_base64_alphabets_are_read_and_the_standard_one_is_written(text):
    sample = Sample.model_validate_json(f'{{"data": "{text}"}}', strict=True)
    assert sample.data == b"\xfb\xff"
    assert sample.model_dump(mode="json")["data"] == "+/8="


@pytest.mark.parametrize("text", ["%", "a", "a b"])
def test_what_is_not_base64_is_refused(text):
    with pytest.raises(ValidationError, match="base64"):
        Sample.model_validate_json(f'{{"data": "{text}"}}', strict=True)


def test_big_numbers_are_text_in_json_and_read_in_both_forms():
    for form in ('"18446744073709551615"', "18446744073709551615"):
        sample = Sample.model_validate_json(f'{{"count": {form}}}', strict=True)
        assert sample.model_dump(mode="json")["count"] == "18446744073709551615"
    with pytest.raises(ValidationError):
        Sample.model_validate_json('{"count": "18446744073709551616"}', strict=True)
