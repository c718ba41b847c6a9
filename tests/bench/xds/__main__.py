"""Print what a zone's control plane needs for many proxies that see many services.

    python -m tests.bench.xds [--proxies 1000] [--services 1000]
    python -m tests.bench.xds --proxies 200
    python -m tests.bench.xds --target 127.0.0.1:5678 --rest http://127.0.0.1:5681 --pid 123   # another control plane

The control plane is a process of its own; the proxies are delta ADS clients in others.
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.propagation.__main__ import quantile
from tests.bench.xds.answers import CLUSTER, ENDPOINTS, LISTENER
from tests.bench.xds.fleet import Fleet, Reached, fleet, quiet
from tests.bench.xds.plane import Plane, other, own_zone

WITHIN_S = 300.0
PAUSE_S = 1.0


def say(line: str) -> None:
    print(line, flush=True)


class Bench:
    """The phases, each of which says a line."""

    def __init__(self, plane: Plane, proxies: Fleet, options: argparse.Namespace) -> None:
        self._plane = plane
        self._proxies = proxies
        self._services = options.services
        self._changes = options.changes
        self._idle_s = options.idle
        self._instances = max(options.services, proxies.count)

    def load(self) -> None:
        """The Dataplanes that are there before any proxy connects."""
        self._plane.put("/meshes/default", {"type": "Mesh", "name": "default", **MTLS})
        for i in range(self._instances):
            self._plane.put_dataplane(i, f"service-{i % self._services}", f"10.0.{i // 250}.{i % 250 + 1}")
        quiet(self._plane)
        self._shown("loaded, no proxy", {})

    def run(self, phases: list[str]) -> None:
        for phase in phases:
            getattr(self, f"phase_{phase}")()
            turns = self._plane.turns_so_far()
            if turns:
                longest = ", ".join(f"{ms:.1f}" for ms in turns["longest_ms"])
                say(f"    turns: {turns['turns']}, p50 {turns['p50_ms']:.2f}, p99 {turns['p99_ms']:.2f} ms; {longest}")
                for name, step in turns["steps"].items():
                    took = f"longest {step['longest_ms']:7.2f}, all {step['all_ms']:8.0f} ms"
                    say(f"      {name:50} {step['count']:7} {took}")

    # -- phases

    @property
    def _all(self) -> dict[str, int]:
        return dict.fromkeys((CLUSTER, ENDPOINTS, LISTENER), self._services)

    def phase_first(self) -> None:
        """All proxies come, none has anything."""
        self._measured("first configuration", self._all, self._proxies.connect)

    def phase_idle(self) -> None:
        """Nothing happens."""
        quiet(self._plane, share=0.05)
        time.sleep(min(15.0, self._idle_s))  # the insights of what was before are written
        cpu_s = self._plane.cpu_s
        time.sleep(self._idle_s)
        used = self._plane.cpu_s - cpu_s
        self._shown("idle", {"% of a core": used / self._idle_s * 100, "wall s": self._idle_s})

    def phase_changes(self) -> None:
        """One endpoint moves, again and again."""
        taken, used, clients = [], 0.0, 0.0
        for i in range(self._changes):
            index = (i * 37) % self._instances
            address = f"10.200.{i // 250}.{i % 250 + 1}"
            self._proxies.expect({ENDPOINTS: 1}, address)
            cpu_s, began = self._plane.cpu_s, time.monotonic()
            self._plane.put_dataplane(index, f"service-{index % self._services}", address)
            reached = self._proxies.wait(WITHIN_S)
            taken.append(reached.done[-1] - began)
            clients += reached.client_cpu_s
            time.sleep(PAUSE_S)
            used += self._plane.cpu_s - cpu_s
        figures = {
            "p50 ms": quantile(taken, 0.5) * 1e3,
            "p99 ms": quantile(taken, 0.99) * 1e3,
            "max ms": max(taken) * 1e3,
            "cpu s": used / self._changes,
            "proxies' cpu s": clients / self._changes,
        }
        self._shown("one endpoint moves", figures)

    def phase_service(self) -> None:
        """A service that was not there before."""
        index, address = self._instances, "10.201.0.1"
        counts = dict.fromkeys((CLUSTER, ENDPOINTS, LISTENER), 1)
        self._measured("one new service", counts, lambda: self._plane.put_dataplane(index, "another", address), address)

    def phase_policy(self) -> None:
        """A policy that changes every cluster, and the listeners of half."""
        spec = {
            "targetRef": {"kind": "Mesh"},
            "to": [
                {
                    "targetRef": {"kind": "Mesh"},
                    "default": {"connectionTimeout": "7s", "http": {"requestTimeout": "21s"}},
                }
            ],
        }
        body = {"type": "MeshTimeout", "mesh": "default", "name": "bench", "spec": spec}
        counts = {CLUSTER: self._services, LISTENER: self._services // 2}
        self._measured(
            "one MeshTimeout for all", counts, lambda: self._plane.put("/meshes/default/meshtimeouts/bench", body)
        )

    def phase_return(self) -> None:
        """All connections end, and the proxies come back with what they have."""
        self._proxies.drop()
        quiet(self._plane)
        self._measured("all come back", {}, self._proxies.connect)

    def phase_resend(self) -> None:
        """The same, but they have lost everything."""
        self._proxies.drop(forget=True)
        quiet(self._plane)
        self._measured("all come back with nothing", self._all, self._proxies.connect)

    # -- figures

    def _measured(self, name: str, counts: dict[str, int], act: Callable[[], None], marker: str = "") -> None:
        quiet(self._plane)
        self._proxies.expect(counts, marker)
        cpu_s, began = self._plane.cpu_s, time.monotonic()
        act()
        reached = self._proxies.wait(WITHIN_S)
        quiet(self._plane)
        used = self._plane.cpu_s - cpu_s
        self._shown(name, {**_figures(reached, began), "cpu s": used}, self._proxies.told())

    def _shown(self, name: str, figures: dict[str, float], all_of_it: Reached | None = None) -> None:
        figures = {**figures, "RSS MB": self._plane.memory_mb(), "most MB": self._plane.memory_mb("VmHWM")}
        if all_of_it is not None:
            figures |= {
                "proxies' cpu s": all_of_it.client_cpu_s,
                "messages": all_of_it.messages,
                "resources": sum(all_of_it.resources.values()),
                "received MB": all_of_it.received_bytes / 1e6,
            }
        say(f"{name:28} " + ", ".join(f"{what} {_short(value)}" for what, value in figures.items()))


MTLS = {"mtls": {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]}}


def _figures(reached: Reached, began: float) -> dict[str, float]:
    times = [at - began for at in reached.done]
    return {"half s": quantile(times, 0.5), "all s": times[-1]}


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def pace() -> str:
    """What a second of CPU is worth just now: on a shared machine it varies by two and more."""
    began = time.process_time()
    sum({str(i): i for i in range(1_000_000)}.values())
    return f"a fixed piece of Python takes {(time.process_time() - began) * 1e3:.0f} ms of CPU"


PHASES = [name.removeprefix("phase_") for name in vars(Bench) if name.startswith("phase_")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxies", type=int, default=1000)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=30)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds")
    parser.add_argument("--processes", type=int, default=2, help="of proxies")
    parser.add_argument("--phases", nargs="+", default=PHASES, choices=PHASES)
    parser.add_argument("--watched", action="store_true", help="say how long the turns of the control plane's loop are")
    parser.add_argument("--target", help="host:port where another control plane takes proxies (TLS, no tokens)")
    parser.add_argument("--rest", help="its API")
    parser.add_argument("--pid", type=int, help="its process")
    parser.add_argument("--dp-version", default="2.14.3", help="the version of kuma-dp that proxies claim there")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if options.target:
            opened = other(directory, options.target, options.rest, options.pid, options.dp_version)
        else:
            opened = own_zone(directory, watched=options.watched)
        plane = stack.enter_context(opened)
        bench = Bench(plane, stack.enter_context(fleet(plane, options.proxies, options.processes)), options)
        say(f"{options.proxies} proxies, {options.services} services")
        say(f"load average {os.getloadavg()[0]:.1f} before; {pace()}")
        bench.load()
        bench.run(options.phases)
        say(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end; {pace()}")


if __name__ == "__main__":
    main()
