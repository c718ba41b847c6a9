"""Thousands of queries to meshd and to a server of the same zone; every difference must be one that is explained.

``python -m tests.bench.dns.differential --queries 10000 --reference NSD``. Prints how often which difference was seen,
as the table in this folder's README; ends with an error if one is not in ``REASONS``.
"""

import argparse
import random
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.rcode

from meshd.dns import answer, wire
from tests.bench.dns import generated
from tests.bench.dns.peers import Peer, installed, running

NAMES = 1000
SENTINEL = bytes.fromhex("beef0100000100000000000009736572766963652d31046d65736800001c0001")
WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client makes of an answer; all empty for silence. ``flags`` are AA, TC, RA, RD, AD, CD, as set."""

    rcode: str = "silence"
    flags: frozenset[str] = frozenset()
    question: str = ""
    answers: frozenset[str] = frozenset()
    authority: frozenset[str] = frozenset()
    edns: bool = False


class Client:
    """Asks one server, one question after the other."""

    def __init__(self, peer: Peer) -> None:
        self._sock = socket.socket(type=socket.SOCK_DGRAM)
        self._sock.settimeout(WAIT_S)
        self._sock.connect(("127.0.0.1", peer.port))

    def ask(self, message: bytes) -> bytes | None:
        """The answer, or None for silence: the server has answered two later questions and not this one."""
        found = None
        self._sock.send(message)
        for _ in range(2):
            self._sock.send(SENTINEL)
            while (reply := self._sock.recv(65535))[:2] != SENTINEL[:2]:
                found = reply
        return found

    def close(self) -> None:
        self._sock.close()


def seen(reply: bytes | None) -> Seen:
    if reply is None:
        return Seen()
    try:
        parsed = dns.message.from_wire(reply)
    except dns.exception.DNSException as error:
        return Seen(rcode=f"unreadable: {type(error).__name__}")
    words = {"AA": dns.flags.AA, "TC": dns.flags.TC, "RA": dns.flags.RA, "RD": dns.flags.RD}
    words |= {"AD": dns.flags.AD, "CD": dns.flags.CD}
    return Seen(
        dns.rcode.to_text(parsed.rcode()),
        frozenset(word for word, bit in words.items() if parsed.flags & bit),
        " ".join(map(str, parsed.question)),
        frozenset(line.lower() for rrset in parsed.answer for line in str(rrset).splitlines()),
        frozenset(line.lower() for rrset in parsed.authority for line in str(rrset).splitlines()),
        parsed.edns >= 0,
    )


@dataclass(frozen=True, slots=True)
class Case:
    """One query and both answers."""

    message: bytes
    ours: Seen
    theirs: Seen

    @property
    def query(self) -> wire.Query | None:
        """The query as our parser sees it; None if it is malformed."""
        try:
            return wire.parse_query(self.message)
        except wire.MalformedError:
            return None

    @property
    def opcode(self) -> int:
        return self.message[2] >> 3 & 0xF

    @property
    def is_odd(self) -> bool:
        """Whether there is more to a well-formed query than its question, RD, AD, CD and an OPT."""
        flags, additionals = int.from_bytes(self.message[2:4]), int.from_bytes(self.message[10:12])
        known = wire.RD | wire.AD | wire.CD
        return self.query is not None and (bool(flags & ~known) or (additionals > 0) != (self.query.edns is not None))

    @property
    def cookies(self) -> int:
        """How many cookies an OPT right behind the question has."""
        rest = self.message[wire.HEADER_BYTES + len(self.query.question) :] if self.query else b""
        found, offset = 0, 11
        while rest.startswith(answer.OPT_HEAD) and offset < len(rest):
            found += int.from_bytes(rest[offset : offset + 2]) == wire.COOKIE
            offset += 4 + int.from_bytes(rest[offset + 2 : offset + 4])
        return found

    def asks(self, *types: int) -> bool:
        return self.query is not None and self.query.qtype in types

    def is_under(self, *stems: str) -> bool:
        name = b".".join(self.query.labels).decode(errors="replace").lower() if self.query else ""
        return any(name == stem or name.endswith("." + stem) for stem in stems)

    def differs_in(self, *fields: str) -> bool:
        """Whether the answers differ in these and nothing else."""
        theirs = {field: getattr(self.theirs, field) for field in fields}
        return replace(self.ours, **theirs) == self.theirs


META = (41, 249, 250, 251, 252, 253, 254)
REASONS: list[tuple[str, Callable[[Case], bool]]] = [
    (
        "CD comes back as it was asked (RFC 4035 3.2.2, for resolvers); an authoritative server clears it",
        lambda case: case.differs_in("flags") and case.ours.flags ^ case.theirs.flags == {"CD"},
    ),
    (
        "Another opcode: NOTIMP and the header alone; they know NOTIFY and UPDATE, add the question, or are silent",
        lambda case: case.opcode != 0 and case.ours == Seen("NOTIMP", case.ours.flags & {"RD", "CD"}),
    ),
    (
        "Malformed: FORMERR and the header alone; they answer what they could read of it, or are silent",
        lambda case: case.query is None and case.ours == Seen("FORMERR", case.ours.flags & {"RD", "CD"}),
    ),
    (
        "Types that are no data (AXFR, IXFR, OPT, TKEY, MAILB): REFUSED; they say NOTIMP, NOTAUTH, or look them up",
        lambda case: case.asks(*META) and case.ours.rcode == "REFUSED",
    ),
    (
        "Another class than IN: REFUSED with the question; they answer class ANY, or leave the question out",
        lambda case: case.query is not None and case.query.qclass != 1 and case.ours.rcode == "REFUSED",
    ),
    (
        "SRV and TXT names of services, which only meshd makes",
        lambda case: case.is_under("_tcp.service-0.mesh", "_meshd.service-0.mesh") and case.ours.rcode == "NOERROR",
    ),
    (
        "Type 0: looked up like any other; Knot says NOTIMP",
        lambda case: case.asks(0) and case.theirs.rcode == "NOTIMP",
    ),
    (
        "ANY: one record (RFC 8482); they give one set, or all",
        lambda case: case.asks(255) and len(case.ours.answers) <= 1 <= len(case.theirs.answers),
    ),
    (
        "BADVERS: NSD copies TC, or AA and RA, from the query",
        lambda case: case.ours.rcode == case.theirs.rcode == "BADVERS" and case.differs_in("flags"),
    ),
    (
        "Flags or an additional record that a query has no use for: ignored; NSD says FORMERR, or nothing",
        lambda case: case.theirs.rcode in ("FORMERR", "silence") and case.is_odd,
    ),
    (
        "NSD adds the zone's NS record to answers",
        lambda case: (
            case.differs_in("flags", "authority")
            and (case.ours.flags ^ case.theirs.flags) <= {"CD"}
            and case.theirs.authority == {"mesh. 30 in ns mesh."}
        ),
    ),
    (
        "A cookie without a valid half of the server's: answered; Knot says BADCOOKIE, and makes the client ask again",
        lambda case: case.cookies > 0 and case.theirs.rcode == "BADCOOKIE",
    ),
    (
        "Two cookies: the first counts (RFC 7873 5.2); NSD says FORMERR, nothing, or what cannot be parsed",
        lambda case: case.cookies > 1 and case.theirs.rcode in ("FORMERR", "silence", "unreadable: FormError"),
    ),
]


def reason_of(case: Case) -> str | None:
    return next((text for text, applies in REASONS if applies(case)), None)


def compare(ours: Client, theirs: Client, queries: int, rng: random.Random) -> list[Case]:
    """The cases in which the answers differ."""
    found = []
    for _ in range(queries):
        message = generated.query(rng)
        if message[:2] == SENTINEL[:2]:
            continue
        case = Case(message, seen(ours.ask(message)), seen(theirs.ask(message)))
        if case.ours != case.theirs:
            found.append(case)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.dns.differential")
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    references = [name for name in ("NSD", "Knot") if name in installed()]
    parser.add_argument("--reference", choices=references, default=references[0] if references else None)
    options = parser.parse_args()
    if options.reference is None:
        sys.exit("needs NSD or Knot (Debian's packages nsd and knot)")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with (
            running("meshd", folder / "meshd", NAMES) as us,
            running(options.reference, folder / "them", NAMES) as them,
        ):
            clients = Client(us), Client(them)
            cases = compare(*clients, options.queries, random.Random(options.seed))
            for client in clients:
                client.close()
    reasons = Counter(reason_of(case) for case in cases)
    print(f"{options.queries:,} queries to meshd and {options.reference}: {len(cases):,} answers differ")
    for text, count in reasons.most_common():
        if text is not None:
            print(f"| {text} | {count:,} |")
    unexplained = [case for case in cases if reason_of(case) is None]
    for case in unexplained[:20]:
        print(f"not explained: {case.message.hex()}\n  meshd {case.ours}\n  {options.reference} {case.theirs}")
    if unexplained:
        sys.exit(f"{len(unexplained)} differences are not explained")


if __name__ == "__main__":
    main()
