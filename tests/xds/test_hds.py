"""What proxies are asked to probe, and what their reports mean."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.xds.abilities import Abilities, Redirect
from meshd.xds.encode import message_class
from meshd.xds.hds import SPECIFIER, HealthSettings, Report, decode, reported, seconds, specifier
from tests.xds.support import dataplane

SETTINGS = HealthSettings(
    report=timedelta(seconds=8),
    interval=timedelta(seconds=1),
    no_traffic_interval=timedelta(seconds=2),
    timeout=timedelta(seconds=3),
    healthy_threshold=4,
    unhealthy_threshold=5,
)
ADMIN = Abilities(admin_port=9901)
TIMING = {
    "timeout": "3s",
    "interval": "1s",
    "noTrafficInterval": "2s",
    "healthyThreshold": 4,
    "unhealthyThreshold": 5,
}


def spec(*inbounds, address="192.168.0.1"):
    return dataplane({"networking": {"address": address, "inbound": list(inbounds)}}).spec


def asked(of, abilities=ADMIN, settings=SETTINGS):
    return message_class(SPECIFIER).parse(specifier(of, abilities, settings)).to_dict()


def endpoint(address, port):
    return [{"endpoints": [{"address": {"socketAddress": {"address": address, "portValue": port}}}]}]


def test_envoy_itself_is_probed_as_kuma_does():
    assert asked(spec()) == {
        "interval": "8s",
        "clusterHealthChecks": [
            {
                "clusterName": "kuma:envoy:admin",
                "localityEndpoints": endpoint("127.0.0.1", 9901),
                "healthChecks": [{**TIMING, "httpHealthCheck": {"path": "/ready"}}],
            }
        ],
    }
    [check] = asked(spec(), Abilities(admin_socket="/w/admin.sock"))["clusterHealthChecks"]
    assert check["localityEndpoints"] == [{"endpoints": [{"address": {"pipe": {"path": "/w/admin.sock"}}}]}]
    assert "clusterHealthChecks" not in asked(spec(), Abilities())


def test_applications_with_a_probe_are_probed():
    probe = {"interval": "10s", "unhealthyThreshold": 9, "tcp": {}}
    of = spec(
        {"port": 90, "servicePort": 80, "serviceAddress": "127.0.0.1", "serviceProbe": probe},
        {"port": 91, "servicePort": 81, "serviceProbe": {"tcp": {}}},
        {"port": 92, "servicePort": 82},
    )
    _, first, second = asked(of)["clusterHealthChecks"]
    assert first == {
        "clusterName": "localhost:80",
        "localityEndpoints": endpoint("127.0.0.1", 80),
        "healthChecks": [{**TIMING, "interval": "10s", "unhealthyThreshold": 9, "tcpHealthCheck": {}}],
    }
    assert (second["clusterName"], second["localityEndpoints"]) == ("localhost:81", endpoint("192.168.0.1", 81))


@pytest.mark.parametrize(("address", "source"), [("192.168.0.1", "127.0.0.6"), ("fd00::1", "::6"), ("127.0.0.1", None)])
def test_probes_of_a_host_that_redirects_come_from_an_address_of_their_own(address, source):
    of = spec({"port": 80, "serviceProbe": {"tcp": {}}}, address=address)
    redirected = Abilities(redirect=Redirect(15006, 15001, ipv6=True))
    [check] = asked(of, redirected)["clusterHealthChecks"]
    assert check.get("upstreamBindConfig", {}).get("sourceAddress", {}).get("address") == source


@pytest.mark.parametrize(
    ("value", "text"), [(timedelta(seconds=5), "5s"), (timedelta(milliseconds=1500), "1.5s"), (timedelta(), "0s")]
)
def test_durations_are_written_as_protobuf_has_them(value, text):
    assert seconds(value) == text


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes_raise_only_value_error(data):
    try:
        decode(data)
    except ValueError:
        return


def test_a_report_changes_only_what_is_news():
    of = spec(
        {"port": 80, "serviceProbe": {"tcp": {}}, "state": "NotReady"},
        {"port": 81},
        {"port": 82, "state": "Ignored"},
    )
    assert reported(of, Report(is_report=True)) is of
    after = reported(of, Report(is_report=True, applications={80: True}))
    assert [i.state.value for i in after.networking.inbound] == ["Ready", "Ready", "Ignored"]
    assert after.networking.inbound[0].is_ready
    down = reported(after, Report(is_report=True, proxy=False, applications={80: True}))
    assert [i.state.value for i in down.networking.inbound] == ["NotReady", "NotReady", "Ignored"]
    assert reported(down, Report(is_report=True, applications={80: False})).networking.inbound[1].is_ready
