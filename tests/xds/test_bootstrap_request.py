"""Bootstrap requests: read as Go's JSON would."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.xds.bootstrap_request import BootstrapRequest, parse_request

FIELDS = sorted(f.alias for f in BootstrapRequest.model_fields.values())


def test_what_we_do_not_know_and_null_say_nothing():
    body = {"name": "a", "mesh": None, "features": None, "version": {"envoy": None, "x": 1}, "operatingSystem": "linux"}
    assert parse_request(json.dumps(body).encode()) == BootstrapRequest(name="a")


def test_the_fields_are_kuma_s():
    assert set(FIELDS) >= {"mesh", "name", "proxyType", "dataplaneToken", "dataplaneTokenPath", "dataplaneResource"}
    assert set(FIELDS) >= {"caCert", "dnsPort", "readinessPort", "appProbeProxyDisabled", "ipv6Enabled", "otelEnv"}
    assert parse_request(b'{"appProbeProxyDisabled": true}').has_app_probe_proxy


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is no JSON"),
        (b"{", "the body is no JSON"),
        (b"[" * 100_000, "the body is no JSON"),
        (b"\xff", "the body is no JSON"),
        (b"[]", "the body is no JSON object"),
        (b'{"name": 3}', "name: input should be a valid string"),
        (b'{"dnsPort": "1"}', "dnsPort: input should be a valid integer"),
        (b'{"dnsPort": -1}', "dnsPort: input should be greater than or equal to 0"),
        (b'{"dnsPort": 4294967296}', "dnsPort: input should be less than 4294967296"),
        (b'{"features": [1]}', "features.0: input should be a valid string"),
        (b'{"version": []}', "version: "),
        (b'{"dynamicMetadata": {"a": 1}}', "dynamicMetadata.a: input should be a valid string"),
    ],
)
def test_what_is_no_request_is_refused(body, message):
    with pytest.raises(ValueError) as caught:
        parse_request(body)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, False),
        ({}, False),
        ({"redirect": []}, False),
        ({"redirect": {"inbound": {"enabled": False}, "dns": {"enabled": True}}}, False),
        ({"redirect": {"inbound": {"enabled": True}}}, True),
        ({"redirect": {"outbound": {"enabled": True}}}, True),
    ],
)
def test_whether_traffic_is_redirected(config, expected):
    assert parse_request(json.dumps({"dataplaneConfig": config}).encode()).is_transparent is expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**33) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FIELDS, "x"]), inner, max_size=4),
)


REQUESTS = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6).map(lambda data: json.dumps(data).encode())


@given(st.binary(max_size=50) | REQUESTS)
def test_anything_is_a_request_or_a_value_error(body):
    with suppress(ValueError):
        parse_request(body)
