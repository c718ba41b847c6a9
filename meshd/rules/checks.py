"""Checks of the values in confs that several policies share: durations, counts, percentages, names of headers.

Source: Kuma ``pkg/core/validators/common_validators.go`` (rules, not texts).
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal, InvalidOperation

from meshd.model.duration import format_go_duration
from meshd.model.errors import Violation

_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+\-.^_`|~]{1,256}\Z")
_NO_TIME = timedelta()


def longer_than_zero(path: str, value: timedelta | None) -> Iterator[Violation]:
    """What is wrong with a duration that must be longer than 0 if it is set."""
    if value is not None and value <= _NO_TIME:
        yield Violation(path, f"must be longer than 0, not {format_go_duration(value)}")


def not_negative(path: str, value: timedelta | None) -> Iterator[Violation]:
    """What is wrong with a duration for which 0 means off."""
    if value is not None and value < _NO_TIME:
        yield Violation(path, f"must not be negative: {format_go_duration(value)}")


def more_than_zero(path: str, value: int | None) -> Iterator[Violation]:
    """What is wrong with a number that must be more than 0 if it is set."""
    if value is not None and value <= 0:
        yield Violation(path, f"must be greater than 0, not {value}")


def percentage(path: str, value: int | str | None) -> Iterator[Violation]:
    """What is wrong with a percentage, a whole number or text."""
    number = decimal(value)
    if number is None:
        if value is not None:
            yield Violation(path, f'must be a number, not "{value}"')
    elif not 0 <= number <= 100:
        yield Violation(path, f"must be from 0 to 100, not {value}")


def decimal(value: int | str | None) -> Decimal | None:
    """The number that a NumberOrText says; None if it says none."""
    if value is None:
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def header_name(path: str, name: str) -> Iterator[Violation]:
    """What is wrong with the name of a header: lower case, as HTTP/2 has them."""
    if not _HEADER_NAME.match(name):
        yield Violation(path, f'"{name}" is no header name: use lower case letters, digits and "-", at most 256')
