"""What a storm knows: the world as only the storm changes it, what clients saw of it, and what excuses a failure."""

import bisect
import itertools
import socket
import time
from collections import Counter
from dataclasses import dataclass, field

from dnslib import QTYPE, RCODE, DNSRecord

ZONES = ("zone-a", "zone-b", "zone-c")
PLANES = ("global", *ZONES)
DRAIN_S = 5.0
ASK_S = 12.0
"""What a client waits: two endpoints that are silent for 3 s each, and room."""
SETTLE_S = 7.0
"""What a path or a publication gets until a failure counts: an ejection ends within 5 s, with room for its probe."""
LINK_S = 20.0
"""How long the global and two zones must have been up together for the zones to know each other: a backoff of 15 s."""

FILE, REST = "file", "rest"
# name, service, zone, who owns its Dataplane
INSTANCES = (
    ("payments-zone-a-0", "payments", "zone-a", FILE),
    ("payments-zone-b-0", "payments", "zone-b", FILE),
    ("payments-zone-b-1", "payments", "zone-b", FILE),
    ("payments-zone-c-0", "payments", "zone-c", FILE),
    ("rest-orders-a", "orders", "zone-a", REST),
    ("rest-orders-b", "orders", "zone-b", REST),
    ("rest-orders-c", "orders", "zone-c", REST),
    ("rest-stock-a", "stock", "zone-a", REST),
    ("rest-stock-c", "stock", "zone-c", REST),
    ("rest-mover-b", "left", "zone-b", REST),
    ("rest-temp-a", "temp-0", "zone-a", REST),
)
MOVES = {"rest-mover-b": ("left", "right"), "rest-temp-a": ("temp-0", "temp-1", "temp-2")}
"""Instances that go from one service to another, at the same address."""
SERVICES = sorted({service for _, service, _, _ in INSTANCES} | {s for m in MOVES.values() for s in m})
DENIABLE = ("payments", "orders")
STREAMED = "payments"
"""The service that long connections are to."""


class Track:
    """The history of one value: what it was when."""

    def __init__(self, value, at=0.0):
        self.times, self.values = [at], [value]

    @property
    def now(self):
        return self.values[-1]

    def set(self, value, at=None):
        if value != self.now:
            self.times.append(time.monotonic() if at is None else at)
            self.values.append(value)

    def during(self, since, until):
        """Every value it had between two times."""
        first = max(0, bisect.bisect_right(self.times, since) - 1)
        last = bisect.bisect_right(self.times, until)
        return self.values[first : max(last, first + 1)]

    def since(self, at):
        """When the value that it had at a time came."""
        return self.times[max(0, bisect.bisect_right(self.times, at) - 1)]

    def always(self, value, since, until):
        return all(v == value for v in self.during(since, until))

    def left(self, value, since, until):
        """Whether it stopped being ``value`` between two times."""
        seen = self.during(since, until)
        return any(a == value != b for a, b in itertools.pairwise(seen))


@dataclass
class Instance:
    name: str
    zone: str
    owner: str
    app_port: int
    inbound: int
    application: object = None
    up: Track = field(default_factory=lambda: Track(False))
    service: Track = field(default_factory=lambda: Track(None))
    """What the zone's store says it is an instance of; None: it has no Dataplane."""


@dataclass(frozen=True)
class Seen:
    """One request by VIP and its outcome."""

    zone: str
    service: str
    vip: str
    began: float
    ended: float
    answer: str | None
    error: str


def ask(address, port, timeout_s=ASK_S):
    """One request over one new connection; (body or None, what went wrong)."""
    stage = "connect"
    data = b""
    try:
        with socket.create_connection((address, port), timeout_s) as s:
            stage = "send"
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            stage = "receive"
            while chunk := s.recv(4096):
                data += chunk
    except OSError as error:
        return None, f"{stage}: {type(error).__name__} {error}"
    head, _, body = data.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.0 200"):
        return body.decode().strip(), ""
    return None, f"ended after {len(data)} bytes"


def query(port, service, timeout_s=1.0):
    """(rcode, address or None) of SERVICE.mesh; (None, None) without an answer."""
    question = DNSRecord.question(f"{service}.mesh", "A")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(timeout_s)
        try:
            s.connect(("127.0.0.1", port))
            s.send(question.pack())
            while True:
                answer = DNSRecord.parse(s.recv(4096))
                if answer.header.id == question.header.id:
                    break
        except OSError:
            return None, None
    found = [str(rr.rdata) for rr in answer.rr if rr.rtype == QTYPE.A]
    return RCODE[answer.header.rcode], found[0] if found else None


def deny(zone, service):
    return {
        "type": "MeshTrafficPermission",
        "mesh": "default",
        "name": f"deny-{service}-{zone}",
        "spec": {
            "targetRef": {"kind": "MeshService", "name": service},
            "from": [
                {"targetRef": {"kind": "MeshService", "name": f"client-{zone}"}, "default": {"action": "Deny"}},
            ],
        },
    }


def home(name):
    return next(service for n, service, _, _ in INSTANCES if n == name)


class History:
    """The past of every plane, instance, denial and routing; times are of ``time.monotonic``."""

    def __init__(self):
        self.planes = {name: Track(None) for name in PLANES}
        """"up", "down" (killed or stopping), "starting" or "stopped" (SIGSTOP)."""
        self.instances: dict[str, Instance] = {}
        self.denies = {(z, s): Track("no") for z in ZONES for s in DENIABLE}
        """"no", "asked-in" or "asked-out" (on its way) or "force" (every zone has it)."""
        self.routing = Track((False, False))
        self.log: list[tuple[float, str]] = []
        self.seen: list[Seen] = []
        self.dns_problems: list[str] = []
        self.cuts: list[tuple[str, float, float]] = []
        """Connections for long that ended: (zone, opened, ended)."""
        self.names: dict[str, dict[str, set]] = {z: {s: set() for s in SERVICES} for z in ZONES}
        self.began = self.storm_at = time.monotonic()

    def say(self, text):
        self.log.append((time.monotonic(), text))
        print(f"{time.monotonic() - self.began:7.2f} {text}", flush=True)

    def when(self, at):
        return f"{at - self.began:.2f}"

    def nearby(self, began, ended, before=6.0):
        return "; ".join(f"{self.when(t)} {text}" for t, text in self.log if began - before <= t <= ended + 0.5)

    def published(self, zone=None):
        """Counter of (zone, service) that Dataplanes say now."""
        return Counter(
            (i.zone, i.service.now) for i in self.instances.values() if i.service.now and zone in (None, i.zone)
        )

    def together(self, since, until, *planes):
        """Whether the planes were up together for ``LINK_S`` on end between two times."""
        marks = sorted({since, until, *(t for p in planes for t in self.planes[p].times if since < t < until)})
        length = 0.0
        for a, b in itertools.pairwise(marks):
            middle = (a + b) / 2
            all_up = all(self.planes[p].during(middle, middle) == ["up"] for p in planes)
            length = length + b - a if all_up else 0.0
            if length >= LINK_S:
                return True
        return False

    def good(self, zone, service, began, ended):
        """Instances that must have been usable from a zone, all that time and long enough before."""
        if not self.planes[zone].always("up", began - 1.0, ended):
            return []
        found = []
        for i in self.instances.values():
            settled = began - SETTLE_S
            if not (
                i.service.always(service, settled, ended)
                and i.up.always(True, settled, ended)
                and self.planes[i.zone].always("up", settled, ended)
            ):
                continue
            since = i.service.times[max(0, bisect.bisect_right(i.service.times, began) - 1)]
            known = since <= self.storm_at or self.together(since, began, "global", zone, i.zone)
            if i.zone == zone or known:
                found.append(i)
        return found

    def excuse(self, r: Seen):
        """Why a request was allowed to fail; "" if it was not."""
        if not self.planes[r.zone].always("up", r.began - 0.5, r.ended):
            return "its own zone was down"
        if self.is_denied(r):
            return "denied, or just before"
        if not any(self.lived(i, r) for i in self.instances.values()):
            return "no live instance anywhere"
        if not self.good(r.zone, r.service, r.began, r.ended):
            return "no instance that had been there for long enough"
        for i in self.instances.values():
            if r.service in i.service.during(r.began - 0.3, r.ended) and (
                i.up.left(True, r.began - 0.3, r.ended)
                or i.service.left(r.service, r.began - 0.3, r.ended)
                or self.planes[i.zone].left("up", r.began - 0.3, r.ended)
            ):
                return f"in flight to {i.name}"
            dead = i.up.since(r.ended) if not i.up.always(True, r.began, r.ended) else r.ended
            if r.service in i.service.during(r.began, r.ended) and dead <= max(
                i.service.since(r.ended), self.planes[i.zone].since(r.ended)
            ):
                # Its inbound listens anew and knows neither clients nor that the application is dead: the handshake
                # comes first, and after it a client cannot move on.
                return f"new listener, dead application: to {i.name}"
            if r.service in i.service.during(r.began, r.ended) and dead < r.began and self.is_stranger(i, r, dead):
                return f"a stranger since a denial, dead application: to {i.name}"
        return ""

    def is_stranger(self, i, r, died):
        """Whether an instance that ``died`` may have held who asks for a stranger, and not have known that it was dead.

        Its inbound forgets an address whose client it denies (here all have the same), until it has let in another.
        Once somebody has been lost to it, it knows.
        """
        same = [s for s in self.seen if s.service == r.service]
        answered = max((s.ended for s in same if s.answer == i.name and s.ended <= died), default=0.0)
        failed = [s for s in same if s.answer is None and answered <= s.ended]
        denied = [s for s in failed if s.ended <= r.ended and self.is_denied(s)]
        lost = [s for s in failed if died < s.began and s.ended < r.began and not self.is_denied(s)]
        return bool(denied) and not lost

    def is_denied(self, r):
        """Whether who asked was denied, or just before."""
        track = self.denies.get((r.zone, r.service))
        return track is not None and not track.always("no", r.began - SETTLE_S, r.ended)

    def lived(self, i, r):
        """Whether an instance of the service lived at some time of a request."""
        return (
            r.service in i.service.during(r.began, r.ended)
            and True in i.up.during(r.began, r.ended)
            and "up" in self.planes[i.zone].during(r.began, r.ended)
        )

    def excuse_of_cut(self, zone, ended):
        """Why a long connection to payments was allowed to end; "" if it was not."""
        since = ended - DRAIN_S - 4.0
        if not self.planes[zone].always("up", since, ended):
            return "its own zone was down"
        if not self.denies[zone, STREAMED].always("no", since, ended):
            return "denied, or just before"
        for i in self.instances.values():
            if STREAMED in i.service.during(since, ended) and (
                i.up.left(True, since, ended)
                or i.service.left(STREAMED, since, ended)
                or self.planes[i.zone].left("up", since, ended)
            ):
                return f"to {i.name}"
        return ""
