"""Print, for meshd, HAProxy and Envoy in the same run: Gbit/s and CPU per byte of both paths, mTLS connections/s.

    python -m tests.bench.l4 [--seconds 3] [--rounds 3] [--only meshd,haproxy,envoy]

Every contender is one process with one thread for traffic. Rounds are interleaved, so that a noisy machine is noisy
for all; the best round of each is compared.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench.l4 import load
from tests.bench.l4.proxies import CONTENDERS, SNI, Ports, ports

Measure = Callable[[Ports, float], float]


def passthrough(p: Ports, seconds: float) -> float:
    return load.push(p.passthrough, load.client_hello(SNI), seconds)


def full_path(p: Ports, seconds: float) -> float:
    return load.push(p.outbound, b"", seconds)


def connections(p: Ports, seconds: float) -> float:
    rate, failed = load.connection_rate(p.outbound, seconds)
    if failed:
        print(f"    {failed} connections failed")
    return rate


MEASURES: dict[str, tuple[str, Measure, bool]] = {
    "passthrough": ("Gbit/s, ingress by SNI, TLS untouched", passthrough, True),
    "full path": ("Gbit/s, plain -> mTLS -> plain, both ends in one process", full_path, True),
    "connections": ("new mTLS connections/s, both ends in one process", connections, False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(CONTENDERS))
    options = parser.parse_args()
    names = [n for n in options.only.split(",") if n != "haproxy" or shutil.which("haproxy")]
    sink, _ = load.start_server(load.swallow, threaded=True)
    echo, _ = load.start_server(load.repeat, threaded=False)
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for measure, (_, run, is_bulk) in MEASURES.items():
        for _round in range(options.rounds):
            for name in names:
                p = ports(sink, sink if is_bulk else echo)
                with tempfile.TemporaryDirectory() as directory, CONTENDERS[name](p, Path(directory)) as pid:
                    before = load.cpu_seconds(pid)
                    value = run(p, options.seconds)
                    cpu = load.cpu_seconds(pid) - before
                unit = value * options.seconds / 8 if is_bulk else value * options.seconds / 1000
                best[measure, name] = max(best.get((measure, name), (0.0, 0.0)), (value, cpu / unit if unit else 0.0))
    for measure, (what, _, is_bulk) in MEASURES.items():
        print(f"\n{measure}: {what}")
        ours = best.get((measure, "meshd"), (0.0, 0.0))
        for name in names:
            value, cost = best[measure, name]
            per = "CPU s/GB" if is_bulk else "CPU ms/connection"
            ratio = f"   meshd/{name} {ours[0] / value:5.2f}" if name != "meshd" and value else ""
            print(f"  {name:8} {value:9.2f}   {cost:6.3f} {per}{ratio}")


if __name__ == "__main__":
    main()
