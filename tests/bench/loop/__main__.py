"""Runs the variants in turns and prints medians."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

VARIANTS: dict[str, list[str]] = {
    "one loop": ["--dns", "loop", "--engine", "loop"],
    "dns thread": ["--dns", "thread", "--engine", "loop"],
    "both threads": ["--dns", "thread", "--engine", "thread"],
    "engine thread": ["--dns", "loop", "--engine", "thread"],
}
PACES = {
    "idle": "idle",
    "50/s": "busy 50 1",
    "200/s": "busy 200 1",
    "1,000/s": "busy 1000 100",
    "all it can": "busy 0 100",
}
"""By name in the table: what the subject is told (changes per second, changes per write)."""
SERVICES = 1000
WARM_UP_S = 1.0
"""The first collection after the heap is frozen goes through all that the connections made; it comes once."""


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
    """One variant at every pace."""
    subject = start("subject", *VARIANTS[name], "--application", application)
    rows = []
    try:
        assert subject.stdout is not None
        ports = json.loads(subject.stdout.readline())
        opened = tell(tcp, f"{ports['engine']} {options.connections} 0 {subject.pid}")
        assert opened["open"] == options.connections, opened
        for phase in options.paces:
            tell(subject, PACES[phase])
            time.sleep(WARM_UP_S)
            before = tell(subject, PACES[phase])
            dns = start(
                "dns_load", str(ports["dns"]), str(options.rate), str(options.seconds), str(SERVICES), str(subject.pid)
            )
            engine = tell(tcp, f"{ports['engine']} {options.connections} {options.seconds} {subject.pid}")
            assert dns.stdout is not None
            answered = json.loads(dns.stdout.readline())
            dns.wait()
            after = tell(subject, PACES[phase])
            cpu = (after["cpu_s"] - before["cpu_s"]) / options.seconds
            changes = (after["changes"] - before["changes"]) / options.seconds
            assert (changes > 0) == (phase != "idle"), f"{phase}: {changes} changes a second"
            rows.append(
                {"variant": name, "phase": phase, "dns": answered, "engine": engine, "cpu": cpu, "changes": changes}
            )
            print(f"{name}, {phase}: done", file=sys.stderr)
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
    parser.add_argument("--paces", nargs="+", default=list(PACES), choices=list(PACES))
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
    print("median (worst) over the rounds; work: on the CPU clock of the process; wall: on the wall's")
    heads = [f"{load} {q} {clock}" for load in ("dns", "engine") for clock in ("work", "wall") for q in ("p50", "p99")]
    print("| variant | changes | " + " | ".join(heads) + " | cpu | changes/s |")
    print("| --- " * (len(heads) + 4) + "|")
    for name in options.variants:
        for phase in options.paces:
            mine = [r for r in rows if (r["variant"], r["phase"]) == (name, phase)]
            cells = [name, phase]
            for load in ("dns", "engine"):
                for key in ("cpu_p50", "cpu_p99", "wall_p50", "wall_p99"):
                    values = [r[load][key] for r in mine]
                    cells.append(f"{statistics.median(values):.2f} ({max(values):.2f})")
            cells += [f"{statistics.median(r[key] for r in mine):.2f}" for key in ("cpu", "changes")]
            print("| " + " | ".join(cells) + " |")
            wrong = sum(r["dns"]["wrong"] + r["engine"]["failed"] for r in mine)
            lost = sum(r["dns"]["lost"] for r in mine)
            if wrong or lost:
                print(f"{name}, {phase}: {wrong} wrong or failed, {lost} dns answers lost", file=sys.stderr)


if __name__ == "__main__":
    main()
