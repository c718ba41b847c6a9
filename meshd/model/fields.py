"""Types of spec fields that several kinds share, with their JSON forms (protobuf's canonical ones, as Kuma prints)."""

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue, PlainSerializer

from meshd.model.duration import format_duration, format_go_duration, parse_duration


def _read_duration(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else _only(value, timedelta, "a duration such as '10s'")


def _read_timestamp(value: Any) -> Any:
    if isinstance(value, str):
        return parse_timestamp(value)
    return _only(value, datetime, "a time such as '2026-01-02T03:04:05Z'")


def _read_bytes(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return base64.b64decode(value.translate(_STANDARD) + "=" * (-len(value) % 4), validate=True)
        except binascii.Error as error:
            raise ValueError(f"is not base64 ({error})") from None
    return _only(value, bytes, "base64 text")


def _read_number_or_text(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        message = f'must be a whole number, or a number in quotes such as "12.5", not {value!r}'
        raise ValueError(message)  # noqa: TRY004 - as below
    return value


def _read_uint64(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _only(value: Any, wanted: type, hint: str) -> Any:
    if not isinstance(value, wanted):
        raise ValueError(f"must be {hint}, not {value!r}")  # noqa: TRY004 - pydantic collects ValueErrors only
    return value


_STANDARD = str.maketrans("-_", "+/", "\n\r")


def parse_timestamp(text: str) -> datetime:
    """The UTC time that an RFC 3339 text says; what is finer than a microsecond is cut off.

    Raises:
        ValueError: the text is no RFC 3339 time or has no offset.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time; write it as '2026-01-02T03:04:05Z'") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; end it with 'Z'")
    return moment.astimezone(UTC)


def format_timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with a "Z" and 0, 3 or 6 decimals."""
    moment = moment.astimezone(UTC)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S") if moment.year >= 1000 else moment.isoformat()[:19]
    micros = moment.microsecond
    if micros % 1000:
        text += f".{micros:06d}"
    elif micros:
        text += f".{micros // 1000:03d}"
    return text + "Z"


def format_bytes(data: bytes) -> str:
    """Base64 with padding, the standard alphabet."""
    return base64.b64encode(data).decode("ascii")


UInt32 = Annotated[int, Field(ge=0, le=2**32 - 1)]
UInt64 = Annotated[
    int, BeforeValidator(_read_uint64), Field(ge=0, le=2**64 - 1), PlainSerializer(str, when_used="json")
]
"""Decimal text in JSON, as protobuf's JSON has 64-bit numbers."""
Tags = Mapping[str, str]
NO_TAGS: Tags = {}
"""The default of tags; pydantic copies it for every instance."""
Struct = Mapping[str, JsonValue]
Duration = Annotated[timedelta, BeforeValidator(_read_duration), PlainSerializer(format_duration, when_used="json")]
"""In JSON a Go duration ("1m30s") is read and protobuf's form ("90s") is written."""
GoDuration = Annotated[
    timedelta, BeforeValidator(_read_duration), PlainSerializer(format_go_duration, when_used="json")
]
"""In JSON Go's form is read and written ("1h0m0s"), as in the kinds that travel as JSON."""
NumberOrText = Annotated[int | str, BeforeValidator(_read_number_or_text)]
"""Kubernetes' IntOrString: a whole number, or any number as text ("12.5")."""
Timestamp = Annotated[datetime, BeforeValidator(_read_timestamp), PlainSerializer(format_timestamp, when_used="json")]
"""Always UTC. RFC 3339 in JSON."""
Bytes = Annotated[bytes, BeforeValidator(_read_bytes), PlainSerializer(format_bytes, when_used="json")]
"""Base64 in JSON; the URL alphabet and missing padding are read too, as Go's protobuf JSON does."""
