"""Durations as Kuma writes them: Go's text form in, protobuf's JSON form or Go's out."""

import re
from datetime import timedelta

_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
    "w": 7 * 86400 * 10**9,
    "y": 365 * 86400 * 10**9,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d|w|y)")
_LIMIT_NS = 315_576_000_000 * 10**9
"""Ten thousand years, the longest protobuf Duration."""


def parse_duration(text: str) -> timedelta:
    """The length of time that ``text`` says: "10s", "1h30m", "250ms", "24h", "1.5s", "-1s".

    Days, weeks and years of 365 days ("7d", "1w", "10y") are read too, as Kuma allows. Resolution is a microsecond;
    what is finer is cut off.

    Raises:
        ValueError: names the text and shows a right one.
    """
    body = text[1:] if text[:1] in ("-", "+") else text
    if body == "0":
        return timedelta()
    total_ns = 0
    position = 0
    while position < len(body) and (part := _PART.match(body, position)):
        whole, _, fraction = part[1].partition(".")
        unit = _UNITS_NS[part[2]]
        total_ns += int(whole or "0") * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
        position = part.end()
    if not body or position != len(body) or len(body) > 64:
        raise ValueError(f"{text!r} is not a duration; write a number with a unit, such as '10s' or '1h30m'")
    if total_ns > _LIMIT_NS:
        raise ValueError(f"{text!r} is longer than ten thousand years")
    length = timedelta(microseconds=total_ns // 1000)
    return -length if text.startswith("-") else length


def format_duration(length: timedelta) -> str:
    """Protobuf's canonical JSON form: seconds with 0, 3 or 6 decimals, "10s", "0.250s"."""
    micros = length // timedelta(microseconds=1)
    sign = "-" if micros < 0 else ""
    seconds, rest = divmod(abs(micros), 10**6)
    if not rest:
        return f"{sign}{seconds}s"
    if rest % 1000 == 0:
        return f"{sign}{seconds}.{rest // 1000:03d}s"
    return f"{sign}{seconds}.{rest:06d}s"


def format_go_duration(length: timedelta) -> str:
    """Go's form, as Kuma prints durations in policies: "1h0m0s", "15s", "1.5s", "25ms", "0s"."""
    micros = length // timedelta(microseconds=1)
    sign, micros = ("-" if micros < 0 else ""), abs(micros)
    if micros == 0:
        return "0s"
    if micros < 1000:
        return f"{sign}{micros}µs"
    if micros < 10**6:
        return f"{sign}{_decimal(micros, 3)}ms"
    minutes, rest = divmod(micros, 60 * 10**6)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest, 6)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else f"{sign}{seconds}"


def _decimal(number: int, places: int) -> str:
    """``number`` / 10**places without trailing zeros."""
    whole, fraction = divmod(number, 10**places)
    return f"{whole}.{fraction:0{places}d}".rstrip("0") if fraction else str(whole)
