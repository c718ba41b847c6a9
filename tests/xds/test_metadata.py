"""What a proxy says of itself, read as leniently as Kuma does."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd import __version__
from meshd.discovery import Node
from meshd.model.errors import PeerError
from meshd.model.resource import ResourceKey
from meshd.xds.abilities import Redirect
from meshd.xds.metadata import Flow, TransparentProxy, abilities, key_of, read
from tests.discovery.test_wire import JSON
from tests.xds.ads import REGISTRY, document
from tests.xds.support import dataplane


def said(**metadata):
    return read(Node("default.web-1", metadata=metadata), REGISTRY)


@pytest.mark.parametrize(
    ("node_id", "kind", "expected"),
    [
        ("default.web-1", "", ("Dataplane", "default", "web-1")),
        ("default.web.1.x", "dataplane", ("Dataplane", "default", "web.1.x")),
        (".in-1", "ingress", ("ZoneIngress", "", "in-1")),
        (".out.1", "egress", ("ZoneEgress", "", "out.1")),
    ],
)
def test_an_id_is_split_at_its_first_dot(node_id, kind, expected):
    assert key_of(Node(node_id, metadata={"dataplane.proxyType": kind})) == ResourceKey(*expected)


@pytest.mark.parametrize(
    "node_id", ["", ".", "default", "default.", ".web", "default.a\nb", "m" * 300 + ".x", "m." + "x" * 300]
)
def test_an_id_that_names_no_proxy_is_refused(node_id):
    with pytest.raises(PeerError):
        key_of(Node(node_id))


@pytest.mark.parametrize(
    ("port", "expected"),
    [("9901", 9901), ("0", 0), ("65535", 65535), ("65536", 0), ("-1", 0), ("x", 0), ("", 0), ("٣", 0), (9901.0, 0)],
)
def test_numbers_are_text_and_bad_ones_are_0(port, expected):
    assert said(**{"dataplane.admin.port": port}).admin_port == expected


def test_everything_is_read():
    found = said(
        **{
            "dataplane.admin.port": "9901",
            "dataplane.admin.address": "127.0.0.1",
            "dataplane.admin.socketPath": "/w/admin.sock",
            "dataplane.dns.port": "15054",
            "dataplane.readinessReporter.port": "9902",
            "dataplane.appProbeProxy.enabled": "true",
            "workdir": "/w",
            "metricsCertPath": "/c",
            "metricsKeyPath": "/k",
            "systemCaPath": "/ca",
            "ipv6Enabled": False,
            "features": ["feature-reuse-port", 1.0, "unknown"],
            "transparentProxy": {
                "ipFamilyMode": "IPv4",
                "redirect": {
                    "inbound": {"enabled": True, "port": 15006.0},
                    "outbound": {"enabled": False, "port": "1"},
                },
            },
            "dynamicMetadata": {"a": "b", "n": 1.0, "version.dependencies.coredns": "1.11"},
        },
        version={
            "kumaDp": {"version": "2.13.0", "gitTag": "t", "gitCommit": "c", "buildDate": "d"},
            "envoy": {"version": "1.38.0", "build": "x", "kumaDpCompatible": True},
            "dependencies": {"thing": "2", "bad": 3.0},
        },
    )
    assert (found.admin_port, found.admin_address, found.admin_socket) == (9901, "127.0.0.1", "/w/admin.sock")
    assert (found.dns_port, found.readiness_port, found.has_app_probe_proxy) == (15054, 9902, True)
    assert (found.workdir, found.metrics_cert, found.metrics_key) == ("/w", "/c", "/k")
    assert (found.system_ca, found.ipv6) == ("/ca", False)
    assert found.features == {"feature-reuse-port", "unknown"}
    assert found.transparent_proxy == TransparentProxy(Flow(True, 15006), Flow(False, 1), ipv6=False)
    assert found.version.kuma_dp.kuma_cp_compatible
    assert found.version.envoy.build == "x"
    assert found.version.dependencies == {"coredns": "1.11", "thing": "2"}


@pytest.mark.parametrize(
    ("version", "fits"), [("2.14.0", True), ("2.11.0", False), ("3.0.0", False), ("dev", True), (__version__, True)]
)
def test_a_kuma_dp_of_another_time_is_noted(version, fits):
    assert said(version={"kumaDp": {"version": version}}).version.kuma_dp.kuma_cp_compatible is fits


def test_words_that_go_into_logs_are_bounded():
    found = said(version={"kumaDp": {"version": "9" * 1000, "gitTag": "a\nb"}})
    assert (found.version.kuma_dp.version, found.version.kuma_dp.git_tag) == ("", "")


def test_a_resource_must_be_the_proxys():
    assert said(**{"dataplane.resource": json.dumps(document())}).resource.key.name == "web-1"
    for passed, reason in (
        (document("other"), "does not match proxy resource"),
        ({"type": "Secret", "mesh": "default", "name": "web-1", "data": "eA=="}, "does not match proxy resource"),
        ({"type": "Nothing"}, "is not valid"),
        ([1], "is not valid"),
    ):
        found = said(**{"dataplane.resource": json.dumps(passed)})
        assert found.resource is None
        assert reason in found.problem
    assert "is not valid" in said(**{"dataplane.resource": "{" * 100_000}).problem


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["features", "version", "transparentProxy", "dynamicMetadata", "ipv6Enabled"]), JSON
    )
)
def test_no_metadata_is_trouble(metadata):
    said(**metadata)


REDIRECTED = {"transparentProxying": {"redirectPortInbound": 15006, "redirectPortOutbound": 15001}}
METADATA = "feature-transparent-proxy-in-dataplane-metadata"


@pytest.mark.parametrize(
    ("features", "said_by_dp", "own", "expected"),
    [
        ([], None, {}, None),
        ([], None, REDIRECTED, Redirect(15006, 15001, ipv6=True)),
        ([METADATA], None, REDIRECTED, None),
        ([METADATA], {"redirect": {"outbound": {"enabled": True, "port": 1.0}}}, {}, Redirect(0, 1, ipv6=True)),
        ([], {"redirect": {"outbound": {"enabled": True, "port": 1.0}}}, {}, None),
        (
            [METADATA],
            {"ipFamilyMode": "ipv4", "redirect": {"inbound": {"enabled": True, "port": 2.0}}},
            {},
            Redirect(2, 0, ipv6=False),
        ),
        (
            [METADATA],
            {"ipFamilyMode": "ipv4", "redirect": {"inbound": {"enabled": True, "port": 2.0}}},
            {"address": "::9"},
            None,
        ),
    ],
)
def test_who_says_what_the_host_redirects(features, said_by_dp, own, expected):
    resource = dataplane({"networking": {"address": "10.0.0.1", **own}})
    metadata = said(features=features, transparentProxy=said_by_dp)
    assert abilities(metadata, resource).redirect == expected
