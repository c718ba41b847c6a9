"""The names of virtual IPs for proxies that resolve them: Envoy's own DNS filter, or the resolver of kuma-dp.

Either has all names in one resource, so every change sends all of them; but only what changed is rendered again.

Source: reference/dataplane.md 1.8, 3.6; Kuma ``pkg/xds/generator/dns_generator.go`` (behaviour).
"""

import enum
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from meshd.discovery.fields import bytes_field
from meshd.model import labels as label
from meshd.model.resource import Resource
from meshd.model.steps import Steps
from meshd.topology.view import Vip
from meshd.xds import clusters, names
from meshd.xds.abilities import Abilities
from meshd.xds.dynconf import Answer, answer
from meshd.xds.encode import PREFIX, Document, Encoded, encode
from meshd.xds.resources import LISTENER, XdsResource, resource

TTL_S = 30
PATH = "/dns"
_FILTER = PREFIX + "envoy.extensions.filters.udp.dns_filter.v3.DnsFilterConfig"
_DOMAIN = PREFIX + "envoy.data.dns.v3.DnsTable.DnsVirtualDomain"
_TABLE_DOMAINS = 2
"""Field ``virtual_domains`` of ``envoy.data.dns.v3.DnsTable``."""
_NAME = re.compile(r"[0-9a-z!#$%&'*+\-.^_|~`]+\Z")
"""What Envoy takes as the name of a domain; one that it does not take would cost all of the listener."""


class Form(enum.Enum):
    """Who answers: Envoy, from a table in a listener, or kuma-dp, from a document that it fetches."""

    ENVOY = "envoy"
    KUMA_DP = "kuma-dp"


def form_of(abilities: Abilities) -> Form | None:
    """Who resolves names for a proxy; None: nobody does.

    Only for who is redirected: a name leads to a virtual IP, to which nothing leads without redirection.
    """
    if not abilities.is_redirected or not abilities.dns_port:
        return None
    return Form.KUMA_DP if abilities.embedded_dns else Form.ENVOY


@dataclass(frozen=True, slots=True)
class Names:
    """The names of some virtual IPs, each rendered. ``ipv6``: AAAA is answered too, by addresses that stand for IPv4.

    ``claims`` has the keys of the VIPs that want a name; the first gets it. ``rendered`` is by name: an entry of the
    table in protobuf, or a record in JSON.
    """

    form: Form
    ipv6: bool
    vips: Mapping[str, Vip] = field(default_factory=dict, repr=False)
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    rendered: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def reachable(vips: Mapping[str, Vip], services: frozenset[str] | None) -> Mapping[str, Vip]:
    """The VIPs that lead to any of these services, None for all. A name that leads nowhere is not answered."""
    if services is None:
        return vips
    return {key: vip for key, vip in vips.items() if not services.isdisjoint(vip.ports.values())}


def updated(previous: Names, vips: Mapping[str, Vip]) -> Steps[Names]:
    """The names of these VIPs, made from the previous ones: what did not change is not rendered again."""
    before = {key: old for key, old in previous.vips.items() if _differs(vips.get(key), old)}
    after = {key: new for key, new in vips.items() if _differs(previous.vips.get(key), new)}
    yield
    if not before and not after:
        return previous
    claims, rendered = dict(previous.claims), dict(previous.rendered)
    affected: dict[str, None] = {}
    for key, old in before.items():
        for name in _answered(old):
            affected[name] = None
            claims[name] = tuple(k for k in claims[name] if k != key)
    for key, new in after.items():
        for name in _answered(new):
            affected[name] = None
            claims[name] = _ranked({*claims.get(name, ()), key}, name)
    for name in affected:
        rendered.pop(name, None)
        if claims[name]:
            rendered[name] = _rendered(previous, name, vips[claims[name][0]].address)
        else:
            del claims[name]
        yield
    return replace(previous, vips=vips, claims=claims, rendered=rendered)


def _differs(one: Vip | None, other: Vip) -> bool:
    return one is not other and one != other  # views share what did not change


def _answered(vip: Vip) -> Iterable[str]:
    return (name for name in dict.fromkeys(vip.names) if _NAME.match(name))


def _ranked(keys: set[str], name: str) -> tuple[str, ...]:
    """The VIPs that claim a name, rightful owner first, as the built-in resolver has it.

    A service ``a.b`` and a service ``a_b`` both want ``a.b.mesh``; the one that is called so gets it, then the alphabet
    decides.
    """
    return tuple(sorted(keys, key=lambda key: (not f"{name}.".startswith(f"{key.lower()}."), key)))


def _rendered(kind: Names, name: str, address: IPv4Address) -> bytes:
    addresses = [str(address), *([mapped(address)] if kind.ipv6 else ())]
    if kind.form is Form.KUMA_DP:
        return json.dumps({"name": name, "ips": addresses}, separators=(",", ":")).encode()
    domain: Document = {
        "name": name,
        "endpoint": {"addressList": {"address": addresses}},
        "answerTtl": f"{TTL_S}s",
    }
    return bytes_field(_TABLE_DOMAINS, encode(_DOMAIN, domain))


def mapped(address: IPv4Address) -> str:
    """The IPv6 form of a virtual IP: ``::ffff:f000:1`` for 240.0.0.1 (reference/dataplane.md 4.1)."""
    high, low = divmod(int(address), 1 << 16)
    return f"::ffff:{high:x}:{low:x}"


def _in_order(known: Names) -> Iterator[bytes]:
    return (known.rendered[name] for name in sorted(known.rendered))


def listener(known: Names, port: int) -> XdsResource:
    """The listener of Envoy's own resolver, at loopback; without names it is there too, and says that none exists."""
    config: Document = {
        "@type": _FILTER,
        "statPrefix": "kuma_dns",
        "serverConfig": {"inlineDnsTable": Encoded(b"".join(_in_order(known)))},
    }
    address = clusters.socket_address("127.0.0.1", port)
    address["socketAddress"]["protocol"] = "UDP"
    document: Document = {
        "name": names.DNS,
        "address": address,
        "trafficDirection": "INBOUND",
        "enableReusePort": True,  # one socket for each worker, of which every one answers
        "listenerFilters": [{"name": "envoy.filters.udp.dns_filter", "typedConfig": config}],
    }
    return resource(LISTENER, document)


def extra_labels(dataplane: Resource) -> tuple[tuple[str, str], ...]:
    """What kuma-dp adds to the metrics of its resolver, by name. Equal for most instances of a service."""
    found = {
        "k8s_kuma_io_namespace": dataplane.labels.get(label.NAMESPACE, ""),
        "kuma_io_zone": dataplane.labels.get(label.ZONE, ""),
        "kuma_workload": dataplane.labels.get(label.WORKLOAD, ""),
        "mesh": dataplane.key.mesh,
    }
    return tuple((name, value) for name, value in found.items() if value)


def records(known: Names, labels: tuple[tuple[str, str], ...]) -> Answer:
    """What kuma-dp's resolver fetches, for all proxies with these extra labels."""
    body = b",".join(_in_order(known)).decode()
    extra = json.dumps(dict(labels), separators=(",", ":"))
    return answer(PATH, f'{{"records":[{body}],"ttl":{TTL_S},"extraLabels":{extra}}}')
