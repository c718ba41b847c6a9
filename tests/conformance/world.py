"""Two zones whose every hop is carried by the engine that a combination says; the lab that all cases share.

zone-a has the client, an egress and the instance ``a-0``; zone-b an ingress and the instances ``b-0`` and ``b-1``:

    web, raw            on all three: shares are 1 for zone-a to 2 for zone-b
    far, far-raw        on b-0 alone: what is asked for leaves the zone
    chat, feed          the same: gRPC, which is HTTP/2

``raw`` and ``far-raw`` are tcp; the others http, grpc and http2 where an Envoy has the inbound. At a built-in inbound
all are tcp. Every instance has its name in the tag ``instance``. ``b-1`` comes through the API.
"""

import functools
import http.client
import os
import re
import signal
import socket
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meshd.envoy.places import places, runtime_directory
from meshd.model.resource import ResourceKey
from meshd.xds.keeper import RETIRE_S
from tests.conformance.asking import ask, spread
from tests.e2e import lab as lab_
from tests.e2e.lab import VIP_PORT, Lab, eventually, run_by
from tests.l4.test_external import self_signed
from tests.ports import free_port

HERE = Path(__file__)
SERVICES = {"a-0": ("web", "raw"), "b-0": ("web", "raw", "far", "far-raw", "chat", "feed"), "b-1": ("web", "raw")}
PROTOCOLS = {"web": "http", "far": "http", "raw": "tcp", "far-raw": "tcp", "chat": "grpc", "feed": "http2"}
OVER_HTTP2 = ("chat", "feed")
NARROWED = [
    (service, *tags)
    for service in ("web", "raw")
    for tags in (
        [("instance", "a-0")],
        [("instance", "b-1")],
        [("kuma.io/zone", "zone-b")],
        [("instance", "b-0"), ("kuma.io/zone", "zone-b")],
        [("instance", "b-0"), ("kuma.io/zone", "zone-a")],
    )
]
"""A service and tags of some of its instances; of the last there are none."""


@dataclass(frozen=True)
class Outside:
    """A server beyond the mesh that speaks TLS only, as localhost."""

    port: int
    ca_pem: str


@dataclass(frozen=True)
class Combination:
    """Which engine carries which hop."""

    name: str
    client: str
    egress: str
    ingress: str
    instance: str


BUILTIN = Combination("builtin", "builtin", "builtin", "builtin", "builtin")
ENVOY = Combination("envoy", "envoy", "envoy", "envoy", "envoy")
ENVOY_CALLS = Combination("envoy-calls", "envoy", "builtin", "builtin", "builtin")
BUILTIN_CALLS = Combination("builtin-calls", "builtin", "envoy", "envoy", "envoy")
BY_TURNS = Combination("by-turns", "envoy", "builtin", "envoy", "builtin")
ALL = (BUILTIN, ENVOY, ENVOY_CALLS, BUILTIN_CALLS, BY_TURNS)


class World:
    """One lab and what is asked of it.

    ``places`` are where the client reaches each service by VIP, ``explicit`` by an outbound; ``narrowed`` are outbounds
    for some instances of a service, by it and their tags.
    """

    def __init__(self, lab, combination):
        self.lab = lab
        self.combination = combination
        self.explicit = {service: ("127.0.0.1", free_port()) for service in PROTOCOLS}
        self.narrowed = {subset: ("127.0.0.1", free_port()) for subset in NARROWED}
        self.applications = {}
        self.ports = {name: [free_port() for _ in services] for name, services in SERVICES.items()}
        self.places = {}
        self.zone_of = {"client": "zone-a", "egress": "zone-a", "a-0": "zone-a"}
        self.changed = set()
        self.changed_at = 0.0
        self.current_mesh = {}

    # ------------------------------------------------------------------ start

    def start(self):
        lab, engines = self.lab, self.combination
        lab.configure_global()
        lab.start("global", wait=False)
        lab.ready("global", 90)
        self.mesh()
        lab.put("global", lab_.allow_all())
        client = lab_.vip_client("client", tags={"team": "red"})
        client["networking"]["outbound"] = [
            {"address": address, "port": port, "tags": {"kuma.io/service": service}}
            for service, (address, port) in self.explicit.items()
        ] + [
            {"address": address, "port": port, "tags": {"kuma.io/service": service, **dict(tags)}}
            for (service, *tags), (address, port) in self.narrowed.items()
        ]
        self.proxies = {
            "zone-a": [
                run_by(engines.client, client, vips=True),
                run_by(engines.egress, lab_.zone_egress("egress", free_port())),
                self.instance("a-0"),
            ],
            "zone-b": [
                run_by(engines.ingress, lab_.zone_ingress("ingress", free_port())),
                self.instance("b-0"),
                {"engine": engines.instance, "dataplanes": {"mesh": "default", "names": "b-1"}},
            ],
        }
        if engines.instance == "envoy":
            self.proxies["zone-b"][-1]["concurrency"] = 1
        self.comes_and_goes = self.instance("b-1")["resource"]
        for zone, proxies in self.proxies.items():
            general = {"workDir": str(lab.dir / zone), "drainTime": "3s"}
            kept = {"envoy": {"onStop": "keep"}} if any(p["engine"] == "envoy" for p in proxies) else {}
            lab.configure_zone(zone, proxies=proxies, general=general, **kept)
            lab.mint_zone_token(zone)
            lab.start(zone, wait=False)
        for zone in self.proxies:
            lab.ready(zone, 90)
        eventually(lambda: lab.put("zone-b", self.comes_and_goes), 20)  # its Mesh comes from the global
        for service in PROTOCOLS:
            self.places[service] = (lab.resolve("zone-a", f"{service}.mesh", 30), VIP_PORT)
        self.settled()

    def instance(self, name):
        services = SERVICES[name]
        behind = {service: free_port() for service in services}
        self.applications[name] = (behind, self.run_application(name, behind))
        inbounds = [self.inbound(name, service, behind[service]) for service in services]
        dataplane = {"type": "Dataplane", "mesh": "default", "name": name}
        dataplane["networking"] = {"address": "127.0.0.1", "inbound": inbounds}
        return run_by(self.combination.instance, dataplane)

    def inbound(self, name, service, application):
        protocol = PROTOCOLS[service] if self.combination.instance == "envoy" else "tcp"
        tags = {"kuma.io/service": service, "kuma.io/protocol": protocol, "instance": name}
        port = self.ports[name][SERVICES[name].index(service)]
        return {"port": port, "servicePort": application, "serviceAddress": "127.0.0.1", "tags": tags}

    def run_application(self, name, behind):
        plain = [str(port) for service, port in behind.items() if service not in OVER_HTTP2]
        started = [self.lab.spawn(name, [sys.executable, str(HERE.with_name("application.py")), name, *plain])]
        if OVER_HTTP2[0] in behind:
            ports = [str(behind[service]) for service in OVER_HTTP2]
            started.append(
                self.lab.spawn(
                    f"{name}-grpc", [sys.executable, str(HERE.with_name("grpc_application.py")), name, *ports]
                )
            )
        return started

    @functools.cached_property
    def outside(self):
        """Runs from when it is first asked for."""
        pem = self_signed("localhost")
        path = self.lab.dir / "outside.pem"
        path.write_bytes(pem)
        port = free_port()
        script = str(HERE.with_name("application.py"))
        self.lab.spawn("outside", [sys.executable, script, "outside", "--tls", str(port), str(path), str(path)])
        end = b"-----END CERTIFICATE-----\n"
        begin = pem.index(b"-----BEGIN CERTIFICATE")
        return Outside(port, pem[begin : pem.index(end, begin) + len(end)].decode())

    def kill_application(self, name):
        for process in self.applications[name][1]:
            process.kill()

    def start_application(self, name):
        behind, _ = self.applications[name]
        self.applications[name] = (behind, self.run_application(name, behind))

    def settled(self):
        """Wait until all instances answer. Requests over one HTTP/2 connection to an ingress end at one."""
        is_one = self.speaks_http
        eventually(lambda: answered_by(self.places["web"], 12, is_one=is_one), 30)
        eventually(lambda: answered_by(self.places["raw"], 12), 30)
        eventually(lambda: all(ask(self.places[s]).body == "b-0" for s in ("far", "far-raw")), 30)
        # What was tried before it was there is left alone for a few seconds.
        eventually(lambda: not self.left_alone(), 30)

    def left_alone(self):
        """Endpoints that Envoys have ejected."""
        hops = [hop for hop in ("client", "egress", "ingress") if self.engine(hop) == "envoy"]
        return sum(sum(self.stats(hop, "ejections_active$").values()) for hop in hops)

    @property
    def speaks_http(self):
        """Whether the client's proxy knows requests of services that are no tcp."""
        return (self.combination.client, self.combination.instance) == ("envoy", "envoy")

    def knows_requests(self, service):
        """Whether the client's proxy sees requests of a service, and not bytes."""
        return self.speaks_http and PROTOCOLS[service] != "tcp"

    # ------------------------------------------------------------------ changes

    def left_behind(self):
        """Wait until the clusters that earlier changes have left are gone: a zone removes them some seconds later."""
        time.sleep(max(0.0, self.changed_at + 2 * RETIRE_S + 2 - time.monotonic()))

    def put(self, resource):
        self.changed_at = time.monotonic()
        self.lab.put("global", resource)
        self.changed.add(lab_.path_of(resource))

    def delete(self, path):
        self.changed_at = time.monotonic()
        self.lab.delete("global", path)
        self.changed.discard(path)

    def reset(self):
        """Take back what cases have put, and wait until everybody is as at the start."""
        for path in sorted(self.changed):
            self.delete(path)
        self.mesh()
        self.settled()

    def mesh(self, *, life="", **routing):
        """Make the mesh what is said, and the usual in all else. ``life`` is that of a certificate."""
        wanted = lab_.mesh(**routing)
        if life:
            wanted["mtls"]["backends"][0]["dpCert"] = {"rotation": {"expiration": life}}
        if wanted != self.current_mesh:
            self.changed_at = time.monotonic()
            self.current_mesh = wanted
            self.lab.put("global", wanted)

    # ------------------------------------------------------------------ what proxies count

    def engine(self, hop):
        return getattr(self.combination, hop if hop in ("client", "egress", "ingress") else "instance")

    def zone(self, hop):
        return self.zone_of.get(hop, "zone-b")

    def key(self, hop):
        if hop in ("egress", "ingress"):
            return ResourceKey({"egress": "ZoneEgress", "ingress": "ZoneIngress"}[hop], "", hop)
        return ResourceKey("Dataplane", "default", hop)

    def stats(self, hop, pattern=""):
        """Statistics of an Envoy by name: counters and gauges."""
        text = self.admin(hop, f"/stats?filter={pattern}")
        found = re.findall(r"^(\S+): (\d+)$", text, re.MULTILINE)
        return {name: int(value) for name, value in found}

    def admin(self, hop, target):
        state = self.lab.dir / self.zone(hop) / self.zone(hop)
        at = places(state, self.key(hop), runtime_directory(os.environ, os.getuid()))
        connection = http.client.HTTPConnection("envoy", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(at.admin_socket))
        try:
            connection.request("GET", target)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def connections(self, hop, port=None):
        """How many connections a hop has taken, at one port or at all."""
        if self.engine(hop) == "envoy":
            pattern = rf"^listener\..*{f'_{port}' if port else ''}\.downstream_cx_total$"
            found = self.stats(hop, pattern)
            return sum(v for k, v in found.items() if "admin" not in k and "worker_" not in k)
        key = self.key(hop)
        proxy = f'proxy="{key.kind}/{key.mesh}/{key.name}"' if key.mesh else f'proxy="{key.kind}/{key.name}"'
        found = {}
        for metric in ("meshd_l4_connections_total", "meshd_l4_open_connections"):
            found |= self.lab.metrics(self.zone(hop), metric)
        return sum(v for k, v in found.items() if proxy in k and (not port or f':{port}"' in k))

    def failed_attempts(self):
        """How many connections the client's proxy could not make."""
        if self.engine("client") == "envoy":
            return sum(self.stats("client", r"^cluster\.(web|raw)\.upstream_cx_connect_fail$").values())
        found = self.lab.metrics("zone-a", "meshd_l4_upstream_attempts_total")
        return sum(v for k, v in found.items() if 'proxy="Dataplane/default/client"' in k and 'outcome="ok"' not in k)

    def envoys(self, zone=None):
        """Process ids of Envoys by the name of their proxy, of one zone or all."""
        under = self.lab.dir / zone if zone else self.lab.dir
        found = self.lab.envoys()
        return {p.parent.name.split("-", 1)[1].rsplit("-", 1)[0]: f.pid for p, f in found.items() if under in p.parents}


def answered_by(place, count, *, is_one=False):
    """Whether all instances answer ``count`` requests and nobody else, or ``is_one``: one of zone-b is enough."""
    found = set(spread(place, count))
    return found in ([{"a-0", "b-0", "b-1"}] + ([{"a-0", "b-0"}, {"a-0", "b-1"}] if is_one else []))


@contextmanager
def world(directory, combination):
    """Start one; yields it once every service answers."""
    with Lab(directory) as lab:
        made = World(lab, combination)
        made.start()
        yield made
        for zone in made.proxies:
            process = lab.zones[zone].process
            if process.popen.poll() is None:
                process.popen.send_signal(signal.SIGINT)  # Ctrl-C leaves no Envoy behind
                process.popen.wait(20)
