"""Runs the variants in turns and prints medians. ``python -m tests.bench.loop --rounds 3 --seconds 5``."""

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

VARIANTS: dict[str, list[str]] = {
    "one loop": ["--dns", "loop", "--engine", "loop"],
    "dns thread": ["--dns", "thread", "--engine", "loop"],
    "both threads": ["--dns", "thread", "--engine", "thread"],
    "engine thread": ["--dns", "loop", "--engine", "thread"],
}
SERVICES = 1000


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"tests.bench.loop.{module}", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)


def tell(process: subprocess.Popen[str], line: str) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def measure(
    name: str, options: argparse.Namespace, tcp: subprocess.Popen[str], application: str
) -> list[dict[str, Any]]:
    """One variant: idle, then busy."""
    subject = start("subject", *VARIANTS[name], "--application", application)
    rows = []
    try:
        assert subject.stdout is not None
        ports = json.loads(subject.stdout.readline())
        opened = tell(tcp, f"{ports['engine']} {options.connections} 0")
        assert opened["open"] == options.connections, opened
        for phase in ("idle", "busy"):
            before = tell(subject, phase)
            dns = start("dns_load", str(ports["dns"]), str(options.rate), str(options.seconds), str(SERVICES))
            engine = tell(tcp, f"{ports['engine']} {options.connections} {options.seconds}")
            assert dns.stdout is not None
            answered = json.loads(dns.stdout.readline())
            dns.wait()
            after = tell(subject, phase)
            cpu = (after["cpu_s"] - before["cpu_s"]) / options.seconds
            changes = (after["changes"] - before["changes"]) / options.seconds
            assert (changes > 0) == (phase == "busy"), f"{phase}: {changes} changes a second"
            rows.append(
                {"variant": name, "phase": phase, "dns": answered, "engine": engine, "cpu": cpu, "changes": changes}
            )
            print(json.dumps(rows[-1]), file=sys.stderr)
        tell(subject, "stop")
    finally:
        subject.terminate()
        subject.wait()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=10_000)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    options = parser.parse_args()
    tcp = start("tcp_load")
    assert tcp.stdout is not None
    application = tcp.stdout.readline().strip()
    try:
        rows = [
            row
            for _ in range(options.rounds)
            for name in options.variants
            for row in measure(name, options, tcp, application)
        ]
    finally:
        tcp.terminate()
        tcp.wait()
    print(f"{options.rounds} rounds of {options.seconds:g} s; load average {os.getloadavg()[0]:.1f} at the end")
    print("| variant | control plane | dns p50 | dns p99 | dns lost % | engine p50 | engine p99 | cpu | changes/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in options.variants:
        for phase in ("idle", "busy"):
            mine = [r for r in rows if (r["variant"], r["phase"]) == (name, phase)]
            figures = [
                statistics.median(r[a][b] for r in mine)
                for a, b in (("dns", "p50_ms"), ("dns", "p99_ms"), ("engine", "p50_ms"), ("engine", "p99_ms"))
            ]
            lost = statistics.median(100 * r["dns"]["lost"] / r["dns"]["sent"] for r in mine)
            cpu = statistics.median(r["cpu"] for r in mine)
            changes = statistics.median(r["changes"] for r in mine)
            print(
                f"| {name} | {phase} | {figures[0]:.2f} ms | {figures[1]:.2f} ms | {lost:.1f} | {figures[2]:.2f} ms "
                f"| {figures[3]:.2f} ms | {cpu:.2f} | {changes:.0f} |"
            )


if __name__ == "__main__":
    main()
