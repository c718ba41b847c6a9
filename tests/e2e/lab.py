"""A laboratory of real processes: control planes, example applications, and the questions a user would ask of them.

Every process is started with its own configuration file and stopped by its own process id. Ports are taken from the
kernel, VIP ranges are one /16 of 127/8 a zone, so that an ordinary user can run several labs side by side.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import yaml

from meshd.envoy.processes import envoys_under
from tests.ports import free_port, free_range, free_udp_tcp_port

STARTUP_S = 30
VIP_PORT = 8080


def eventually(check, within_s=10.0, every_s=0.05):
    """Call ``check`` until it returns something true; returns that. Its last exception or value tells why not."""
    deadline = time.monotonic() + within_s
    while True:
        error, value = None, None
        try:
            value = check()
        except (AssertionError, OSError, httpx.HTTPError, subprocess.SubprocessError, ValueError, KeyError) as e:
            error = e
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: last value {value!r}, last error {error!r}")
        time.sleep(every_s)


@dataclass
class Process:
    """One running program and its log file."""

    name: str
    popen: subprocess.Popen
    log: Path

    def kill(self):
        self.popen.kill()
        self.popen.wait(10)

    def pause(self):
        self.popen.send_signal(signal.SIGSTOP)

    def resume(self):
        self.popen.send_signal(signal.SIGCONT)

    def stop(self, within_s=15):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.terminate()
            try:
                self.popen.wait(within_s)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(5)
                raise AssertionError(f"{self.name} did not stop within {within_s} s:\n{self.text()[-3000:]}") from None
        return self.popen.returncode

    def text(self):
        return self.log.read_text(errors="replace")


@dataclass
class Zone:
    """A control plane's addresses and its configuration, before and while it runs."""

    name: str
    rest: int
    diagnostics: int
    config: dict
    path: Path
    dns: int = 0
    dp: int = 0
    """The port of the dp-server."""
    cidr: str = ""
    process: Process | None = None
    prefix: list = field(default_factory=list)


class Lab:
    """Owns a directory and every process in it."""

    def __init__(self, directory: Path, store="sqlite"):
        self.dir = directory
        self.store = store
        self.processes: list[Process] = []
        self.zones: dict[str, Zone] = {}
        self.held: list[socket.socket] = []
        self.kds = free_port()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        problems = []
        for process in reversed(self.processes):
            try:
                process.stop()
            except AssertionError as error:
                problems.append(str(error))
        for held in self.held:
            held.close()
        # Envoys outlive a meshd that was killed and never started again.
        for found in self.envoys().values():
            os.kill(found.pid, signal.SIGKILL)
            if all(process.popen.returncode == 0 for process in self.processes if process.name in self.zones):
                problems.append(f"an Envoy was left running: {' '.join(found.argv)}")
        if exc[0] is not None:
            for process in self.processes:
                if process.log.exists():
                    print(f"---- {process.name} ----\n{process.text()[-2500:]}")
        elif problems:
            raise AssertionError("\n".join(problems))

    def inside(self, name, question):  # noqa: ARG002  # a lab of network namespaces overrides this and needs it
        """Call ``question()`` where a control plane lives."""
        return question()

    def envoys(self):
        """The Envoys that control planes of this lab have started, by their bootstrap files."""
        return envoys_under(self.dir, os.getuid())

    # ------------------------------------------------------------------ processes
    def spawn(self, name, argv, env=None, prefix=()):
        log = self.dir / f"{name}.log"
        with log.open("ab") as out:
            popen = subprocess.Popen(
                [*prefix, *argv],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                cwd=self.dir,
            )
        process = Process(name, popen, log)
        self.processes.append(process)
        return process

    def _store(self, name):
        if self.store == "memory":
            return {"type": "memory"}
        return {"type": "sqlite", "sqlite": {"path": str(self.dir / f"{name}.db")}}

    def configure_global(self, **extra):
        rest, diagnostics = free_port(), free_port()
        config = {
            "mode": "global",
            "store": self._store("global"),
            "general": {"workDir": str(self.dir / "global")},
            "multizone": {"global": {"kds": {"grpcPort": self.kds, "interface": "127.0.0.1", "tlsEnabled": False}}},
            "apiServer": {"http": {"port": rest, "interface": "127.0.0.1"}},
            "diagnostics": {"serverPort": diagnostics, "serverInterface": "127.0.0.1"},
        }
        return self._configured("global", rest, diagnostics, config | extra)

    def configure_zone(self, name, *, federated=True, proxies=(), **extra):
        rest, diagnostics, dp, dns = free_port(), free_port(), free_port(), free_udp_tcp_port()
        cidr, held = free_range()
        self.held.append(held)
        zone = {"name": name}
        if federated:
            zone["globalAddress"] = f"grpc://127.0.0.1:{self.kds}"
            zone["kds"] = {"tokenFile": str(self.dir / f"{name}.token")}
        config = {
            "mode": "zone",
            "store": self._store(name),
            "general": {"workDir": str(self.dir / name)},
            "multizone": {"zone": zone},
            "apiServer": {"http": {"port": rest, "interface": "127.0.0.1"}},
            "diagnostics": {"serverPort": diagnostics, "serverInterface": "127.0.0.1"},
            "dnsServer": {"domain": "mesh", "CIDR": cidr, "serviceVipPort": VIP_PORT, "listen": f"127.0.0.1:{dns}"},
            "dpServer": {"interface": "127.0.0.1", "port": dp},
            "proxies": list(proxies),
        }
        configured = self._configured(name, rest, diagnostics, config | extra)
        configured.dns, configured.dp, configured.cidr = dns, dp, cidr
        return configured

    def _configured(self, name, rest, diagnostics, config):
        path = self.dir / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        self.zones[name] = Zone(name, rest, diagnostics, config, path)
        return self.zones[name]

    def rewrite(self, name):
        """Write the (changed) configuration of a control plane again, for its next start."""
        zone = self.zones[name]
        zone.path.write_text(yaml.safe_dump(zone.config, sort_keys=False))

    def start(self, name, wait=True):
        zone = self.zones[name]
        argv = [sys.executable, "-m", "meshd", "--config", str(zone.path)]
        zone.process = self.spawn(name, argv, prefix=zone.prefix)
        if wait:
            self.ready(name)
        return zone.process

    def ready(self, name, within_s=STARTUP_S):
        zone = self.zones[name]

        def check():
            assert zone.process.popen.poll() is None, f"{name} ended:\n{zone.process.text()[-3000:]}"
            url = f"http://127.0.0.1:{zone.diagnostics}/ready"
            return self.inside(name, lambda: httpx.get(url)).status_code == 200

        eventually(check, within_s)

    def application(self, name, port, address="127.0.0.1", prefix=()):
        """The example HTTP service: answers every request with its own name."""
        script = str(Path(__file__).with_name("application.py"))
        return self.spawn(name, [sys.executable, script, address, str(port), name], prefix=prefix)

    # ------------------------------------------------------------------ control
    def url(self, name):
        return f"http://127.0.0.1:{self.zones[name].rest}"

    def put(self, name, resource, expect=(200, 201)):
        path = path_of(resource)
        answer = self.inside(name, lambda: httpx.put(self.url(name) + path, json=resource, timeout=10))
        assert answer.status_code in expect, f"PUT {path} at {name}: {answer.status_code} {answer.text}"
        return answer

    def get(self, name, path, expect=200):
        answer = self.inside(name, lambda: httpx.get(self.url(name) + path, timeout=10))
        assert answer.status_code == expect, f"GET {path} at {name}: {answer.status_code} {answer.text}"
        return answer.json()

    def delete(self, name, path, expect=200):
        answer = self.inside(name, lambda: httpx.delete(self.url(name) + path, timeout=10))
        assert answer.status_code == expect, f"DELETE {path} at {name}: {answer.status_code} {answer.text}"

    def mint_zone_token(self, zone, *, scope=("cp",), valid_for="24h", claim=None, to=None):
        body = {"zone": claim if claim is not None else zone, "scope": list(scope), "validFor": valid_for}
        answer = self.inside("global", lambda: httpx.post(self.url("global") + "/tokens/zone", json=body, timeout=10))
        assert answer.status_code == 200, answer.text
        path = to or self.dir / f"{zone}.token"
        Path(path).write_text(answer.text)
        return answer.text

    def online(self, zone):
        """Whether the global shows the zone online."""
        insight = self.get("global", f"/zones/{zone}/_overview").get("zoneInsight", {})
        return any("connectTime" in s and "disconnectTime" not in s for s in insight.get("subscriptions", []))

    def metrics(self, name, contains=""):
        """Prometheus samples of a control plane as {series: value}."""
        url = f"http://127.0.0.1:{self.zones[name].diagnostics}/metrics"
        text = self.inside(name, lambda: httpx.get(url, timeout=10)).text
        rows = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {series: float(value) for series, value in rows if contains in series}

    # ------------------------------------------------------------------ the user's questions
    def dig(self, zone, name, *options):
        """The answer section of dig, as a list of addresses."""
        z = self.zones[zone]
        out = subprocess.run(
            [*z.prefix, "dig", "@127.0.0.1", "-p", str(z.dns), name, "+short", "+time=2", "+tries=1", *options],
            capture_output=True,
            text=True,
            timeout=15,
            check=True,
        )
        return out.stdout.split()

    def resolve(self, zone, name, within_s=10.0):
        return eventually(lambda: self.dig(zone, name), within_s)[0]

    def fetch(self, zone, name, *, port=VIP_PORT, timeout_s=10.0, vip=None):
        """GET / of a service by name from a zone, over a new connection; returns the body."""
        vip = vip or self.resolve(zone, name)
        z = self.zones[zone]
        out = subprocess.run(
            [*z.prefix, "curl", "-sS", "--max-time", str(timeout_s), f"http://{vip}:{port}/"],
            capture_output=True,
            text=True,
            timeout=timeout_s + 5,
        )
        if out.returncode:
            raise OSError(f"curl {name} from {zone}: exit {out.returncode}: {out.stderr.strip()}")
        return out.stdout.strip()

    def spread(self, vip, count, port=VIP_PORT, zone="zone-a"):
        """Who answered over ``count`` new connections from a zone, and how many failed (key None)."""
        return self.inside(zone, lambda: Counter(ask(vip, port) for _ in range(count)))


def ask(address, port, timeout_s=10.0):
    """One HTTP/1.0 request over one new connection; the body, or None if it failed."""
    try:
        with socket.create_connection((address, port), timeout_s) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            data = b""
            while chunk := s.recv(4096):
                data += chunk
    except OSError:
        return None
    head, _, body = data.partition(b"\r\n\r\n")
    return body.decode().strip() if head.startswith(b"HTTP/1.0 200") else None


PATHS = {
    "Mesh": "meshes",
    "Zone": "zones",
    "ZoneIngress": "zoneingresses",
    "ZoneEgress": "zoneegresses",
    "GlobalSecret": "globalsecrets",
    "Dataplane": "dataplanes",
    "MeshTrafficPermission": "meshtrafficpermissions",
    "MeshHTTPRoute": "meshhttproutes",
    "MeshTCPRoute": "meshtcproutes",
    "MeshTimeout": "meshtimeouts",
    "MeshRetry": "meshretries",
    "ExternalService": "external-services",
    "Secret": "secrets",
}


def path_of(resource):
    plural = PATHS[resource["type"]]
    mesh = resource.get("mesh")
    return f"/meshes/{mesh}/{plural}/{resource['name']}" if mesh else f"/{plural}/{resource['name']}"


# ---------------------------------------------------------------------- resources
def mesh(name="default", *, egress=False, locality=False, mtls=True, mode="STRICT"):
    resource = {"type": "Mesh", "name": name}
    if mtls:
        backend = {"name": "ca-1", "type": "builtin", "mode": mode}
        resource["mtls"] = {"enabledBackend": "ca-1", "backends": [backend]}
    routing = {}
    if egress:
        routing["zoneEgress"] = True
    if locality:
        routing["localityAwareLoadBalancing"] = True
    if routing:
        resource["routing"] = routing
    return resource


def allow_all(name="allow-all", mesh_name="default"):
    return {
        "type": "MeshTrafficPermission",
        "mesh": mesh_name,
        "name": name,
        "spec": {
            "targetRef": {"kind": "Mesh"},
            "from": [{"targetRef": {"kind": "Mesh"}, "default": {"action": "Allow"}}],
        },
    }


def dataplane(name, service, port, service_port, *, mesh_name="default", address="127.0.0.1", tags=None, outbound=()):
    networking = {
        "address": address,
        "inbound": [
            {
                "port": port,
                "servicePort": service_port,
                "serviceAddress": "127.0.0.1",
                "tags": {"kuma.io/service": service, "kuma.io/protocol": "tcp", **(tags or {})},
            }
        ],
    }
    if outbound:
        networking["outbound"] = list(outbound)
    return {"type": "Dataplane", "mesh": mesh_name, "name": name, "networking": networking}


def vip_client(name, *, mesh_name="default", address="127.0.0.1", tags=None):
    """The Dataplane of a host that only calls: it owns the host's VIPs."""
    return {
        "type": "Dataplane",
        "mesh": mesh_name,
        "name": name,
        "networking": {
            "address": address,
            "gateway": {"type": "DELEGATED", "tags": {"kuma.io/service": name, **(tags or {})}},
        },
    }


def zone_ingress(name, port, address="127.0.0.1"):
    return {
        "type": "ZoneIngress",
        "name": name,
        "networking": {"address": address, "port": port, "advertisedAddress": address, "advertisedPort": port},
    }


def zone_egress(name, port, address="127.0.0.1"):
    return {"type": "ZoneEgress", "name": name, "networking": {"address": address, "port": port}}


def builtin(resource, **extra):
    return run_by("builtin", resource, **extra)


def run_by(engine, resource, **extra):
    """An entry of ``proxies``. Envoys get one worker: a lab has many."""
    workers = {"concurrency": 1} if engine == "envoy" else {}
    return {"engine": engine, "resource": resource, **workers, **extra}


def dump(path):
    return json.dumps(path, indent=1, sort_keys=True)
