"""Print how long DNS queries wait in a zone while a bulk transfer runs through its engine, beside the idle zone.

    python -m tests.bench.l4.dns_during_bulk [--seconds 8] [--rounds 3] [--rate 1000]

Real processes: a global, zone-a and zone-b. The transfer goes VIP -> zone-a's egress -> zone-b's ingress -> inbound
-> sink; the queries go to zone-a, whose process carries both TLS ends of the caller's side. Three phases in turns:
idle; *beside*, where the same source and sink are as busy but their bytes go past the mesh; and *through*. What
*beside* costs is the machine's doing, what *through* costs above that is meshd's.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.bench.l4 import load
from tests.e2e import lab as lab_
from tests.e2e.lab import VIP_PORT, Lab, builtin, eventually
from tests.e2e.scenario import zones
from tests.ports import free_port

WARM_UP_S = 1.0
SERVICE = "service-0"
"""As the load generator of ``tests.bench.loop`` asks for it."""


class Transfer:
    """One connection that sends as fast as it can until told to stop."""

    def __init__(self, address: tuple[str, int], limit_bytes_s: float | None = None) -> None:
        self._address = address
        self._limit = limit_bytes_s
        self._stop = threading.Event()
        self.received = 0
        self.error = ""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        time.sleep(WARM_UP_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self.error, self.error
        assert self.received, f"nothing arrived through {self._address}"

    def _run(self) -> None:
        data, sent, began = bytes(load.CHUNK), 0, time.monotonic()
        try:
            with socket.create_connection(self._address, timeout=20) as sock:
                assert sock.recv(1) == b"!"
                while not self._stop.is_set():
                    sock.sendall(data)
                    sent += len(data)
                    if self._limit:
                        time.sleep(max(0.0, began + sent / self._limit - time.monotonic()))
                sock.shutdown(socket.SHUT_WR)
                self.received = int.from_bytes(sock.recv(8, socket.MSG_WAITALL), "big")
                assert self.received == sent, f"{sent} bytes sent, {self.received} arrived"
        except (OSError, AssertionError) as error:
            self.error = f"transfer through {self._address}: {error}"


@dataclass(frozen=True)
class Row:
    """One phase of one round; milliseconds, bytes, and CPU seconds of zone-a."""

    dns: dict[str, float]
    seconds: float
    received: int = 0
    cpu_s: float = 0.0


def queries(lab: Lab, rate: float, seconds: float) -> dict[str, float]:
    """Figures of a load process that asks zone-a's resolver."""
    zone = lab.zones["zone-a"]
    arguments = [zone.dns, rate, seconds, 1, zone.process.popen.pid]
    command = [sys.executable, "-m", "tests.bench.loop.dns_load", *map(str, arguments)]
    figures: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert not figures["wrong"], f"{figures['wrong']} of {figures['sent']} answers were errors"
    return figures


def phase(lab: Lab, to: tuple[str, int] | None, limit: float | None, rate: float, seconds: float) -> Row:
    pid = lab.zones["zone-a"].process.popen.pid
    before, began = load.cpu_seconds(pid), time.monotonic()
    if to is None:
        dns, received = queries(lab, rate, seconds), 0
    else:
        with Transfer(to, limit) as transfer:
            dns = queries(lab, rate, seconds)
        received = transfer.received
    return Row(dns, time.monotonic() - began, received, load.cpu_seconds(pid) - before)


def carried(lab: Lab) -> float:
    """Bytes of the client that zone-a's egress has passed on."""
    series = lab.metrics("zone-a", "meshd_l4_received_bytes_total")
    return sum(value for name, value in series.items() if "ZoneEgress/" in name)


def measure(directory: Path, rounds: int, rate: float, seconds: float) -> dict[str, list[Row]]:
    """Rows by phase."""
    sink, process = load.start_server(load.swallow, threaded=True)
    inbound = builtin(lab_.dataplane(SERVICE, SERVICE, free_port(), sink))
    rows: dict[str, list[Row]] = {"idle": [], "beside": [], "through": []}
    with zones(directory, {"zone-a": {"ingresses": 0}, "zone-b": {"proxies": [inbound]}}, egress=True) as lab:
        vip = lab.resolve("zone-a", f"{SERVICE}.mesh", 20)
        eventually(lambda: socket.create_connection((vip, VIP_PORT), timeout=2).recv(1) == b"!", 20)
        time.sleep(1)
        for _ in range(rounds):
            rows["idle"].append(phase(lab, None, None, rate, seconds))
            through = phase(lab, (vip, VIP_PORT), None, rate, seconds)
            rows["through"].append(through)
            pace = through.received / through.seconds
            rows["beside"].append(phase(lab, ("127.0.0.1", sink), pace, rate, seconds))
        total = sum(row.received for row in rows["through"])
        assert carried(lab) >= total, "the transfer did not go through the egress"
    process.kill()
    return rows


def show(rows: dict[str, list[Row]]) -> None:
    print("| phase | DNS p50 wall ms | p99 wall | p50 work | p99 work | Gbit/s | GB | zone-a cores | lost |")
    print("| --- " * 9 + "|")
    medians: dict[str, dict[str, float]] = {}
    for name, mine in rows.items():
        keys = ("wall_p50", "wall_p99", "cpu_p50", "cpu_p99")
        medians[name] = {key: statistics.median(r.dns[key] for r in mine) for key in keys}
        cells = [f"{medians[name][key]:.2f} ({max(r.dns[key] for r in mine):.2f})" for key in keys]
        received, seconds = sum(r.received for r in mine), sum(r.seconds for r in mine)
        cells += [f"{received * 8 / 1e9 / seconds:.2f}", f"{received / 1e9:.1f}"]
        cells += [f"{sum(r.cpu_s for r in mine) / seconds:.2f}", f"{sum(r.dns['lost'] for r in mine):g}"]
        print("| " + " | ".join([name, *cells]) + " |")
    for key, what in (("wall_p99", "p99 on the wall's clock"), ("cpu_p99", "p99 of work")):
        ratios = [f"{medians['through'][key] / medians[base][key]:.1f} x {base}" for base in ("idle", "beside")]
        print(f"through, {what}: {', '.join(ratios)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1000.0, help="DNS queries a second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        rows = measure(Path(directory), options.rounds, options.rate, options.seconds)
    print(f"{options.rounds} rounds of {options.seconds:g} s, {options.rate:g} queries/s; median (worst) of the rounds")
    print("work: milliseconds of CPU that zone-a spent between question and answer")
    show(rows)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end")


if __name__ == "__main__":
    main()
