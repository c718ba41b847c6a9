"""The names that all servers are given, as each of them wants them, and the questions about them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

FIRST = int(IPv4Address("240.0.0.1"))
APEX = "mesh. 30 IN SOA mesh. nobody.invalid. 1 3600 1200 604800 5\nmesh. 30 IN NS mesh.\n"
QUESTIONS = 20_000
"""Lines in a file of questions: so many that spellings and misses do not repeat soon."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of query: the lines of dnsperf's input, and its options."""

    title: str
    file: str
    options: tuple[str, ...] = ()


KINDS = {
    "plain": Kind("A of a name", "plain"),
    "case": Kind("A, random case", "case"),
    "nxdomain": Kind("NXDOMAIN, ever new names", "nxdomain"),
    "nodata": Kind("NODATA (HTTPS)", "nodata"),
    "edns": Kind("A with EDNS", "plain", ("-e",)),
    "cookie": Kind("A with a cookie", "plain", ("-e", "-E", "10:0102030405060708")),
    "tcp": Kind("A by TCP", "plain", ("-m", "tcp")),
}


def addresses(count: int) -> Iterator[tuple[str, IPv4Address]]:
    """``service-0.mesh`` and so on."""
    for i in range(count):
        yield f"service-{i}.mesh", IPv4Address(FIRST + i)


def zone_file(path: Path, count: int) -> None:
    """A master file (RFC 1035 section 5) with an A and an AAAA record for each name, as the resolver answers them."""
    with path.open("w") as out:
        out.write(APEX)
        for name, address in addresses(count):
            out.write(f"{name}. 30 IN A {address}\n{name}. 30 IN AAAA ::ffff:{address}\n")


def hosts_file(path: Path, count: int) -> None:
    """The same in the form of /etc/hosts."""
    path.write_text("".join(f"{address} {name}\n::ffff:{address} {name}\n" for name, address in addresses(count)))


def local_data(path: Path, count: int) -> None:
    """The same as unbound wants it."""
    with path.open("w") as out:
        out.write('local-zone: "mesh." static\nlocal-data: "' + APEX.strip().replace("\n", '"\nlocal-data: "') + '"\n')
        for name, address in addresses(count):
            out.write(f'local-data: "{name}. 30 IN A {address}"\nlocal-data: "{name}. 30 IN AAAA ::ffff:{address}"\n')


def question_files(folder: Path, count: int, rng: random.Random) -> None:
    """dnsperf's input for each kind."""
    names = [f"service-{rng.randrange(count)}.mesh" for _ in range(QUESTIONS)]
    spelled = ["".join(rng.choice((c.lower(), c.upper())) for c in name) for name in names]
    missing = [f"{rng.getrandbits(64):016x}.mesh" for _ in range(QUESTIONS)]
    for file, lines in {
        "plain": [f"{name} A" for name in names],
        "case": [f"{name} A" for name in spelled],
        "nxdomain": [f"{name} A" for name in missing],
        "nodata": [f"{name} HTTPS" for name in names],
    }.items():
        (folder / f"questions-{file}").write_text("\n".join(lines) + "\n")
