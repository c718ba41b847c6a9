"""What is shown of queries to people, if they want it: lines of a log, and the names that are asked for most.

A resolver that shows nothing has no ``Watch`` at all, so that it costs nothing.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from meshd.dns import wire
from meshd.dns.answer import QTYPES
from meshd.dns.guard import unpacked
from meshd.dns.top import Ranking, TopNames

CLASSES = {1: "", 3: "CH/", 4: "HS/", 254: "NONE/", 255: "ANY/"}
QUESTION_AT = wire.HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Seen:
    """One answered query. ``at``: when it was answered, in seconds since the epoch.

    ``host`` is the client's packed address, ``question`` the question section as sent, empty if there was none that
    could be read. ``path``: how the answer was found (fast, slow, cached, forwarded, stale), ``took_s`` the seconds
    from receipt to answer.
    """

    at: float
    host: bytes
    transport: str
    question: bytes
    rcode: str
    path: str
    took_s: float


class Sampler:
    """Picks one in so many, at random: of a client's A and AAAA, every second is always the same.

    ``randint`` gives a whole number between two, both included.
    """

    def __init__(self, one_in: int, randint: Callable[[int, int], int]) -> None:
        self._most = 2 * one_in - 1
        self._randint = randint
        self._left = randint(1, self._most)

    def take(self) -> bool:
        """Whether this one is picked."""
        self._left -= 1
        if self._left:
            return False
        self._left = self._randint(1, self._most)
        return True


class Watch:
    """Notes answered queries. ``put`` takes what is to be logged, of which ``sampler`` picks some; both may be missing.

    Lives in one loop.
    """

    def __init__(self, put: Callable[[Seen], None] | None, sampler: Sampler, top: TopNames | None) -> None:
        self._put = put
        self._sampler = sampler
        self._top = top

    def note(
        self, host: bytes, transport: str, question: bytes, rcode: str, path: str, *, at: float, took_s: float
    ) -> None:
        """See ``Seen``."""
        if self._top is not None and question:
            self._top.tick(at)
            self._top.add((question[:-4].lower(), rcode))
        if self._put is not None and self._sampler.take():
            self._put(Seen(at, host, transport, question, rcode, path, took_s))

    def ranking(self, now: float) -> Ranking:
        """The names that were asked for most, as text."""
        return [(name_text(n), rcode, count) for (n, rcode), count in (self._top.ranking(now) if self._top else ())]


def question_of(message: bytes) -> bytes:
    """The question section of a query whose header is whole; empty if it has none that can be read."""
    try:
        _, end = wire.labels_at(message, QUESTION_AT)
    except wire.MalformedError:
        return b""
    return message[QUESTION_AT : end + 4] if end + 4 <= len(message) else b""


def name_text(name: bytes) -> str:
    """A name in wire form as text that cannot be taken for anything else: printable ASCII without a space.

    Dots and backslashes inside of labels have a backslash before them, all other bytes that are not letters, digits or
    plain signs are three decimal digits after one. Source: RFC 1035 section 5.1.
    """
    out = []
    at = 0
    while at < len(name) and name[at]:
        label = name[at + 1 : at + 1 + name[at]]
        out.append("".join(map(escaped, label)))
        at += 1 + name[at]
    return ".".join(out) or "."


def escaped(byte: int) -> str:
    """One byte of a label."""
    char = chr(byte)
    if char in '.\\"':
        return "\\" + char
    return char if 0x21 <= byte <= 0x7E else f"\\{byte:03d}"


def type_text(question: bytes) -> str:
    """Type, and class if it is not IN, of a question section: ``A``, ``TYPE4711``, ``CH/TXT``."""
    qtype, qclass = int.from_bytes(question[-4:-2]), int.from_bytes(question[-2:])
    return CLASSES.get(qclass, f"CLASS{qclass}/") + QTYPES.get(qtype, f"TYPE{qtype}")


def fields(seen: Seen) -> dict[str, str | int]:
    """What a line says, in its order."""
    at = datetime.fromtimestamp(seen.at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {
        "time": at,
        "client": str(unpacked(seen.host)) if seen.host else "-",
        "transport": seen.transport,
        "name": name_text(seen.question[:-4]) if seen.question else "-",
        "type": type_text(seen.question) if seen.question else "-",
        "rcode": seen.rcode,
        "path": seen.path,
        "us": round(seen.took_s * 1_000_000),
    }


def text_line(seen: Seen) -> str:
    """``2026-01-02T03:04:05.678901Z 10.0.0.7 udp web.mesh A NOERROR fast 41``: words with one space between."""
    return " ".join(map(str, fields(seen).values()))


def json_line(seen: Seen) -> str:
    """The same as one JSON object."""
    return json.dumps(fields(seen))
