import pytest

from meshd.xds.abilities import Abilities
from meshd.xds.prometheus import config_of, prometheus
from meshd.xds.resources import CLUSTER, LISTENER
from tests.xds.support import GOLDENS, by_name, dataplane, golden_text, mesh, mtls

KUMA_DP = Abilities(admin_port=9901, has_kuma_dp=True, workdir="/tmp/dp")
CERTIFICATE = "tests/ca/testdata/kuma-like-ca"
"""Envoy reads the files when it gets the listener; the goldens are validated in the top directory."""
CERTIFIED = Abilities(
    admin_port=9901,
    has_kuma_dp=True,
    workdir="/tmp/dp",
    metrics_cert=f"{CERTIFICATE}.pem",
    metrics_key=f"{CERTIFICATE}.key",
)


def metrics(conf, enabled="p", **others):
    backend = {"name": "p", "type": "prometheus", "conf": conf}
    return {"metrics": {"enabledBackend": enabled, "backends": [backend]}, **others}


def own(conf):
    return dataplane({"metrics": {"name": "mine", "type": "prometheus", "conf": conf}})


@pytest.mark.parametrize(
    ("case", "spec", "dataplane_", "abilities"),
    [
        ("default", metrics({}), dataplane(), KUMA_DP),
        (
            "custom",
            metrics({"port": 1234, "path": "/a", "envoy": {"filterRegex": "http.*&5%", "usedOnly": False}}),
            own({"port": 8765, "path": "/b", "envoy": {"usedOnly": True}}),
            KUMA_DP,
        ),
        ("mtls", metrics({}, **mtls()), dataplane(), KUMA_DP),
        (
            "mtls-ipv6",
            metrics({"tls": {"mode": "activeMTLSBackend"}}, **mtls()),
            dataplane({"networking": {"address": "fd00::1"}}),
            KUMA_DP,
        ),
        ("provided-tls", metrics({"tls": {"mode": "providedTLS"}}, **mtls()), dataplane(), CERTIFIED),
        ("no-kuma-dp", metrics({"envoy": {"usedOnly": True}}), dataplane(), Abilities(admin_socket="/run/admin.sock")),
    ],
)
def test_prometheus(golden, case, spec, dataplane_, abilities):
    found = prometheus(mesh(spec).spec, dataplane_, abilities)

    golden(GOLDENS / f"prometheus-{case}.yaml", golden_text(found))


@pytest.mark.parametrize(
    ("conf", "has_mtls", "abilities", "is_tls"),
    [
        ({}, True, KUMA_DP, [False, True]),
        ({}, False, KUMA_DP, [False]),
        ({"skipMTLS": False}, True, KUMA_DP, [False, True]),
        ({"skipMTLS": True}, True, KUMA_DP, [False]),
        ({"tls": {"mode": "activeMTLSBackend"}}, True, KUMA_DP, [False, True]),
        ({"tls": {"mode": "activeMTLSBackend"}}, False, KUMA_DP, [False]),
        ({"tls": {"mode": "disabled"}}, True, CERTIFIED, [False]),
        ({"tls": {"mode": "providedTLS"}}, True, CERTIFIED, [True]),
        ({"tls": {"mode": "providedTLS"}}, False, CERTIFIED, [True]),
        ({"tls": {"mode": "providedTLS"}}, True, KUMA_DP, [False]),
    ],
)
def test_who_may_read_metrics(conf, has_mtls, abilities, is_tls):
    spec = metrics(conf, **(mtls() if has_mtls else {}))

    found = by_name(prometheus(mesh(spec).spec, dataplane(), abilities), LISTENER)["kuma:metrics:prometheus"]

    assert ["transportSocket" in chain for chain in found["filterChains"]] == is_tls


@pytest.mark.parametrize(
    ("spec", "dataplane_", "abilities"),
    [
        ({}, dataplane(), KUMA_DP),
        (metrics({}, enabled=""), dataplane(), KUMA_DP),
        (metrics({}, enabled="other"), dataplane(), KUMA_DP),
        ({"metrics": {"enabledBackend": "p", "backends": [{"name": "p", "type": "x"}]}}, dataplane(), KUMA_DP),
        (metrics({"port": "many"}), dataplane(), KUMA_DP),
        ({}, own({"port": 1}), KUMA_DP),
        (metrics({}), dataplane(), Abilities(has_kuma_dp=True)),
        (metrics({"port": 80}), dataplane(), KUMA_DP),
        (metrics({"port": 8080}), dataplane(), KUMA_DP),
    ],
    ids=[
        "no metrics", "none enabled", "no such backend", "no such type", "unreadable", "only the Dataplane's",
        "no admin API", "the inbound's port", "the application's port",
    ],
)  # fmt: skip
def test_no_metrics(spec, dataplane_, abilities):
    assert list(prometheus(mesh(spec).spec, dataplane_, abilities)) == []


@pytest.mark.parametrize(("address", "is_there"), [("192.168.0.1", False), ("0.0.0.0", False), ("", True)])
def test_an_outbound_may_be_in_the_way(address, is_there):
    outbound = {"address": address, "port": 5670, "tags": {"kuma.io/service": "backend"}}
    dataplane_ = dataplane({"networking": {"address": "192.168.0.1", "outbound": [outbound]}})

    assert bool(list(prometheus(mesh(metrics({})).spec, dataplane_, KUMA_DP))) is is_there


def test_settings_of_a_dataplane_are_over_those_of_the_mesh():
    of_mesh = {
        "port": 1,
        "path": "/mesh",
        "skipMTLS": False,
        "tags": {"a": "mesh", "b": "mesh"},
        "aggregate": [{"name": "app", "port": 1}, {"name": "side", "port": 2}],
        "envoy": {"filterRegex": "mesh", "usedOnly": True},
    }
    of_dataplane = {
        "skipMTLS": True,
        "tags": {"b": "own"},
        "aggregate": [{"name": "app", "port": 3}],
        "envoy": {"usedOnly": False},
    }

    found = config_of(mesh(metrics(of_mesh)).spec, own(of_dataplane))

    assert (found.port, found.path, found.skip_mtls) == (1, "/mesh", True)
    assert found.tags == {"a": "mesh", "b": "own"}
    assert [(a.name, a.port) for a in found.aggregate] == [("app", 3), ("side", 2)]
    assert (found.envoy.filter_regex, found.envoy.used_only) == ("mesh", False)


def test_the_socket_of_kuma_dp_is_cut_as_it_cuts_it():
    long = dataplane(name="w" * 120)

    found = by_name(prometheus(mesh(metrics({})).spec, long, KUMA_DP), CLUSTER)["kuma:metrics:hijacker"]

    (group,) = found["loadAssignment"]["endpoints"]
    path = group["lbEndpoints"][0]["endpoint"]["address"]["pipe"]["path"]
    assert path == "/tmp/dp/kuma-mh-" + "w" * 82 + ".sock"
    assert len(path) == 98 + len(".sock")
