"""A host per zone, in network namespaces: 240.0.0.0/4, port 80, KDS over TLS, and a link that goes down.

Run as ``unshare -Urnm --fork python -m tests.e2e.netns_scenario DIRECTORY``: needs no root, only user namespaces.
Prints one JSON object of what it saw.
"""

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.e2e import lab as lab_
from tests.e2e.lab import Lab, ask, builtin, eventually

CLONE_NEWNET = 0x40000000
HOSTS = {"global": "10.77.0.1", "zone-a": "10.77.0.2", "zone-b": "10.77.0.3"}
LIBC = ctypes.CDLL(None, use_errno=True)


def sh(*argv):
    subprocess.run(argv, check=True, capture_output=True)


def build_hosts():
    """A bridge with one host hanging from it for every control plane."""
    sh("mount", "-t", "tmpfs", "none", "/run")
    sh("ip", "link", "add", "br0", "type", "bridge")
    sh("ip", "link", "set", "br0", "up")
    for host, address in HOSTS.items():
        inside = ("ip", "-n", host)
        sh("ip", "netns", "add", host)
        sh("ip", "link", "add", f"to-{host}", "type", "veth", "peer", "name", "eth0", "netns", host)
        sh("ip", "link", "set", f"to-{host}", "master", "br0", "up")
        sh(*inside, "addr", "add", f"{address}/24", "dev", "eth0")
        sh(*inside, "link", "set", "eth0", "up")
        sh(*inside, "link", "set", "lo", "up")
        if host != "global":
            sh(*inside, "route", "add", "local", "240.0.0.0/4", "dev", "lo")


def enter(fd):
    if LIBC.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def in_namespace(name, question):
    """Call ``question()`` in a thread that lives in the network namespace."""
    result = {}

    def run():
        fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            enter(fd)
            result["value"] = question()
        except BaseException as error:  # noqa: BLE001  # handed to the caller
            result["error"] = error
        finally:
            os.close(fd)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if "error" in result:
        raise result["error"]
    return result["value"]


class NamespaceLab(Lab):
    """A lab whose control planes each have a host of their own."""

    def inside(self, name, question):
        return in_namespace(name, question)

    def on_host(self, name):
        self.zones[name].prefix = ["ip", "netns", "exec", name]


def certificate(directory):
    """A self-signed certificate for the global's KDS."""
    sh("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=global",
       "-addext", f"subjectAltName=IP:{HOSTS['global']}",
       "-keyout", str(directory / "kds.key"), "-out", str(directory / "kds.pem"))  # fmt: skip


def configure(lab, *, egress):
    lab.kds = 5685
    lab.configure_global()
    kds = lab.zones["global"].config["multizone"]["global"]["kds"]
    kds.update(interface="0.0.0.0", tlsEnabled=True,
               tlsCertFile=str(lab.dir / "kds.pem"), tlsKeyFile=str(lab.dir / "kds.key"))  # fmt: skip
    for zone in ("zone-a", "zone-b"):
        address = HOSTS[zone]
        proxies = [
            builtin(lab_.vip_client(f"client-{zone}", address=address), vips=True),
            builtin(lab_.zone_ingress(f"ingress-{zone}", 10001, address)),
            builtin(lab_.dataplane(f"payments-{zone}-0", "payments", 7070, 7071, address=address)),
        ]
        if egress:
            proxies.append(builtin(lab_.zone_egress(f"egress-{zone}", 10002, address)))
        configured = lab.configure_zone(zone, proxies=proxies)
        settings = configured.config["multizone"]["zone"]
        settings["globalAddress"] = f"grpcs://{HOSTS['global']}:5685"
        settings["kds"]["rootCaFile"] = str(lab.dir / "kds.pem")
        configured.config["dnsServer"].update(CIDR="240.0.0.0/4", serviceVipPort=80)
    for name in HOSTS:
        lab.on_host(name)
        lab.rewrite(name)


def run(directory):
    seen = {}
    build_hosts()
    certificate(directory)
    with NamespaceLab(directory) as lab:
        configure(lab, egress=True)
        lab.start("global")
        lab.put("global", lab_.mesh())
        lab.put("global", lab_.allow_all())
        for zone in ("zone-a", "zone-b"):
            lab.mint_zone_token(zone)
            lab.start(zone)
            lab.application(f"payments-{zone}-0", 7071, prefix=lab.zones[zone].prefix)
        vip = lab.resolve("zone-a", "payments.mesh", 20)
        seen["vip"] = vip
        seen["curl"] = eventually(lambda: lab.fetch("zone-a", "payments.mesh", vip=vip, port=80), 20)

        def both(count=40):
            spread = lab.spread(vip, count, 80)
            return spread if len(spread) == 2 and None not in spread else None

        seen["ingress only"] = dict(eventually(both, 20))
        lab.put("global", lab_.mesh(egress=True))
        time.sleep(1)
        seen["through egress"] = dict(eventually(both, 20))
        egress = lab.metrics("zone-a", "meshd_l4_connections_total")
        seen["egress connections"] = sum(v for s, v in egress.items() if "egress-zone-a" in s)

        sh("ip", "link", "set", "to-zone-b", "down")
        began = time.monotonic()
        answers = []

        def load():
            while time.monotonic() - began < 12:
                asked = time.monotonic() - began
                answers.append((asked, ask(vip, 80), time.monotonic() - began - asked))
                time.sleep(0.05)

        lab.inside("zone-a", load)
        seen["link down: failed"] = sum(not a for _, a, _ in answers)
        seen["link down: slowest request s"] = round(max(t for _, _, t in answers), 2)
        seen["link down: only own zone after 10 s"] = all(a == "payments-zone-a-0" for t, a, _ in answers if t > 10)
        eventually(lambda: not lab.online("zone-b"), 30)
        seen["link down: offline after s"] = round(time.monotonic() - began, 1)
        sh("ip", "link", "set", "to-zone-b", "up")
        back = time.monotonic()
        eventually(lambda: lab.spread(vip, 10, 80)["payments-zone-b-0"], 30)
        seen["link up: traffic back after s"] = round(time.monotonic() - back, 1)
        eventually(lambda: lab.online("zone-b"), 40)
        seen["link up: online after s"] = round(time.monotonic() - back, 1)
    return seen


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
