"""Long work in steps: a generator that yields wherever it may be interrupted, and returns its result.

``runtime.steps.in_steps`` runs one beside everything else; ``finished`` at once.
"""

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
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


def portions(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in turn, so many at a time."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some
