"""What real resolvers see of a zone's names: libc's (getent, curl, Python), dig, and Go's own.

Run as ``unshare -Urnm --fork python -m tests.e2e.dns_clients DIRECTORY``: needs no root, only user namespaces. The
host's resolv.conf is the one that ``meshd dns install`` makes, bound over the real one inside the namespace. Prints one
JSON object of what was seen.
"""

import json
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import dnslib

from tests.e2e import lab as lab_
from tests.e2e.lab import Lab, builtin, eventually, free_port

UPSTREAM = "127.0.0.9"
GO = """
package main

import ("context"; "fmt"; "net"; "os")

func main() {
    for _, name := range os.Args[1:] {
        found, err := (&net.Resolver{PreferGo: true}).LookupIP(context.Background(), "ip4", name)
        fmt.Println(name, found, err)
    }
}
"""


def sh(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def said(*argv):
    """What a client says, whatever its exit code."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    return (done.stdout or done.stderr).strip()


class Upstream:
    """The server that was there before: knows every name, and keeps those it was asked for."""

    def __init__(self):
        self.asked = set()
        self.sock = socket.socket(type=socket.SOCK_DGRAM)
        self.sock.bind((UPSTREAM, 53))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                message, peer = self.sock.recvfrom(4096)
            except OSError:
                return
            request = dnslib.DNSRecord.parse(message)
            self.asked.add(str(request.q.qname).lower())
            reply = request.reply(aa=0)
            if request.q.qtype == dnslib.QTYPE.A:
                reply.add_answer(dnslib.RR(request.q.qname, ttl=60, rdata=dnslib.A("192.0.2.7")))
            self.sock.sendto(reply.pack(), peer)


def point_the_host(lab, host):
    """Install on a host's files, and put them in force here."""
    (host / "etc").mkdir(parents=True)
    (host / "etc/resolv.conf").write_text(f"nameserver {UPSTREAM}\n")
    config = str(lab.zones["solo"].path)
    meshd = (sys.executable, "-m", "meshd", "dns")
    sh(*meshd, "install", "--root", str(host), "--config", config, "--method", "resolv.conf")
    (host / "nsswitch.conf").write_text("hosts: files dns\n")
    sh("mount", "--bind", str(host / "etc/resolv.conf"), "/etc/resolv.conf")
    sh("mount", "--bind", str(host / "nsswitch.conf"), "/etc/nsswitch.conf")


def clients(directory):
    seen = {
        "getent": said("getent", "ahostsv4", "web.mesh").split()[:1],
        "getent, another case": said("getent", "ahostsv4", "WEB.Mesh").split()[:1],
        "getent, unknown": said("getent", "ahostsv4", "unknown.mesh"),
        "getent, elsewhere": said("getent", "ahostsv4", "www.example.org").split()[:1],
        "dig": said("dig", "+short", "web.mesh"),
        "dig, unknown": "NXDOMAIN" in said("dig", "unknown.mesh"),
        "dig, tcp": said("dig", "+tcp", "+short", "web.mesh"),
        "curl": said("curl", "-s", "--noproxy", "*", "-m", "5", "http://web.mesh/"),
    }
    try:
        seen["python"] = socket.gethostbyname("web.mesh")
        socket.gethostbyname("unknown.mesh")
    except socket.gaierror as error:
        seen["python, unknown"] = error.errno == socket.EAI_NONAME
    if shutil.which("go"):
        (directory / "main.go").write_text(GO)
        program = str(directory / "lookup")
        subprocess.run(["go", "build", "-o", program, str(directory / "main.go")], check=True, timeout=120)
        seen["go"] = said(program, "web.mesh", "unknown.mesh", "www.example.org").splitlines()
    return seen


def run(directory):
    sh("ip", "link", "set", "lo", "up")
    # getent asks for addresses of the kinds that the host has (AI_ADDRCONFIG), which loopback's are not.
    sh("ip", "link", "add", "eth0", "type", "bridge")
    sh("ip", "address", "add", "10.77.0.1/24", "dev", "eth0")
    sh("ip", "link", "set", "eth0", "up")
    upstream = Upstream()
    host = directory / "host"
    with Lab(directory, "memory") as lab:
        application, inbound = free_port(), free_port()
        lab.application("web", application)
        owner = builtin(lab_.vip_client("client"), vips=True)
        web = builtin(lab_.dataplane("web-1", "web", inbound, application))
        zone = lab.configure_zone("solo", federated=False, proxies=[owner, web])
        zone.config["dnsServer"] |= {
            "listen": "127.0.0.1:53",
            "serviceVipPort": 80,
            "resolvConf": str(host / "etc/meshd/upstreams.conf"),
        }
        lab.rewrite("solo")
        zone.dns = 53
        point_the_host(lab, host)
        lab.start("solo")
        lab.put("solo", lab_.mesh())
        lab.put("solo", lab_.allow_all())
        vip = lab.resolve("solo", "web.mesh", 20)
        eventually(lambda: lab.fetch("solo", "web.mesh", vip=vip, port=80) == "web")
        seen = {"vip": vip, **clients(directory)}
        meshd = (sys.executable, "-m", "meshd", "--cp", f"http://127.0.0.1:{zone.rest}", "dns", "query")
        seen["query"] = said(*meshd, "web.mesh").splitlines()
        seen["query, unknown"] = said(*meshd, "wep.mesh").splitlines()
        seen["status"] = said(sys.executable, "-m", "meshd", "dns", "status", "--root", str(host)).splitlines()
        lab.zones["solo"].process.stop()
        # libc goes on to the server behind ours.
        seen["without meshd"] = said("getent", "ahostsv4", "other.example.org").split()[:1]
        seen["left the mesh"] = sorted(n for n in upstream.asked if n.endswith("mesh."))
        upstream.sock.close()
    return seen


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
