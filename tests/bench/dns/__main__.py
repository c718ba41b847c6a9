"""Runs the servers in turns and prints medians."""

import argparse
import contextlib
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.dns.names import KINDS, Kind, question_files
from tests.bench.dns.peers import LAYOUTS, Peer, cpu_s, installed, running

IN_FLIGHT = 256
CLIENTS = 8
MOST_CHANGING = 1000
"""Names beside a control plane."""
SETTLE_S = 2.0
"""After which its first work is done, and a worker answers."""
PACED = 5000
"""Queries a second at which latencies are taken."""


@dataclass(frozen=True, slots=True)
class Run:
    """Queries a second, CPU microseconds a query, and how many had no answer."""

    per_s: float
    cpu_us: float
    lost: int


def dnsperf(peer: Peer, questions: Path, seconds: float, *options: str) -> str:
    command = [
        "dnsperf",
        "-s",
        "127.0.0.1",
        "-p",
        str(peer.port),
        "-d",
        str(questions),
        "-l",
        f"{seconds:g}",
        "-t",
        "2",
    ]
    cores = sorted(os.sched_getaffinity(0))
    done = subprocess.run(
        ["taskset", "-c", str(cores[-1]), *command, *options], capture_output=True, text=True, check=True
    )
    return done.stdout


def number(output: str, label: str) -> float:
    found = re.search(rf"{label}:\s+([\d.]+)", output)
    if found is None:
        raise ValueError(f"dnsperf did not say {label!r}: {output[-500:]}")
    return float(found[1])


def flood(peer: Peer, folder: Path, kind: Kind, seconds: float) -> Run:
    """As many queries as it answers, so many in flight."""
    before = cpu_s(peer.pid)
    output = dnsperf(
        peer, folder / f"questions-{kind.file}", seconds, "-q", str(IN_FLIGHT), "-c", str(CLIENTS), *kind.options
    )
    answered = number(output, "Queries completed")
    used = cpu_s(peer.pid) - before
    return Run(number(output, "Queries per second"), used / answered * 1e6, int(number(output, "Queries lost")))


def paced(peer: Peer, folder: Path, seconds: float) -> list[float]:
    """Latencies in milliseconds at a fixed rate; infinite for what had no answer."""
    output = dnsperf(peer, folder / "questions-plain", seconds, "-Q", str(PACED), "-c", str(CLIENTS), "-v")
    answered = [float(line.split()[-1]) * 1e3 for line in output.splitlines() if line.startswith("> NOERROR")]
    return answered + [math.inf] * int(number(output, "Queries lost"))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def row(name: str, cells: Iterable[str]) -> None:
    print(f"| {name} | " + " | ".join(cells) + " |")


def print_floods(runs: dict[tuple[str, str], list[Run]], servers: list[str], kinds: list[str]) -> None:
    row("server", [f"{KINDS[kind].title}: 1,000/s; CPU us; meshd's share of it" for kind in kinds])
    row("---", ["---"] * len(kinds))
    for name in servers:
        cells = []
        for kind in kinds:
            mine, ours = runs[name, kind], runs["meshd", kind]
            cpu = statistics.median(r.cpu_us for r in mine)
            share = statistics.median(o.cpu_us / m.cpu_us for o, m in zip(ours, mine, strict=True))
            lost = sum(r.lost for r in mine)
            cells.append(
                f"{statistics.median(r.per_s for r in mine) / 1000:.0f}; {cpu:.1f}; {share:.2f}"
                + (f" ({lost} lost)" if lost else "")
            )
        row(name, cells)


def print_paced(latencies: dict[str, list[list[float]]]) -> None:
    row(f"server, {PACED} queries/s", ["p50 ms", "p99 ms", "worst p99"])
    row("---", ["---"] * 3)
    for name, rounds in latencies.items():
        p50 = statistics.median(percentile(values, 0.5) for values in rounds)
        p99 = [percentile(values, 0.99) for values in rounds]
        row(name, [f"{p50:.3f}", f"{statistics.median(p99):.3f}", f"{max(p99):.3f}"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.dns")
    parser.add_argument("--names", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--servers", nargs="+", default=installed(), choices=installed())
    parser.add_argument("--layouts", nargs="*", default=list(LAYOUTS), choices=list(LAYOUTS))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    options = parser.parse_args()
    if not shutil.which("dnsperf") or not shutil.which("taskset"):
        sys.exit("needs dnsperf (Debian's package of that name) and taskset")
    servers = [name for name in installed() if name in {"meshd", *options.servers}]
    runs: dict[tuple[str, str], list[Run]] = {}
    latencies: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        folder = Path(made)
        question_files(folder, options.names, random.Random(1))
        peers = [stack.enter_context(running(name, folder / name, options.names)) for name in servers]
        for kind in options.kinds:
            for _ in range(options.rounds):
                for peer in peers:
                    found = flood(peer, folder, KINDS[kind], options.seconds)
                    runs.setdefault((peer.name, kind), []).append(found)
            print(f"{kind}: done, load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
        for _ in range(options.rounds):
            for peer in peers:
                latencies.setdefault(peer.name, []).append(paced(peer, folder, options.seconds))
        for name in options.layouts:
            with running(name, folder / name.replace(", ", "-"), min(options.names, MOST_CHANGING)) as peer:
                time.sleep(SETTLE_S)
                latencies[f"meshd, {name}"] = [paced(peer, folder, options.seconds) for _ in range(options.rounds)]
    print(
        f"{options.names:,} names, {options.rounds} rounds of {options.seconds:g} s, medians;"
        f" {IN_FLIGHT} in flight; load average {os.getloadavg()[0]:.1f} at the end"
    )
    print_floods(runs, servers, options.kinds)
    print()
    print_paced(latencies)


if __name__ == "__main__":
    main()
