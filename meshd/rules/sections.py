"""Which of ``to``, ``from`` and ``rules`` a policy for both directions may have together."""

from collections.abc import Iterator, Sequence
from typing import Any

from meshd.model.errors import Violation


def sections_violations(
    to: Sequence[Any] | None, from_: Sequence[Any] | None, rules: Sequence[Any] | None
) -> Iterator[Violation]:
    """What is wrong with the sections that a policy has: one at least, and ``rules`` only alone."""
    if rules and (to or from_):
        yield Violation("spec", "fields 'to' and 'from' must be empty when 'rules' is defined")
    if not (to or from_ or rules):
        yield Violation("spec", "at least one of 'from', 'to' or 'rules' has to be defined")
