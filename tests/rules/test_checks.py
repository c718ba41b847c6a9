from datetime import timedelta

import pytest

from meshd.rules import checks


def said(check, value):
    return [str(violation) for violation in check("at", value)]


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        (checks.longer_than_zero, None, []),
        (checks.longer_than_zero, timedelta(microseconds=1), []),
        (checks.longer_than_zero, timedelta(0), ["at: must be longer than 0, not 0s"]),
        (checks.not_negative, timedelta(0), []),
        (checks.not_negative, timedelta(seconds=-90), ["at: must not be negative: -1m30s"]),
        (checks.more_than_zero, None, []),
        (checks.more_than_zero, 1, []),
        (checks.more_than_zero, 0, ["at: must be greater than 0, not 0"]),
        (checks.percentage, None, []),
        (checks.percentage, 100, []),
        (checks.percentage, "0.0", []),
        (checks.percentage, "99.99", []),
        (checks.percentage, -1, ["at: must be from 0 to 100, not -1"]),
        (checks.percentage, "NaN", ['at: must be a number, not "NaN"']),
        (checks.percentage, "5%", ['at: must be a number, not "5%"']),
        (checks.header_name, "x-a.b_c~", []),
        (
            checks.header_name,
            "x" * 257,
            [f'at: "{"x" * 257}" is no header name: use lower case letters, digits and "-", at most 256'],
        ),
        (
            checks.header_name,
            "a\n",
            ['at: "a\n" is no header name: use lower case letters, digits and "-", at most 256'],
        ),
    ],
)
def test_values(check, value, expected):
    assert said(check, value) == expected
