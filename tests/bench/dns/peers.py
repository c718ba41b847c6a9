"""The servers, each with one worker on the first core and the same names; those not installed are left out."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.dns.names import hosts_file, local_data, zone_file
from tests.ports import free_udp_tcp_port

START_S = 60.0
PROBE = bytes.fromhex("12340100000100000000000009736572766963652d30046d6573680000010001")
"""A of service-0.mesh."""
COOKIE_SECRET = "000102030405060708090a0b0c0d0e0f"
"""NSD and Knot answer cookies (RFC 9018) too; unbound has it from 1.18 on only, CoreDNS and dnsmasq have not."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server and its processes' parent."""

    name: str
    port: int
    pid: int


def meshd(folder: Path, port: int, count: int) -> list[str]:
    return [sys.executable, "-m", "tests.bench.dns.subject", str(port), str(count)]


def meshd_worker(folder: Path, port: int, count: int) -> list[str]:
    return [*meshd(folder, port, count), "--workers", "1"]


def coredns(folder: Path, port: int, count: int) -> list[str]:
    zone_file(folder / "mesh.zone", count)
    corefile = folder / "Corefile"
    corefile.write_text(f"mesh:{port} {{\n  bind 127.0.0.1\n  file {folder}/mesh.zone\n}}\n")
    return [os.environ.get("COREDNS", "coredns"), "-conf", str(corefile)]


def nsd(folder: Path, port: int, count: int) -> list[str]:
    zone_file(folder / "mesh.zone", count)
    conf = folder / "nsd.conf"
    conf.write_text(
        f"""server:
  ip-address: 127.0.0.1@{port}
  port: {port}
  server-count: 1
  username: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  zonelistfile: "{folder}/zone.list"
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
  answer-cookie: yes
  cookie-secret: "{COOKIE_SECRET}"
remote-control:
  control-enable: no
zone:
  name: mesh
  zonefile: mesh.zone
"""
    )
    return ["nsd", "-d", "-c", str(conf)]


def knot(folder: Path, port: int, count: int) -> list[str]:
    zone_file(folder / "mesh.zone", count)
    conf = folder / "knot.conf"
    conf.write_text(
        f"""server:
    listen: 127.0.0.1@{port}
    rundir: {folder}/run
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {folder}/db
log:
  - target: stderr
    any: warning
mod-cookies:
  - id: default
    secret: 0x{COOKIE_SECRET}
template:
  - id: default
    global-module: mod-cookies/default
zone:
  - domain: mesh
    storage: {folder}
    file: mesh.zone
    zonefile-load: whole
    journal-content: none
"""
    )
    (folder / "run").mkdir()
    return ["knotd", "-c", str(conf)]


def unbound(folder: Path, port: int, count: int) -> list[str]:
    local_data(folder / "mesh.conf", count)
    conf = folder / "unbound.conf"
    conf.write_text(
        f"""server:
  interface: 127.0.0.1@{port}
  port: {port}
  do-daemonize: no
  num-threads: 1
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  logfile: ""
  verbosity: 0
  incoming-num-tcp: 100
  include: {folder}/mesh.conf
remote-control:
  control-enable: no
"""
    )
    return ["unbound", "-d", "-c", str(conf)]


def dnsmasq(folder: Path, port: int, count: int) -> list[str]:
    hosts_file(folder / "hosts", count)
    return [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", f"--port={port}", "--listen-address=127.0.0.1",
        "--bind-interfaces", "--no-resolv", "--no-hosts", f"--addn-hosts={folder}/hosts", "--local=/mesh/",
        "--user=root", "--pid-file=", "--log-facility=-",
    ]  # fmt: skip


PEERS: dict[str, Callable[[Path, int, int], list[str]]] = {
    "meshd": meshd,
    "meshd worker": meshd_worker,
    "CoreDNS": coredns,
    "dnsmasq": dnsmasq,
    "unbound": unbound,
    "NSD": nsd,
    "Knot": knot,
}
CHANGES = ["--busy", "1000"]
"""Services that change in a second beside the busy ones."""
LAYOUTS: dict[str, list[str]] = {
    "thread, idle": [],
    "thread, busy": CHANGES,
    "worker, idle": ["--workers", "1"],
    "worker, busy": ["--workers", "1", *CHANGES],
    "loop, busy": ["--in-loop", *CHANGES],
}
"""meshd alone: where it answers, and what else its process does."""
COMMANDS = {"CoreDNS": os.environ.get("COREDNS", "coredns"), "NSD": "nsd", "Knot": "knotd"}


def installed() -> list[str]:
    """Which of the servers can be had here."""
    return [name for name in PEERS if name.startswith("meshd") or shutil.which(COMMANDS.get(name, name))]


@contextlib.contextmanager
def running(name: str, folder: Path, count: int) -> Iterator[Peer]:
    """A server, or meshd in one of the ``LAYOUTS``, that answers; ends it. A server is kept on the first core."""
    folder.mkdir()
    port = free_udp_tcp_port()
    command = PEERS[name](folder, port, count) if name in PEERS else [*meshd(folder, port, count), *LAYOUTS[name]]
    env = {**os.environ, "GOMAXPROCS": "1", "PYTHONPATH": str(Path.cwd())}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env)
    try:
        wait_for(name, port, process, folder / "log")
        if name in PEERS:
            pin(process.pid, 0)
        yield Peer(name, port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(name: str, port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_S
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        while time.monotonic() < until:
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended: {log.read_text()[-2000:]}")
            # A worker process takes over a moment after the first answer.
            if "worker" in name and len(family(process.pid)) == 1:
                time.sleep(0.2)
            with contextlib.suppress(OSError):
                sock.sendto(PROBE, ("127.0.0.1", port))
                reply = sock.recv(512)
                if reply[:2] == PROBE[:2] and reply[3] & 0xF == 0 and reply[7]:
                    return
            time.sleep(0.05)
    raise RuntimeError(f"{name} does not answer: {log.read_text()[-2000:]}")


def tasks(pid: int) -> list[Path]:
    """The threads of a process; none once it has ended."""
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for task in tasks(pid):
        with contextlib.suppress(OSError):
            found += [p for child in (task / "children").read_text().split() for p in family(int(child))]
    return found


def pin(pid: int, core: int) -> None:
    """Keep all threads of all its processes on one core, where there are several."""
    cores = sorted(os.sched_getaffinity(0))
    for process in family(pid):
        for task in tasks(process):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(task.name), {cores[core % len(cores)]})


def cpu_s(pid: int) -> float:
    """CPU time of a server until now, of all its threads and processes, in seconds, to the nanosecond."""
    total = 0
    for process in family(pid):
        for task in tasks(process):
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9
