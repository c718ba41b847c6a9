import pytest

from meshd.kinds.external_service import DataSource
from meshd.kinds.from_message import spec_from_message
from meshd.kinds.without_effect import OLD
from meshd.model.codec import spec_from_wire, spec_to_json, spec_to_wire
from meshd.model.shape import ShapeError, read_lenient, read_strict
from meshd.proto.kuma.mesh import v1alpha1 as proto

TYPES = {type_.kind: type_ for type_ in OLD}


def test_a_message_has_one_spec():
    assert spec_from_message(proto.Retry) is spec_from_message(proto.Retry)
    listener = spec_from_message(proto.MeshGatewayTlsConf)
    assert listener.model_fields["certificates"].annotation == tuple[DataSource, ...]


@pytest.mark.parametrize(
    ("kind", "data", "problem"),
    [
        (
            "Timeout",
            {"conf": {"conectTimeout": "1s"}},
            'did you mean "connectTimeout"',
        ),
        ("Timeout", {"conf": {"connectTimeout": "soon"}}, "conf.connectTimeout"),
        ("Retry", {"conf": {"http": {"retryOn": ["sometimes"]}}}, "conf.http.retryOn[0]: must be one of"),
        ("Retry", {"conf": {"tcp": {"maxConnectAttempts": -1}}}, "conf.tcp.maxConnectAttempts"),
        ("MeshGateway", {"conf": {"listeners": [{"port": "80"}]}}, "conf.listeners[0].port: must be a whole number"),
        ("MeshGatewayRoute", {"conf": {"tcp": {}, "http": {}}}, "conf: must have only one of tcp and http"),
        ("HealthCheck", {"conf": {"healthyPanicThreshold": 1e300}}, "conf.healthyPanicThreshold: is too large"),
    ],
)
def test_mistakes_are_named(kind, data, problem):
    with pytest.raises(ShapeError) as caught:
        read_strict(TYPES[kind].spec, data)
    assert problem in str(caught.value)


WIRE = [
    # made by hand from the field numbers in reference/kds.md section 6.9
    ("TrafficLog", {"conf": {"backend": "x"}}, "1a030a0178"),
    ("Retry", {"conf": {"http": {"retriableStatusCodes": [500, 2], "retryOn": ["reset"]}}}, "1a0a0a082a03f403023a0102"),
    ("MeshGateway", {"conf": {"listeners": [{"port": 80, "protocol": "HTTP"}]}}, "1a061204" + "10501804"),
    ("HealthCheck", {"conf": {"healthyPanicThreshold": 55.1}}, "1a0752050d66665c42"),
]


@pytest.mark.parametrize(("kind", "data", "wire"), WIRE)
def test_wire_vectors(kind, data, wire):
    type_ = TYPES[kind]
    spec = read_strict(type_.spec, data)
    assert spec_to_wire(type_, spec).hex() == wire
    assert spec_to_json(type_, spec_from_wire(type_, bytes.fromhex(wire))) == data


def test_repeated_numbers_are_read_unpacked_too():
    unpacked = bytes.fromhex("1a070a0528f4032802")
    assert spec_to_json(TYPES["Retry"], spec_from_wire(TYPES["Retry"], unpacked)) == {
        "conf": {"http": {"retriableStatusCodes": [500, 2]}}
    }


def test_what_a_newer_peer_says_does_not_matter():
    spec = read_lenient(TYPES["TrafficLog"].spec, '{"conf": {"backend": "x", "sampling": 3}}')
    assert spec_to_json(TYPES["TrafficLog"], spec) == {"conf": {"backend": "x"}}
