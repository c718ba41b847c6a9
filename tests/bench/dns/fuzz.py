"""Feeds bytes to both roads for as long as is wanted: no exception, the same answer from both, and one that parses.

``python -m tests.bench.dns.fuzz --seconds 3600``. A failure prints the message in hexadecimal, and ends it.
"""

import argparse
import random
import sys
import time

import dns.exception
import dns.message
import dnslib

from meshd.dns import answer, wire
from meshd.dns.cookies import Cookies
from meshd.dns.table import Change, Entry, NameTable
from meshd.dns.wire import name_to_wire
from tests.bench.dns.generated import damaged, query
from tests.dns.support import quickly, table

HOST = b"\x7f\0\0\1"
BATCH = 200


def tables() -> list[NameTable]:
    """With and without upstreams, and one that knows nothing yet."""
    found = [table(), table(recursive=True), NameTable("mesh", recursive=False, is_known=False)]
    names = {name_to_wire(f"service-{i}.mesh"): Entry(bytes((240, 0, 1, i)), ((80, "http"),)) for i in (0, 7)}
    for made in found[:2]:
        made.change(Change({**names, name_to_wire("a.b.mesh"): Entry(bytes((240, 0, 2, 1)))}))
    return found


def check(message: bytes, names: NameTable, cookies: Cookies) -> None:
    """Raises for any message that is not answered as it must be."""
    slow = answer.respond(message, names, lambda cookie: cookies.option(cookie, HOST))
    quick = quickly(message, names, cookies, HOST)
    if quick is not None:
        assert isinstance(slow, answer.Answer), "only the fast road answers"
        assert quick[0] == slow.wire, "the roads differ"
        assert quick[1] == (slow.qtype, slow.rcode), "the roads count differently"
    answer.short(message, refuse=False)
    answer.cookie_of(message)
    if not isinstance(slow, answer.Answer):
        return
    reply = slow.wire
    assert reply[:2] == message[:2], "another id"
    assert reply[2] & 0x80, "no response"
    if len(reply) == wire.HEADER_BYTES:
        return
    query_of = wire.parse_query(message)
    assert len(reply) <= query_of.udp_limit, "longer than the client takes"
    assert reply[12 : 12 + len(query_of.question)] == query_of.question, "another question"
    dns.message.from_wire(reply)
    if all(is_text(label) for label in query_of.labels):  # dnslib takes no others, though they are legal
        dnslib.DNSRecord.parse(reply)


def is_text(label: bytes) -> bool:
    try:
        label.decode()
    except UnicodeDecodeError:
        return False
    return True


def run(seconds: float, seed: int) -> int:
    """How many messages were tried; ends the process at the first failure."""
    rng = random.Random(seed)
    cookies = Cookies(b"secret", 1.8e9)
    all_tables = tables()
    until = time.monotonic() + seconds
    count = 0
    while time.monotonic() < until:
        for _ in range(BATCH):
            message = query(rng) if rng.random() < 0.9 else rng.randbytes(rng.randrange(80))
            if rng.random() < 0.1:
                message = damaged(message or b"\0", rng)
            try:
                check(message, rng.choice(all_tables), cookies)
            except (Exception, dns.exception.DNSException):
                print(f"seed {seed}, message {count}: {message.hex()}", file=sys.stderr)
                raise
            count += 1
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    given = parser.parse_args()
    before = time.process_time()
    tried = run(given.seconds, given.seed)
    print(f"{tried:,} messages in {time.process_time() - before:.0f} s of CPU, seed {given.seed}: no failure")
