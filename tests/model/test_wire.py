"""How protobuf bytes of other writers are read."""

from datetime import timedelta

import pytest

from meshd.kinds import KINDS
from meshd.kinds.dataplane import Dataplane, GatewayType
from meshd.kinds.external_service import ExternalService
from meshd.kinds.zone import Zone
from meshd.model.registry import Registry
from meshd.model.resource import Spec
from meshd.model.wire import decode, encode, schema_of
from meshd.model.wire_values import decode_struct, encode_struct, read_fields, varint

REGISTRY = Registry(KINDS)


def schema(kind):
    return schema_of(REGISTRY[kind].spec, REGISTRY[kind].message)


@pytest.mark.parametrize(
    ("hex_", "address"),
    [
        ("0a052a03312e31" + "fa0703616263", "1.1"),  # an unknown field after it
        ("0a00" + "0a052a03312e31", "1.1"),  # a message in two pieces
        ("0a052a03312e31" + "0a00", "1.1"),
        ("0a0a2a03312e31" + "2a03322e32", "2.2"),  # the last value wins
        ("0a022803", ""),  # a varint where text is expected is skipped
    ],
)
def test_lenient_where_protobuf_is(hex_, address):
    assert decode(schema("Dataplane"), bytes.fromhex(hex_)).networking.address == address


@pytest.mark.parametrize(
    ("micros", "hex_"),
    [
        (1_500_000, "08011080cab5ee01"),
        (-1, "1098f8ffffffffffffff01"),  # both parts have the sign of the whole
        (-1_000_001, "08ffffffffffffffffff01" + "1098f8ffffffffffffff01"),
        (0, ""),
    ],
)
def test_durations_of_either_sign(micros, hex_):
    body = bytes.fromhex(hex_)
    backend = b"\x1a" + varint(len(body) + 2) + b"\x12" + varint(len(body)) + body
    mtls = b"\x12" + varint(len(backend)) + backend
    data = b"\x0a" + varint(len(mtls)) + mtls
    spec = decode(schema("Mesh"), data)
    assert spec.mtls.backends[0].dp_cert.request_timeout == timedelta(microseconds=micros)
    assert encode(schema("Mesh"), spec) == data


def test_unknown_enum_number_is_the_default():
    spec = decode(schema("Dataplane"), bytes.fromhex("0a041a021063"))
    assert spec.networking.gateway.type is GatewayType.DELEGATED


def test_a_later_way_of_a_oneof_takes_over():
    # caCert {secret "a"} {file "b"} {inline "c"}
    source = bytes.fromhex("0a0161" + "120162" + "1a030a0163")
    tls = b"\x12" + varint(len(source)) + source
    networking = b"\x12" + varint(len(tls)) + tls
    spec = decode(schema("ExternalService"), b"\x0a" + varint(len(networking)) + networking)
    assert isinstance(spec, ExternalService)
    cert = spec.networking.tls.ca_cert
    assert (cert.secret, cert.file, cert.inline, cert.inline_string) == (None, None, b"c", None)


@pytest.mark.parametrize(
    ("hex_", "reason"),
    [
        ("0a05" + "2a03", "wants 5 bytes"),
        ("0a", "ends within a number"),
        ("0b", "wire type 3"),
        ("00", "field number 0"),
        ("0a03" + "2a01ff", "utf-8"),
        ("ff" * 11, "more than 10 bytes"),
        ("0a" + "ff" * 9 + "01", "wants 18446744073709551615 bytes"),
    ],
)
def test_malformed_bytes_say_how(hex_, reason):
    with pytest.raises(ValueError, match=reason):
        decode(schema("Dataplane"), bytes.fromhex(hex_))


def test_time_beyond_the_calendar_is_malformed():
    far = b"\x08" + varint(2**62)
    expiry = b"\x0a" + varint(len(far)) + far
    with pytest.raises(ValueError, match="malformed protobuf"):
        decode(schema("DataplaneInsight"), b"\x12" + varint(len(expiry)) + expiry)


def test_struct_nested_without_end_is_refused():
    data = b"\x08\x00"
    for _ in range(300):
        entry = b"\x12" + varint(len(data)) + data
        fields = b"\x0a" + varint(len(entry)) + entry
        data = b"\x2a" + varint(len(fields)) + fields
    _, _, inner = next(read_fields(data))
    with pytest.raises(ValueError, match="nested too deep"):
        decode_struct(inner)


def test_struct_keeps_whole_numbers_whole():
    value = {"b": [1, 2.5, None, "x", {}], "a": True, "c": 2**60}
    assert decode_struct(encode_struct(value)) == value
    assert isinstance(decode_struct(encode_struct({"p": 5670}))["p"], int)


def test_schema_out_of_step_is_a_type_error():
    class Other(Spec):
        enabled: bool | None = None
        more: str = ""

    class Less(Spec):
        pass

    with pytest.raises(TypeError, match="Zone has no field for Other: more"):
        schema_of(Other, REGISTRY["Zone"].message)
    with pytest.raises(TypeError, match=r"Less has no field for Zone\.enabled"):
        schema_of(Less, REGISTRY["Zone"].message)


def test_wrapper_present_and_zero_is_not_absent():
    assert decode(schema("Zone"), b"\x0a\x00") == Zone(enabled=False)
    assert decode(schema("Zone"), b"") == Zone()


def test_decoded_specs_equal_built_ones():
    assert decode(schema("Dataplane"), b"") == Dataplane()
