"""Clusters of external services."""

from dataclasses import replace

import pytest

from meshd.ca.origination import inline_source
from meshd.topology.view import Reach
from meshd.xds import clusters
from meshd.xds.external import external_cluster, outside_of
from meshd.xds.resources import CLUSTER, resource
from tests.l4 import pki
from tests.l4.lab import endpoint, service
from tests.xds.test_zone_egress import api

PEM = pki.trust("default").pem.decode()
CA = {"caCert": {"inlineString": PEM}}
SHOWN = pki.identity("default", "client")
CERTIFICATE = {"inlineString": SHOWN.chain_pem.decode()}
KEY = {"inlineString": SHOWN.key_pem.decode()}
SYSTEM = "/etc/ssl/certs/ca-certificates.crt"


def made(address="api.example", tls=None, protocol="tcp", system_ca=SYSTEM, endpoints=None, ipv6=False):
    target = replace(service("api", external=api(f"{address}:443", tls=tls)), protocol=protocol)
    outside = outside_of("default", target, inline_source, system_ca)
    endpoints = endpoints or [endpoint(443, address=address, zone="", reach=Reach.EXTERNAL)]
    return external_cluster("api", target, endpoints, outside, ipv6=ipv6), outside


def validation(document):
    return document["transportSocket"]["typedConfig"]["commonTlsContext"]["validationContext"]


@pytest.mark.parametrize(
    ("address", "ipv6", "kind", "family"),
    [
        ("api.example", False, "STRICT_DNS", "V4_ONLY"),
        ("api.example", True, "STRICT_DNS", "V4_PREFERRED"),
        ("192.0.2.1", True, "STATIC", None),
        ("2001:db8::1", True, "STATIC", None),
    ],
)
def test_names_are_resolved_and_addresses_are_not(address, ipv6, kind, family):
    document, _ = made(address, ipv6=ipv6)
    assert (document["type"], document.get("dnsLookupFamily")) == (kind, family)
    assert "transportSocket" not in document


def test_several_addresses_keep_weights_and_priorities():
    several = [
        endpoint(443, address="a.example", zone="zone-a", reach=Reach.EXTERNAL),
        endpoint(443, address="192.0.2.1", zone="zone-b", weight=2, priority=1, reach=Reach.EXTERNAL),
    ]
    document, _ = made(endpoints=several)
    near, far = document["loadAssignment"]["endpoints"]
    assert document["type"] == "STRICT_DNS"
    assert (near["locality"], "priority" in near, far["priority"]) == ({"zone": "zone-a"}, False, 1)


def test_tls():
    tls = {"enabled": True, "allowRenegotiation": True, "clientCert": CERTIFICATE, "clientKey": KEY, **CA}
    document, outside = made(tls=tls, protocol="http2")
    resource(CLUSTER, document)
    assert outside.refused == ""
    assert document["transportSocket"]["typedConfig"] == {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "api.example",
        "allowRenegotiation": True,
        "commonTlsContext": {
            "tlsParams": {"tlsMaximumProtocolVersion": "TLSv1_3"},
            "tlsCertificates": [
                {
                    "certificateChain": {"inlineString": CERTIFICATE["inlineString"]},
                    "privateKey": {"inlineString": KEY["inlineString"]},
                }
            ],
            "validationContext": {
                "trustedCa": {"inlineString": PEM},
                "matchTypedSubjectAltNames": [
                    {"sanType": "DNS", "matcher": {"exact": "api.example"}},
                    {"sanType": "IP_ADDRESS", "matcher": {"exact": "api.example"}},
                ],
            },
        },
    }


@pytest.mark.parametrize(
    ("protocol", "version"), [("tcp", None), ("http", "http"), ("http2", "http2"), ("grpc", "http2")]
)
def test_the_protocol(protocol, version):
    document, _ = made(protocol=protocol)
    options = document.get("typedExtensionProtocolOptions", {}).get(clusters.HTTP_OPTIONS)
    assert (options and list(options["explicitHttpConfig"])) == (version and [f"{version}ProtocolOptions"])


@pytest.mark.parametrize(
    ("address", "tls", "sni", "names"),
    [
        ("api.example", {}, "api.example", ["api.example"] * 2),
        ("192.0.2.1", {}, None, ["192.0.2.1"] * 2),
        ("192.0.2.1", {"serverName": "api.example"}, "api.example", ["api.example"] * 2),
        ("api.example", {"skipHostnameVerification": True}, "api.example", []),
    ],
)
def test_the_name_that_is_asked_for_and_verified(address, tls, sni, names):
    document, _ = made(address, {"enabled": True, **CA, **tls})
    assert document["transportSocket"]["typedConfig"].get("sni") == sni
    assert [m["matcher"]["exact"] for m in validation(document).get("matchTypedSubjectAltNames", [])] == names


def test_without_a_ca_those_of_the_host_are_trusted_and_without_those_nobody():
    document, outside = made(tls={"enabled": True})
    assert validation(document)["trustedCa"] == {"filename": SYSTEM}
    document, outside = made(tls={"enabled": True}, system_ca="")
    assert "give networking.tls.caCert" in outside.refused
    assert document["loadAssignment"] == {"clusterName": "api"}


def test_material_that_cannot_be_read_refuses_connections():
    document, outside = made(tls={"enabled": True, "caCert": {"secret": "gone"}})
    assert outside.refused == "mesh 'default': DataSource(secret) cannot be read here; give it inline"
    assert document["loadAssignment"] == {"clusterName": "api"}
