from ipaddress import IPv4Address
from types import SimpleNamespace

from meshd.model.steps import finished
from meshd.topology.view import Vip
from meshd.xds import dns
from meshd.xds.abilities import Abilities
from meshd.xds.resolvers import NamesKey, ResolverKey, Resolvers
from meshd.xds.resources import LISTENER

NAMES = NamesKey("default", dns.Form.KUMA_DP, ipv6=False, reachable=None)
WEB = {"web": Vip(IPv4Address("240.0.0.1"), {80: "web"}, ("web.mesh",))}
API = {"api": Vip(IPv4Address("240.0.0.2"), {80: "api"}, ("api.mesh",))}


def key(workdir: str, labels: tuple[tuple[str, str], ...] = ()) -> ResolverKey:
    return ResolverKey(NAMES, labels, Abilities(workdir=workdir))


def test_what_proxies_with_equal_labels_fetch_is_made_once(monkeypatch) -> None:
    made = []
    original = dns.records
    monkeypatch.setattr(dns, "records", lambda known, labels: made.append(labels) or original(known, labels))
    resolvers = Resolvers()
    keys = [key("/a"), key("/b"), key("/c", (("kuma_workload", "w"),))]

    for vips in (WEB, WEB, WEB | API):
        finished(resolvers.update({"default": SimpleNamespace(vips=vips)}, keys))

    assert sorted(made) == sorted([(), (("kuma_workload", "w"),)] * 2)
    listeners = [entry for k in keys for entry in resolvers.layer(k).of(LISTENER).values()]
    assert all(b"api.mesh" in entry.body for entry in listeners)
    assert len({entry.version for entry in listeners}) == 3  # each at its own path

    finished(resolvers.update({"default": SimpleNamespace(vips=WEB)}, keys[:1]))
    assert list(resolvers._records) == [(NAMES, ())]
