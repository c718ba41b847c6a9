from ipaddress import IPv4Network

import pytest

from meshd.cli.host_dns import Names, config_map, corefile, detect, plan, reverse_zones
from meshd.dns.settings import Address
from meshd.model.errors import InvalidError

NAMES = Names("mesh", Address("127.0.0.1", 5653))
ON_53 = Names("mesh", Address("127.0.0.1", 53))
TEXT = "search example.org\nnameserver 10.0.0.2\noptions edns0\nnameserver 10.0.0.3\nnameserver 10.0.0.4"


@pytest.mark.parametrize(
    ("network", "zones"),
    [
        ("240.0.0.0/8", ("240.in-addr.arpa",)),
        ("127.1.0.0/16", ("1.127.in-addr.arpa",)),
        ("10.1.2.0/24", ("2.1.10.in-addr.arpa",)),
        ("10.0.0.0/23", ("0.0.10.in-addr.arpa", "1.0.10.in-addr.arpa")),
        ("10.0.0.0/9", ()),
        ("10.1.2.3/32", ("3.2.1.10.in-addr.arpa",)),
    ],
)
def test_reverse_zones_fill_a_network_exactly(network, zones):
    assert reverse_zones(IPv4Network(network)) == zones


def test_the_default_range_has_sixteen_reverse_zones():
    zones = reverse_zones(IPv4Network("240.0.0.0/4"))
    assert (len(zones), zones[0], zones[-1]) == (16, "240.in-addr.arpa", "255.in-addr.arpa")


@pytest.mark.parametrize(
    ("text", "link", "has_dnsmasq", "method"),
    [
        ("", "../run/systemd/resolve/stub-resolv.conf", True, "resolved"),
        ("nameserver 127.0.0.53\n", "", False, "resolved"),
        ("nameserver 127.0.0.1\n", "", True, "dnsmasq"),
        ("nameserver 127.0.0.1\n", "", False, "resolv.conf"),
        ("nameserver 10.0.0.2\n", "", True, "resolv.conf"),
        ("nameserver\n", "", True, "resolv.conf"),
    ],
)
def test_the_method_fits_the_host(text, link, has_dnsmasq, method):
    assert detect(text, link, has_dnsmasq=has_dnsmasq) == method


def test_resolved_gets_a_link_with_a_routing_domain_at_each_boot():
    made = plan("resolved", Names("mesh", NAMES.server, IPv4Network("127.1.0.0/16")), "", "")
    unit, enabled = made.files
    assert "resolvectl domain meshd-dns ~mesh ~1.127.in-addr.arpa\n" in unit.text
    assert "resolvectl dns meshd-dns 127.0.0.1:5653\n" in unit.text
    assert (unit.path.rpartition("/")[2], enabled.link) == ("meshd-dns.service", "../meshd-dns.service")


def test_dnsmasq_asks_us_for_the_domain_only():
    (file,) = plan("dnsmasq", NAMES, "", "").files
    assert file.text.splitlines()[1:] == ["server=/mesh/127.0.0.1#5653", "rebind-domain-ok=/mesh/"]


@pytest.mark.parametrize(("alone", "servers"), [(False, ["127.0.0.1", "10.0.0.2", "10.0.0.3"]), (True, ["127.0.0.1"])])
def test_resolv_conf_has_us_first_and_keeps_the_rest(alone, servers):
    upstreams, file = plan("resolv.conf", ON_53, TEXT, "", alone=alone).files
    lines = file.text.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("nameserver")] == servers
    assert {"search example.org", "options edns0"} <= set(lines)
    assert upstreams.text == TEXT


@pytest.mark.parametrize(
    ("names", "text", "link", "reason"),
    [
        (NAMES, TEXT, "", "libc asks port 53 only"),
        (ON_53, TEXT, "/run/x", "is a link to /run/x"),
        (ON_53, "nameserver 127.0.0.1", "", "names 127.0.0.1 already"),
        (Names("mesh", Address("0.0.0.0", 53)), TEXT, "", "no address to ask"),
    ],
)
def test_what_cannot_be_done_is_refused(names, text, link, reason):
    with pytest.raises(InvalidError, match=reason):
        plan("resolv.conf", names, text, link)


def test_coredns_gets_a_block_for_the_domain():
    names = Names("mesh", Address("10.96.0.50", 5653), IPv4Network("240.0.0.0/8"))
    assert corefile(names).splitlines()[0] == "mesh:53 240.in-addr.arpa:53 {"
    assert "    forward . 10.96.0.50:5653\n" in corefile(names)
    assert "      forward . 10.96.0.50:5653\n" in config_map(names).replace("        ", "      ")


def test_pods_cannot_reach_loopback():
    with pytest.raises(InvalidError, match="not an address that pods can reach"):
        corefile(NAMES)
