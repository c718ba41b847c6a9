"""One journey: a new service is PUT at zone-b, its name resolves in zone-a, a request by that name is answered."""

import socket
import time
from dataclasses import dataclass
from pathlib import Path

import dnslib
import httpx

from tests.bench.l4.load import cpu_seconds
from tests.e2e import lab as lab_
from tests.e2e.lab import VIP_PORT, Lab
from tests.e2e.scenario import zones
from tests.ports import free_port

POLL_S = 0.002
"""Pause between two questions. The poller shares the machine with what it watches, so it must not spin."""
GIVE_UP_S = 30.0
CONTROL_PLANES = ("global", "zone-a", "zone-b")


@dataclass(frozen=True)
class Journey:
    """Milliseconds since the PUT began: its answer, the first address in zone-a, the first request answered."""

    service: str
    put: float
    resolved: float
    answered: float
    failures: tuple[str, ...]
    """What requests before that met: the name resolved before the way was open."""


class Resolver:
    """Asks one DNS server over UDP, nothing cached."""

    def __init__(self, port: int) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.connect(("127.0.0.1", port))
        self._sock.settimeout(1.0)
        self._ident = 0

    def close(self) -> None:
        self._sock.close()

    def address(self, name: str) -> str | None:
        """The first A record, or None."""
        self._ident = (self._ident + 1) & 0xFFFF
        question = dnslib.DNSRecord.question(name)
        question.header.id = self._ident
        self._sock.send(question.pack())
        while True:
            try:
                answer = dnslib.DNSRecord.parse(self._sock.recv(4096))
            except TimeoutError:
                return None
            if answer.header.id == self._ident:
                return next((str(r.rdata) for r in answer.rr if r.rtype == dnslib.QTYPE.A), None)


def poll(question, what):
    """Ask until the answer is true; returns it."""
    deadline = time.monotonic() + GIVE_UP_S
    while True:
        if answer := question():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {GIVE_UP_S:g} s: {what}")
        time.sleep(POLL_S)


def request(vip: str, failures: list[str]) -> str | None:
    """GET / over a new connection; the body, or None with the reason appended to ``failures``."""
    try:
        with socket.create_connection((vip, VIP_PORT), GIVE_UP_S) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            data = b""
            while chunk := sock.recv(4096):
                data += chunk
    except OSError as error:
        failures.append(error.strerror or str(error))
        return None
    head, _, body = data.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.0 200"):
        return body.decode().strip()
    failures.append("ended before an answer")
    return None


def travel(service: str, application: int, api: httpx.Client, resolver: Resolver) -> Journey:
    resource = lab_.dataplane(service, service, free_port(), application)
    path = lab_.path_of(resource)
    began = time.perf_counter()
    answer = api.put(path, json=resource)
    put = time.perf_counter()
    assert answer.status_code == 201, f"PUT {path}: {answer.status_code} {answer.text}"
    vip = poll(lambda: resolver.address(f"{service}.mesh"), f"an address for {service}.mesh")
    resolved = time.perf_counter()
    failures: list[str] = []
    name = poll(lambda: request(vip, failures), f"an answer of {service} at {vip}:{VIP_PORT}")
    answered = time.perf_counter()
    assert name == "application", f"{service}: answered by {name!r}"
    return Journey(service, *((t - began) * 1e3 for t in (put, resolved, answered)), tuple(failures))


@dataclass(frozen=True)
class Figures:
    """All journeys, the CPU seconds each control plane used over them, and how long they took."""

    journeys: tuple[Journey, ...]
    cpu_s: dict[str, float]
    elapsed_s: float
    passed: dict[str, float]
    """Connections through each proxy, as its control plane counts them."""


def connections(lab: Lab) -> dict[str, float]:
    """Connections by proxy, over both zones."""
    counts: dict[str, float] = {}
    for zone in ("zone-a", "zone-b"):
        for series, value in lab.metrics(zone, "meshd_l4_connections_total").items():
            proxy = series.partition('proxy="')[2].partition('"')[0]
            counts[proxy] = counts.get(proxy, 0.0) + value
    return counts


def run(directory: Path, count: int, *, egress: bool, pause, said=print) -> Figures:
    """Start a global and two zones and make ``count`` journeys, ``pause()`` seconds apart.

    The first service is not counted: it opens what every later one finds open (the ways between the zones, the
    connections of this client).
    """
    selection = {"engine": "builtin", "dataplanes": {"mesh": "default", "names": "svc-*"}}
    plan = {"zone-a": {"ingresses": 0}, "zone-b": {"proxies": [selection]}}
    with zones(directory, plan, egress=egress) as lab:
        application = free_port()
        lab.application("application", application)
        resolver = Resolver(lab.zones["zone-a"].dns)
        with httpx.Client(base_url=lab.url("zone-b"), timeout=GIVE_UP_S) as api:
            travel("svc-first", application, api, resolver)
            time.sleep(1)
            before = {name: cpu_seconds(lab.zones[name].process.popen.pid) for name in CONTROL_PLANES}
            passed = connections(lab)
            began = time.monotonic()
            journeys = []
            for i in range(count):
                time.sleep(pause())
                journeys.append(travel(f"svc-{i}", application, api, resolver))
            elapsed_s = time.monotonic() - began
            cpu_s = {n: cpu_seconds(lab.zones[n].process.popen.pid) - used for n, used in before.items()}
        resolver.close()
        lab_.eventually(lambda: sum(connections(lab).values()) - sum(passed.values()) >= count)
        time.sleep(0.2)
        after = connections(lab)
        through = {proxy: n - passed.get(proxy, 0.0) for proxy, n in sorted(after.items())}
        return Figures(tuple(journeys), cpu_s, elapsed_s, through)
