import warnings

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from meshd.xds.encode import PREFIX, Encoded, SchemaError, encode, encode_any, message_class
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET
from tests.xds.documents import FILTERS, resources

TCP_PROXY = FILTERS + "network.tcp_proxy.v3.TcpProxy"
MANAGER = FILTERS + "network.http_connection_manager.v3.HttpConnectionManager"
ROUTE = PREFIX + "envoy.config.route.v3.Route"


@given(resources())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@example((LISTENER, {"name": "a", "useOriginalDst": False, "tcpBacklogSize": 0, "enableReusePort": True}))
@example((CLUSTER, {"type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}}, "lbPolicy": "ROUND_ROBIN"}))
@example((CLUSTER, {"outlierDetection": {"interval": "0.25s", "maxEjectionPercent": 0}}))
@example((ENDPOINTS, {"clusterName": "c", "endpoints": [{"priority": 1, "lbEndpoints": [{"loadBalancingWeight": 2}]}]}))
@example(
    (ROUTES, {"virtualHosts": [{"routes": [{"match": {"prefix": ""}, "route": {"cluster": "", "timeout": "0s"}}]}]})
)
@example((LISTENER, {"filterChains": [{"filterChainMatch": {"sourcePorts": [0, 1, 300]}}]}))
@example((SECRET, {"name": "s", "tlsCertificate": {"certificateChain": {"inlineBytes": "AAE="}}}))
@example((CLUSTER, {"metadata": {"filterMetadata": {"a": {"k": None, "l": [1.5, True, {"m": ""}]}, "b": {}}}}))
def test_bytes_are_those_of_the_generated_classes(case):
    type_url, document = case

    ours = encode(type_url, document)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fields that Envoy would rather not see
        generated = message_class(type_url).from_dict(document)
        # The generated classes write fields in the order of the .proto file, we by number: both are the message.
        assert message_class(type_url).parse(ours).to_dict() == generated.to_dict()
        assert sorted(ours) == sorted(bytes(generated))


@given(resources(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_order_of_keys_does_not_matter(case, rng):
    type_url, document = case

    assert encode(type_url, shuffled(document, rng)) == encode(type_url, document)


def shuffled(value, rng):
    if isinstance(value, dict):
        items = [(key, shuffled(item, rng)) for key, item in value.items()]
        rng.shuffle(items)
        return dict(items)
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


def test_names_with_digits_are_those_of_envoy():
    detection = {"consecutive5xx": 5, "enforcingConsecutive5xx": 0}

    decoded = message_class(CLUSTER).parse(encode(CLUSTER, {"outlierDetection": detection})).outlier_detection

    assert (decoded.consecutive_5xx, decoded.enforcing_consecutive_5xx) == (5, 0)


def test_fields_are_written_by_number():
    document = {"trafficDirection": "OUTBOUND", "address": {"pipe": {"path": "/p"}}, "name": "n"}

    assert encode(LISTENER, document) == b"\x0a\x01n\x12\x06\x12\x04\x0a\x02/p\x80\x01\x02"


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("0s", 0, 0),
        ("5s", 5, 0),
        ("0.25s", 0, 250_000_000),
        ("-1.5s", -1, -500_000_000),
        ("-0.5s", 0, -500_000_000),
        ("0.000000001s", 0, 1),
        ("315576000000s", 315576000000, 0),
    ],
)
def test_durations(text, seconds, nanos):
    duration = Duration(seconds=seconds, nanos=nanos).SerializeToString()

    assert encode(CLUSTER, {"connectTimeout": text}) == b"\x22" + bytes([len(duration)]) + duration


@pytest.mark.parametrize(
    ("type_url", "document", "place", "what"),
    [
        (LISTENER, {"nam": "x"}, "Listener", "no field 'nam'"),
        (LISTENER, {"filter_chains": []}, "Listener", "no field 'filter_chains'"),
        (LISTENER, {"address": {"socketAddress": {"adress": "x"}}}, "address.socketAddress", "no field 'adress'"),
        (LISTENER, {"filterChains": [{}, {"filters": [{"nam": ""}]}]}, "filterChains[1].filters[0]", "no field 'nam'"),
        (LISTENER, {"trafficDirection": "UPWARDS"}, "trafficDirection", "UNSPECIFIED, INBOUND, OUTBOUND"),
        (LISTENER, {"trafficDirection": 1}, "trafficDirection", "none of"),
        (LISTENER, {"trafficDirection": []}, "trafficDirection", "does not fit"),
        (LISTENER, {"name": 5}, "name", "is no text"),
        (LISTENER, {"name": None}, "name", "is no text"),
        (LISTENER, {"name": "\ud800"}, "name", "does not fit"),
        (LISTENER, {"address": "1.2.3.4"}, "address", "expected an object of Address"),
        (LISTENER, {"address": None}, "address", "expected an object of Address"),
        (LISTENER, {"filterChains": {}}, "filterChains", "expected a list"),
        (LISTENER, {"useOriginalDst": "true"}, "useOriginalDst", "is not true or false"),
        (LISTENER, {"useOriginalDst": 0}, "useOriginalDst", "is not true or false"),
        (LISTENER, {"useOriginalDst": None}, "useOriginalDst", "is not true or false"),
        (LISTENER, {"tcpBacklogSize": -1}, "tcpBacklogSize", "no whole number from 0 to 4294967295"),
        (LISTENER, {"tcpBacklogSize": False}, "tcpBacklogSize", "no whole number"),
        (LISTENER, {"tcpBacklogSize": 1.0}, "tcpBacklogSize", "no whole number"),
        (LISTENER, {"address": {"pipe": {"mode": False}}}, "address.pipe.mode", "no whole number"),
        (LISTENER, {"address": {"pipe": {"mode": 2**32}}}, "address.pipe.mode", "no whole number"),
        (LISTENER, {"ignoreGlobalConnLimit": 0}, "ignoreGlobalConnLimit", "is not true or false"),
        (LISTENER, {"filterChains": [{"filterChainMatch": {"sourcePorts": {}}}]}, "sourcePorts", "expected a list"),
        (LISTENER, {"filterChains": [{"filterChainMatch": {"sourcePorts": [1, "2"]}}]}, "sourcePorts[1]", "no whole"),
        (LISTENER, {"filterChains": [{"filters": [{"typedConfig": {"a": 1}}]}]}, "typedConfig", "an Any needs @type"),
        (LISTENER, {"filterChains": [{"filters": [{"typedConfig": 5}]}]}, "typedConfig", "an Any needs @type"),
        (LISTENER, {"filterChains": [{"filters": [{"typedConfig": {"@type": "x"}}]}]}, "", "no message 'x'"),
        (CLUSTER, {"connectTimeout": 5}, "connectTimeout", "no duration"),
        (CLUSTER, {"connectTimeout": "5"}, "connectTimeout", "no duration"),
        (CLUSTER, {"connectTimeout": "1e3s"}, "connectTimeout", "no duration"),
        (CLUSTER, {"connectTimeout": "315576000001s"}, "connectTimeout", "longer"),
        (CLUSTER, {"metadata": {"filterMetadata": {"a": 5}}}, "metadata.filterMetadata", "does not fit"),
        (CLUSTER, {"metadata": {"filterMetadata": []}}, "metadata.filterMetadata", "expected an object"),
        (CLUSTER, {"metadata": {"filterMetadata": {1: {}}}}, "metadata.filterMetadata", "does not fit"),
        (SECRET, {"tlsCertificate": {"privateKey": {"inlineBytes": "%"}}}, "privateKey.inlineBytes", "does not fit"),
        (SECRET, {"tlsCertificate": {"privateKey": {"inlineBytes": 5}}}, "inlineBytes", "neither bytes nor base64"),
        (ROUTES, {"virtualHosts": [{"routes": [{"match": {"prefix": "/", "path": "/"}}]}]}, "match.path", "not both"),
        (CLUSTER, {"type": "EDS", "clusterType": {}}, "clusterType", "either 'type' or 'clusterType', not both"),
        (CLUSTER, {"commonLbConfig": {"healthyPanicThreshold": {"value": True}}}, "Threshold.value", "is no number"),
        (CLUSTER, {"commonLbConfig": {"healthyPanicThreshold": {"value": "5"}}}, "Threshold.value", "is no number"),
    ],
)
def test_what_is_not_in_the_schema_is_refused_with_its_place(type_url, document, place, what):
    with pytest.raises(SchemaError) as refused:
        encode(type_url, document)

    assert place in str(refused.value)
    assert what in str(refused.value)


@pytest.mark.parametrize("type_url", ["envoy.config.listener.v3.Listener", PREFIX + "envoy.None", "", PREFIX, "a/b.C"])
def test_unknown_types_are_refused(type_url):
    with pytest.raises(SchemaError, match="there is no message"):
        encode(type_url, {})


def test_an_any_of_a_message_that_is_no_object():
    any_ = encode_any({"@type": PREFIX + "google.protobuf.StringValue", "value": "x"})

    assert any_ == b"\x0a\x2ftype.googleapis.com/google.protobuf.StringValue\x12\x03\x0a\x01x"


@pytest.mark.parametrize("document", [{}, {"@type": 5}, {"value": 1}, None, [], "text"])
def test_an_any_without_a_type_is_refused(document):
    with pytest.raises(SchemaError, match="an Any needs @type"):
        encode_any(document)


def test_a_message_may_stand_encoded_in_its_place():
    address = {"socketAddress": {"address": "10.0.0.1", "portValue": 80}}
    encoded = Encoded(encode(PREFIX + "envoy.config.core.v3.Address", address))

    assert encode(LISTENER, {"name": "a", "address": encoded}) == encode(LISTENER, {"name": "a", "address": address})


def test_bytes_need_no_base64():
    raw = {"name": "s", "tlsCertificate": {"privateKey": {"inlineBytes": b"\x00\xff"}}}
    text = {"name": "s", "tlsCertificate": {"privateKey": {"inlineBytes": "AP8="}}}

    assert encode(SECRET, raw) == encode(SECRET, text)
