"""What hosts and pods see of a zone's names through what stands between: dnsmasq, CoreDNS, and other libcs' resolvers.

Run as ``unshare -Urnm --fork python -m tests.e2e.dns_hosts DIRECTORY``: needs no root, only user namespaces. Everything
is as the documents say: dnsmasq has the file of ``meshd dns install``, CoreDNS the block of ``meshd dns kubernetes``,
a pod the resolv.conf that kubelet writes. What is not installed is left out, and named under "not tried". Prints one
JSON object of what was seen.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e import lab as lab_
from tests.e2e.dns_clients import UPSTREAM, Upstream, said, sh
from tests.e2e.lab import Lab, builtin, eventually, free_port

HOST, HOST_6 = "10.77.0.1", "fd77::1"
DNSMASQ, COREDNS = "127.0.0.2", "127.0.0.3"
MESHD = (sys.executable, "-m", "meshd")
POD = f"nameserver {COREDNS}\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
CLUSTER = f"""\
.:53 {{
    bind {COREDNS}
    errors
    template IN A db.shop.svc.cluster.local {{
        answer "{{{{ .Name }}}} 5 IN A 10.96.7.7"
    }}
    template ANY ANY db.shop.svc.cluster.local {{
        rcode NOERROR
    }}
    template ANY ANY cluster.local {{
        rcode NXDOMAIN
        authority "cluster.local 5 IN SOA ns.cluster.local hostmaster.cluster.local 1 2 3 4 5"
    }}
    forward . {UPSTREAM}
}}
"""
MUSL = r"""
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

int main(int count, char **names) {
    for (int i = 1; i < count; i++) {
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *one;
        int error = getaddrinfo(names[i], "80", &hints, &found);
        printf("%s", names[i]);
        if (error) printf(" %s", gai_strerror(error));
        for (one = error ? 0 : found; one; one = one->ai_next) {
            char text[INET6_ADDRSTRLEN] = "";
            void *at = one->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
                                                 : (void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
            inet_ntop(one->ai_family, at, text, sizeof text);
            printf(" %s", text);
        }
        puts("");
    }
}
"""
JAVA = """
import java.net.*;

public class Lookup {
    public static void main(String[] names) {
        for (String name : names) {
            try { System.out.println(name + " " + InetAddress.getByName(name).getHostAddress()); }
            catch (UnknownHostException e) { System.out.println(name + " unknown"); }
        }
    }
}
"""


class Host:
    """The files that a resolver of this host reads."""

    def __init__(self, directory):
        self.resolv_conf = directory / "resolv.conf"
        self.resolv_conf.write_text("")
        (directory / "nsswitch.conf").write_text("hosts: files dns\n")
        sh("mount", "--bind", str(self.resolv_conf), "/etc/resolv.conf")
        sh("mount", "--bind", str(directory / "nsswitch.conf"), "/etc/nsswitch.conf")

    def asks(self, text):
        self.resolv_conf.write_text(text)


@contextlib.contextmanager
def running(*argv, answers):
    """A server, once it answers for a name at an address; its log if it does not."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            eventually(lambda: process.poll() is None and "status:" in said("dig", f"@{answers}", "+tries=1", "x.mesh"))
            yield
        except BaseException:
            process.terminate()
            print(process.stdout.read(), file=sys.stderr)
            raise
        process.terminate()


def libc(*names):
    """The IPv4 address that glibc has for each; and the seconds that all took, both families asked."""
    began = time.monotonic()
    found = {name: said("getent", "ahostsv4", name).split()[:1] for name in names}
    for name in names:
        said("getent", "ahosts", name)
    return {**found, "seconds": round(time.monotonic() - began, 3)}


def by_dnsmasq(directory, host):
    root = directory / "dnsmasq-host"
    (root / "etc/dnsmasq.d").mkdir(parents=True)
    sh(
        *MESHD,
        "dns",
        "install",
        "--root",
        str(root),
        "--method",
        "dnsmasq",
        "--server",
        f"{HOST}:53",
        "--cidr",
        "127.0.0.0/8",
    )
    host.asks(f"nameserver {DNSMASQ}\n")
    # No daemon: in a user namespace it cannot become somebody else.
    argv = ("dnsmasq", "--no-daemon", "--conf-file=/dev/null", f"--conf-dir={root}/etc/dnsmasq.d",
            "--no-resolv", "--no-hosts", f"--server={UPSTREAM}",
            "--stop-dns-rebind", "--rebind-domain-ok=/example.org/",
            f"--listen-address={DNSMASQ}", "--bind-interfaces")  # fmt: skip
    with running(*argv, answers=DNSMASQ):
        vip = said("dig", "+short", "web.mesh")
        return {
            "dig": vip,
            "dig, tcp": said("dig", "+tcp", "+short", "WEB.mesh"),
            "dig, unknown": "NXDOMAIN" in said("dig", "unknown.mesh"),
            "dig, reverse": said("dig", "+short", "-x", vip),
            "libc": libc("web.mesh", "unknown.mesh", "www.example.org"),
            "curl": said("curl", "-s", "--noproxy", "*", "-m", "5", "http://web.mesh/"),
        }


def by_musl(directory, host):
    (directory / "lookup.c").write_text(MUSL)
    program = str(directory / "lookup")
    sh("musl-gcc", "-static", "-o", program, str(directory / "lookup.c"))
    names = ("web.mesh", "WEB.Mesh", "unknown.mesh", "www.example.org")
    host.asks(f"nameserver {HOST}\n")
    return said(program, *names).splitlines()


def by_coredns(directory, host, coredns):
    block = sh(*MESHD, "dns", "kubernetes", "--server", f"{HOST}:53")
    # Here CoreDNS shares the address that it listens on with nobody; in a cluster that of its pod is its own.
    (directory / "Corefile").write_text(CLUSTER + block.replace("{\n", f"{{\n    bind {COREDNS}\n", 1))
    host.asks(POD)
    names = ("web.mesh", "web.mesh.", "db", "unknown.mesh", "www.example.org")
    seen = {}
    with running(coredns, "-conf", str(directory / "Corefile"), answers=COREDNS):
        seen["libc"] = libc(*names)
        seen["dig"] = said("dig", f"@{COREDNS}", "+short", "web.mesh")
        seen["dig, AAAA"] = said("dig", f"@{COREDNS}", "+short", "web.mesh", "AAAA")
        if (directory / "lookup").exists():
            seen["musl"] = said(str(directory / "lookup"), *names).splitlines()
        if shutil.which("java"):
            (directory / "Lookup.java").write_text(JAVA)
            seen["java"] = said("java", "-Xshare:auto", str(directory / "Lookup.java"), *names).splitlines()
        if shutil.which("node"):
            # c-ares: by its own protocol code, not libc's. The name as it is, and with the search list of the pod.
            code = "require('dns').resolve4('web.mesh', (e, a) => console.log(e ? e.code : a.join()))"
            seen["c-ares"] = said("node", "-e", code)
    return seen


def by_ipv6(directory, host):
    """With a zone that listens on IPv6 alone."""
    eventually(lambda: said("dig", f"@{HOST_6}", "+short", "web.mesh"), 20)
    host.asks(f"nameserver {HOST_6}\n")
    seen = {
        "dig": said("dig", "+short", "web.mesh"),
        "dig, tcp": said("dig", "+tcp", "+short", "web.mesh"),
        "dig, AAAA": said("dig", "+short", "web.mesh", "AAAA"),
        "libc": libc("web.mesh", "unknown.mesh", "www.example.org"),
    }
    if (directory / "lookup").exists():
        seen["musl"] = said(str(directory / "lookup"), "web.mesh", "unknown.mesh").splitlines()
    return seen


def run(directory):
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "link", "add", "eth0", "type", "bridge")
    sh("ip", "address", "add", f"{HOST}/24", "dev", "eth0")
    sh("ip", "address", "add", f"{HOST_6}/64", "dev", "eth0", "nodad")
    sh("ip", "link", "set", "eth0", "up")
    host, upstream = Host(directory), Upstream()
    seen, missing = {}, []
    with Lab(directory, "memory") as lab:
        application, inbound = free_port(), free_port()
        lab.application("web", application)
        owner = builtin(lab_.vip_client("client"), vips=True)
        web = builtin(lab_.dataplane("web-1", "web", inbound, application))
        zone = lab.configure_zone("solo", federated=False, proxies=[owner, web])
        zone.config["dnsServer"] |= {
            "listen": f"{HOST}:53", "serviceVipPort": 80, "upstreams": [UPSTREAM],
        }  # fmt: skip
        lab.rewrite("solo")
        lab.start("solo")
        lab.put("solo", lab_.mesh())
        lab.put("solo", lab_.allow_all())
        vip = eventually(lambda: said("dig", f"@{HOST}", "+short", "web.mesh"), 20)
        eventually(lambda: lab.fetch("solo", "web.mesh", vip=vip, port=80) == "web")
        seen["vip"] = vip
        coredns = os.environ.get("COREDNS") or shutil.which("coredns")
        for name, tool, look in (
            ("dnsmasq", shutil.which("dnsmasq"), lambda: by_dnsmasq(directory, host)),
            ("musl", shutil.which("musl-gcc"), lambda: by_musl(directory, host)),
            ("coredns", coredns, lambda: by_coredns(directory, host, coredns)),
        ):
            if tool:
                seen[name] = look()
            else:
                missing.append(name)
        zone.process.stop()
        zone.config["dnsServer"]["listen"] = f"[{HOST_6}]:53"
        lab.rewrite("solo")
        lab.start("solo")
        seen["ipv6"] = by_ipv6(directory, host)
        seen["left the mesh"] = sorted(n for n in upstream.asked if n.endswith("mesh."))
        upstream.sock.close()
    return {**seen, "not tried": missing}


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
