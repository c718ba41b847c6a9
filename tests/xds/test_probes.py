from dataclasses import replace

import pytest

from meshd.xds.abilities import Abilities, Redirect
from meshd.xds.probes import probes
from meshd.xds.resources import LISTENER
from tests.xds.support import GOLDENS, by_name, dataplane, golden_text

ENDPOINTS = [
    {"inboundPort": 8080, "inboundPath": "/healthz?deep=1", "path": "/8080/healthz?deep=1"},
    {"inboundPort": 9999, "inboundPath": "/ready", "path": "/9999/ready"},
]
PLAIN = Abilities()


def probed(*endpoints, port=9000, **others):
    return dataplane({"probes": {"port": port, "endpoints": list(endpoints)}, **others})


def test_probes(golden):
    golden(GOLDENS / "probes.yaml", golden_text(probes(probed(*ENDPOINTS), PLAIN)))


def test_a_redirected_host_listens_at_no_port_of_its_own():
    abilities = replace(PLAIN, redirect=Redirect(15006, 15001, ipv6=False))

    assert by_name(probes(probed(*ENDPOINTS), abilities), LISTENER)["probe:listener"]["bindToPort"] is False


@pytest.mark.parametrize(
    ("dataplane_", "abilities"),
    [(dataplane(), PLAIN), (probed(port=0), PLAIN), (probed(*ENDPOINTS), Abilities(answers_probes=True))],
    ids=["none asked for", "no port", "kuma-dp answers"],
)
def test_no_probes(dataplane_, abilities):
    assert list(probes(dataplane_, abilities)) == []


def test_the_port_of_an_ignored_inbound_is_redirected_to():
    inbound = {"port": 8080, "state": "Ignored", "tags": {"kuma.io/service": "web"}}
    dataplane_ = probed(ENDPOINTS[0], networking={"address": "192.168.0.1", "inbound": [inbound]})

    (chain,) = by_name(probes(dataplane_, PLAIN), LISTENER)["probe:listener"]["filterChains"]

    (host,) = chain["filters"][0]["typedConfig"]["routeConfig"]["virtualHosts"]
    assert host["routes"][0]["redirect"] == {"portRedirect": 8080, "pathRedirect": "/healthz"}


def test_backslashes_of_a_path_are_no_references():
    dataplane_ = probed({"inboundPort": 8080, "inboundPath": "/a\\1", "path": "/a"})

    (chain,) = by_name(probes(dataplane_, PLAIN), LISTENER)["probe:listener"]["filterChains"]

    (host,) = chain["filters"][0]["typedConfig"]["routeConfig"]["virtualHosts"]
    assert host["routes"][0]["route"]["regexRewrite"]["substitution"] == "/a\\\\1"
