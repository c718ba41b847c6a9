"""Print how long a new service takes from zone-b to a caller in zone-a.

    python -m tests.bench.propagation [--count 100] [--through-egress] [--slowest 3] [--keep DIRECTORY]

Separate processes for the global and both zones, SQLite, KDS with zone tokens over loopback, mTLS.
"""

import argparse
import contextlib
import math
import os
import random
import tempfile
from collections import Counter
from pathlib import Path

from tests.bench.propagation.journey import Figures, run

AIM_MS = 500


def quantile(values: list[float], q: float) -> float:
    """The smallest value that at least the share ``q`` does not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(q * len(ordered)) - 1]


def show(figures: Figures, slowest: int) -> None:
    journeys = figures.journeys
    parts = {
        "PUT answered": [j.put for j in journeys],
        "then the name resolves": [j.resolved - j.put for j in journeys],
        "then a request is answered": [j.answered - j.resolved for j in journeys],
        "total": [j.answered for j in journeys],
    }
    print(f"{'ms':28} {'p50':>8} {'p99':>8} {'max':>8}")
    for part, values in parts.items():
        print(f"{part:28} {quantile(values, 0.5):8.1f} {quantile(values, 0.99):8.1f} {max(values):8.1f}")
    print(f"aim: total p99 < {AIM_MS} ms")
    quarter = -(-len(journeys) // 4)
    first, last = (quantile([j.answered for j in part], 0.5) for part in (journeys[:quarter], journeys[-quarter:]))
    print(f"total p50 of the first quarter {first:.1f} ms, of the last {last:.1f} ms: what the services before cost")
    reasons = Counter(j.failures[0] for j in journeys if j.failures)
    for reason, count in reasons.most_common():
        print(f"{count} of {len(journeys)} resolved before the way was open; the first request met: {reason}")
    for j in sorted(journeys, key=lambda j: -j.answered)[:slowest]:
        parts_ms = f"PUT {j.put:6.1f}  resolved {j.resolved:6.1f}  answered {j.answered:6.1f}"
        print(f"  slow: {j.service:8} {parts_ms} ms, after {len(j.failures)} failures")
    for name, used in figures.cpu_s.items():
        print(
            f"CPU {name:8} {used:6.2f} s over {figures.elapsed_s:.1f} s, {used / len(journeys) * 1e3:.1f} ms a service"
        )
    shared = {p: n for p, n in figures.passed.items() if not p.startswith("Dataplane/default/svc-")}
    own = sum(n for p, n in figures.passed.items() if p.startswith("Dataplane/default/svc-"))
    print("connections:", ", ".join(f"{p} {n:g}" for p, n in [*shared.items(), ("the services", own)] if n))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--through-egress", action="store_true", help="routing.zoneEgress: leave by zone-a's egress")
    parser.add_argument("--slowest", type=int, default=3, help="how many of the slowest to show")
    parser.add_argument("--keep", type=Path, help="leave configurations, stores and logs in this new directory")
    options = parser.parse_args()
    if options.keep and options.keep.exists():
        parser.error(f"--keep {options.keep}: exists; what an earlier run left there would be taken up again")
    rng = random.Random()
    with contextlib.ExitStack() as stack:
        directory = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(parents=True, exist_ok=True)
        # Pauses at random, so that the journeys meet every timer of the control planes at every phase.
        figures = run(directory, options.count, egress=options.through_egress, pause=lambda: rng.uniform(0.1, 0.3))
    print(f"{options.count} services, {'by zone egress' if options.through_egress else 'ingress only'}")
    show(figures, options.slowest)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end")


if __name__ == "__main__":
    main()
