"""How a host's own resolver is told to ask meshd for the mesh's names: which files, which commands. Pure.

============  ================================================================================================
method        what it does
============  ================================================================================================
resolved      a unit makes a link of its own with our server and a routing-only domain (``~mesh``), at each boot
              and each restart of systemd-resolved: exactly the mesh's names come to us
resolved-     a drop-in of resolved.conf. No link is made, but systemd-resolved asks its global servers for all
dropin        other names as well, beside those of the links (seen with systemd 252)
dnsmasq       a drop-in of dnsmasq: ``server=/mesh/...``
resolv.conf   our server comes first in resolv.conf; needs port 53, which is all that libc knows
============  ================================================================================================
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, ip_address

from meshd.dns.settings import DNS_PORT, Address
from meshd.model.errors import InvalidError, Violation

METHODS = ("resolved", "resolved-dropin", "dnsmasq", "resolv.conf")
RESOLV_CONF = "/etc/resolv.conf"
UPSTREAMS = "/etc/meshd/upstreams.conf"
"""The resolv.conf of before, for ``dnsServer.resolvConf``."""
UNIT = "/etc/systemd/system/meshd-dns.service"
ENABLED = "/etc/systemd/system/multi-user.target.wants/meshd-dns.service"
DROP_IN = "/etc/systemd/resolved.conf.d/meshd.conf"
DNSMASQ = "/etc/dnsmasq.d/meshd.conf"
LINK = "meshd-dns"
LINK_ADDRESS = "169.254.53.53/32"
"""systemd-resolved uses a link that is up and has an address of global scope. This one is routed nowhere."""
MAX_REVERSE_ZONES = 64
"""A range whose reverse names take more zones than that is left out: each is a setting of its own."""
MAX_NAMESERVERS = 3
"""MAXNS of libc: it does not read further."""


@dataclass(frozen=True, slots=True)
class File:
    """What is to be at an absolute path: ``text`` in a regular file, or a symbolic link to ``link``."""

    path: str
    text: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``install`` does: files in order, then commands; ``undo`` are the commands after the files are as before."""

    method: str
    files: tuple[File, ...]
    commands: tuple[tuple[str, ...], ...] = ()
    undo: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Names:
    """Whose names, and where meshd answers them."""

    domain: str
    server: Address
    vips: IPv4Network | None = None

    @property
    def domains(self) -> tuple[str, ...]:
        """The domain, and those of its virtual IPs' reverse names."""
        return (self.domain, *(reverse_zones(self.vips) if self.vips is not None else ()))


def reverse_zones(network: IPv4Network) -> tuple[str, ...]:
    """The zones that the reverse names of a network fill exactly, none if there would be too many."""
    octets = -(-network.prefixlen // 8) or 1
    count = 2 ** (8 * octets - network.prefixlen)
    if count > MAX_REVERSE_ZONES:
        return ()
    return tuple(
        ".".join(str(part) for part in subnet.network_address.packed[octets - 1 :: -1]) + ".in-addr.arpa"
        for subnet in network.subnets(new_prefix=8 * octets)
    )


def detect(resolv_conf: str, link: str, *, has_dnsmasq: bool) -> str:
    """The method that fits a host: by the text of its resolv.conf, and where that links to, if it is a link."""
    words = [line.split() for line in resolv_conf.splitlines()]
    servers = [word[1] for word in words if word[:1] == ["nameserver"] and len(word) > 1]
    if "systemd/resolve" in link or "127.0.0.53" in servers:
        return "resolved"
    if has_dnsmasq and any(_is_loopback(server) for server in servers):
        return "dnsmasq"
    return "resolv.conf"


def plan(method: str, names: Names, resolv_conf: str, link: str, *, alone: bool = False) -> Plan:
    """What to do for a method. ``resolv_conf`` and ``link``: as for ``detect``. ``alone``: no other server stays.

    Raises:
        InvalidError: it cannot be done so.
    """
    if ip_address(names.server.host).is_unspecified:
        raise refused("server", f"{names.server} is no address to ask; name one that meshd listens on")
    match method:
        case "resolved":
            return _resolved(names)
        case "resolved-dropin":
            return _drop_in(names)
        case "dnsmasq":
            return _dnsmasq(names)
        case _:
            return _resolv_conf(names, resolv_conf, link, alone=alone)


def refused(what: str, why: str) -> InvalidError:
    """It cannot be done so."""
    return InvalidError("DNS of this host", [Violation(what, why)])


def _resolved(names: Names) -> Plan:
    domains = " ".join(f"~{domain}" for domain in names.domains)
    unit = f"""\
# Made by `meshd dns install`; `meshd dns uninstall` takes it away.
[Unit]
Description=Names under {names.domain} are asked of meshd
Requires=systemd-resolved.service
After=systemd-resolved.service
PartOf=systemd-resolved.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-/usr/bin/env ip link add {LINK} type dummy
ExecStart=/usr/bin/env ip address replace {LINK_ADDRESS} dev {LINK} scope global
ExecStart=/usr/bin/env ip link set {LINK} up
ExecStart=/usr/bin/env resolvectl dns {LINK} {names.server}
ExecStart=/usr/bin/env resolvectl domain {LINK} {domains}
ExecStart=/usr/bin/env resolvectl default-route {LINK} no
ExecStart=/usr/bin/env resolvectl llmnr {LINK} no
ExecStart=/usr/bin/env resolvectl mdns {LINK} no
ExecStop=/usr/bin/env ip link delete {LINK}

[Install]
WantedBy=multi-user.target
"""
    reload = ("systemctl", "daemon-reload")
    return Plan(
        "resolved",
        (File(UNIT, unit), File(ENABLED, link="../meshd-dns.service")),
        (reload, ("systemctl", "restart", "meshd-dns.service")),
        # The unit is gone by then, but systemd still knows how to stop it.
        (("systemctl", "stop", "meshd-dns.service"), reload),
    )


def _drop_in(names: Names) -> Plan:
    domains = " ".join(f"~{domain}" for domain in names.domains)
    text = f"# Made by `meshd dns install`.\n[Resolve]\nDNS={names.server}\nDomains={domains}\n"
    restart = (("systemctl", "restart", "systemd-resolved.service"),)
    note = "systemd-resolved asks meshd for all other names as well, beside the servers of the links"
    return Plan("resolved-dropin", (File(DROP_IN, text),), restart, restart, (note,))


def _dnsmasq(names: Names) -> Plan:
    host, port = names.server.host, names.server.port
    lines = ["# Made by `meshd dns install`."]
    lines += [f"server=/{domain}/{host}#{port}" for domain in names.domains]
    # Virtual IPs may be in a range that dnsmasq, with stop-dns-rebind, takes for an attack (127.0.0.0/8).
    lines.append(f"rebind-domain-ok=/{names.domain}/")
    restart = (("systemctl", "restart", "dnsmasq.service"),)
    note = f"dnsmasq must read {DNSMASQ.rpartition('/')[0]} (conf-dir), as it does on Debian"
    return Plan("dnsmasq", (File(DNSMASQ, "\n".join(lines) + "\n"),), restart, restart, (note,))


def _resolv_conf(names: Names, text: str, link: str, *, alone: bool) -> Plan:
    if names.server.port != DNS_PORT:
        raise refused(
            "server", f"{names.server}: libc asks port 53 only; let meshd listen there (dnsServer.listen: 127.0.0.1:53)"
        )
    if link:
        raise refused(RESOLV_CONF, f"is a link to {link}, which somebody else writes; tell that one, or use --method")
    if names.server.host in text.split():
        raise refused(RESOLV_CONF, f"names {names.server.host} already")
    new = "".join(resolv_conf_with(text, names.server.host, alone=alone))
    ways = f"set dnsServer.resolvConf: {UPSTREAMS}, so that meshd asks the servers of before for all other names"
    others = "without it, there are no other names" if alone else "without it, libc asks them after meshd has refused"
    return Plan("resolv.conf", (File(UPSTREAMS, text), File(RESOLV_CONF, new)), notes=(f"{ways}; {others}",))


def resolv_conf_with(text: str, host: str, *, alone: bool) -> Iterator[str]:
    """The lines of a resolv.conf with our server first; the others stay behind it, as many as libc reads."""
    yield f"# meshd: `meshd dns uninstall` brings back what was here before\nnameserver {host}\n"
    left = 0 if alone else MAX_NAMESERVERS - 1
    for line in text.splitlines():
        if line.split()[:1] == ["nameserver"]:
            left -= 1
            if left < 0:
                continue
        yield line + "\n"


def corefile(names: Names) -> str:
    """The block of a Corefile that sends the mesh's names from a Kubernetes cluster's DNS to meshd.

    Raises:
        InvalidError: pods cannot reach the server.
    """
    if _is_loopback(names.server.host) or ip_address(names.server.host).is_unspecified:
        raise refused("server", f"{names.server} is not an address that pods can reach; name one (dnsServer.listen)")
    zones = " ".join(f"{domain}:53" for domain in names.domains)
    return f"""\
{zones} {{
    errors
    cache 30 {{
        denial 9984 5
    }}
    forward . {names.server}
}}
"""


def config_map(names: Names) -> str:
    """The same as a ConfigMap ``coredns-custom``, which some clusters (AKS, k3s) take in without a change of theirs."""
    block = "".join(f"    {line}\n" for line in corefile(names).splitlines())
    return f"""\
apiVersion: v1
kind: ConfigMap
metadata:
  name: coredns-custom
  namespace: kube-system
data:
  meshd.server: |
{block}"""


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback
