"""A condition on a header of a request or response (routes, retries)."""

import enum
from collections.abc import Sequence
from typing import Self

from pydantic import model_validator

from meshd.model.errors import Violation
from meshd.model.resource import Spec
from meshd.rules.checks import header_name


class HeaderMatchType(enum.StrEnum):
    """How a header is compared."""

    EXACT = "Exact"
    PRESENT = "Present"
    REGULAR_EXPRESSION = "RegularExpression"
    ABSENT = "Absent"
    PREFIX = "Prefix"


class HeaderMatch(Spec):
    """``value`` is text, the beginning of one or a regular expression (RE2); none if only presence is asked for."""

    type: HeaderMatchType = HeaderMatchType.EXACT
    name: str
    value: str = ""

    @model_validator(mode="after")
    def _written_out(self) -> Self:
        self.write_out("type")
        return self


def violations(matches: Sequence[HeaderMatch] | None, path: str) -> list[Violation]:
    """Everything wrong with a list of conditions that stands at ``path``."""
    found: list[Violation] = []
    for index, match in enumerate(matches or ()):
        place = f"{path}[{index}]"
        found += header_name(f"{place}.name", match.name)
        if match.type in (HeaderMatchType.PRESENT, HeaderMatchType.ABSENT) and match.value:
            found.append(Violation(f"{place}.value", f'must not be set with type {match.type}: "{match.value}"'))
    return found
