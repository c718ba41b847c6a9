"""Long work in steps: a generator that yields wherever it may be interrupted, and returns its result.

``runtime.steps.in_steps`` runs one beside everything else; ``finished`` at once.
"""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]


def finished(work: Steps[T]) -> T:
    """What ``work`` returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
