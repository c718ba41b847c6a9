"""What a resolver and its worker processes say to each other, as bytes; the pure part.

From the resolver: one ``Start``, then ``Change`` after ``Change`` and once, when the table is whole, ``SERVE``. These
are pickled: they come from the process that started the worker. From a worker: JSON objects, since it reads what
anybody sends; ``{"serving": true}`` once, then its counts, every second.
"""

import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from meshd.dns.settings import DnsSettings
from meshd.dns.table import Change, Entry
from meshd.model.steps import portions

LENGTH_BYTES: Final = 4
MAX_REPORT_BYTES: Final = 1 << 20
SERVE: Final = "serve"
NAMES_A_MESSAGE: Final = 200
"""About a third of a millisecond to encode."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a worker must know before anything else. The sockets are open files of its process."""

    settings: DnsSettings
    secret: bytes
    recursive: bool
    udp: int
    tcp: tuple[int, ...]
    log_level: str
    log_format: str


def framed(message: bytes) -> bytes:
    """A message with its length before it."""
    return len(message).to_bytes(LENGTH_BYTES) + message


def frames(data: bytes, limit: int | None = None) -> tuple[list[bytes], bytes]:
    """The whole messages at the front of the bytes, and the rest.

    Raises:
        ValueError: one says that it is longer than ``limit`` bytes.
    """
    found, offset = [], 0
    while len(data) - offset >= LENGTH_BYTES:
        length = int.from_bytes(data[offset : offset + LENGTH_BYTES])
        if limit is not None and length > limit:
            raise ValueError(f"a message of {length} bytes is longer than {limit}")
        end = offset + LENGTH_BYTES + length
        if end > len(data):
            break
        found.append(data[offset + LENGTH_BYTES : end])
        offset = end
    return found, data[offset:]


def order(what: Start | Change | str) -> bytes:
    """What the resolver says, framed."""
    return framed(pickle.dumps(what, protocol=pickle.HIGHEST_PROTOCOL))


def read_order(message: bytes) -> Start | Change | str:
    """The other way round."""
    what = pickle.loads(message)  # noqa: S301  # our own parent's, over a socket that nobody else has
    if not isinstance(what, Start | Change | str):
        raise TypeError(f"an order of type {type(what).__name__}")
    return what


def report(what: Mapping[str, Any]) -> bytes:
    """What a worker says, framed."""
    return framed(json.dumps(what).encode())


class Pending:
    """What a worker has not been told yet: of each name the newest, so it is never more than there are names."""

    def __init__(self) -> None:
        self._names: dict[bytes, Entry | None] = {}
        self._titles: dict[bytes, bytes | None] = {}
        self._is_known: bool | None = None

    def __bool__(self) -> bool:
        return bool(self._names or self._titles) or self._is_known is not None

    def add(self, change: Change) -> None:
        """Add what is to be told."""
        self._names.update(change.names)
        self._titles.update(change.titles)
        if change.is_known is not None:
            self._is_known = change.is_known

    def take(self) -> Iterator[Change]:
        """Take it all out, in portions; that the names are known comes last."""
        names, titles, is_known = self._names, self._titles, self._is_known
        self._names, self._titles, self._is_known = {}, {}, None
        for some in portions(names.items(), NAMES_A_MESSAGE):
            yield Change(names=dict(some))
        for titled in portions(titles.items(), NAMES_A_MESSAGE):
            yield Change(titles=dict(titled))
        if is_known is not None:
            yield Change(is_known=is_known)
