"""KumaResource: byte for byte what Google's protobuf makes, and what happens to a broken one."""

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.discovery import Entry
from meshd.discovery.fields import bytes_field, string_field
from meshd.discovery.wire import any_bytes, any_parts
from meshd.kds.envelope import KUMA_RESOURCE, TYPE_PREFIX, UnreadableError, decode, encode
from meshd.model import codec
from meshd.model.resource import ResourceKey
from tests.discovery import reference
from tests.kds.lab import REGISTRY, dataplane, mesh, permission


def resource(document: dict, **labels: str):
    return dataclasses.replace(codec.decode_document(document, REGISTRY), labels=labels)


def test_a_protobuf_kind_is_byte_equal() -> None:
    made = resource(dataplane("dp-1"), zzz="1", aaa="2")
    type_ = REGISTRY["Dataplane"]
    entry = encode(type_, made)
    url, body = any_parts(entry.body)
    assert url == TYPE_PREFIX + KUMA_RESOURCE
    theirs = reference.KumaResource.FromString(body)
    assert theirs.SerializeToString(deterministic=True) == body
    assert (theirs.meta.name, theirs.meta.mesh, dict(theirs.meta.labels)) == (
        "dp-1",
        "default",
        {"aaa": "2", "zzz": "1"},
    )
    assert theirs.spec.type_url == "type.googleapis.com/kuma.mesh.v1alpha1.Dataplane"
    assert theirs.spec.value == codec.spec_to_wire(type_, made.spec)
    assert not theirs.HasField("status")
    assert entry.name == "dp-1.default"
    assert entry.version == hashlib.sha256(body).hexdigest()


def test_a_json_kind_has_no_type_url() -> None:
    body = any_parts(encode(REGISTRY["MeshTrafficPermission"], resource(permission("p"))).body)[1]
    theirs = reference.KumaResource.FromString(body)
    assert theirs.spec.type_url == ""
    assert theirs.spec.value.startswith(b"{")


def test_received_bytes_are_passed_on_as_they_are() -> None:
    type_ = REGISTRY["Dataplane"]
    wire = codec.spec_to_wire(type_, resource(dataplane("dp")).spec) + bytes_field(900, b"later")
    made = dataclasses.replace(resource(dataplane("dp"), a="b"), wire=wire)
    arrived = decode(type_, encode(type_, made))
    assert arrived.spec == wire
    assert arrived.key == made.key
    assert arrived.labels == {"a": "b"}


def test_a_global_scoped_name_ends_with_a_dot() -> None:
    assert encode(REGISTRY["Mesh"], resource(mesh())).name == "default."


def envelope(meta: bytes, spec: bytes | None, url: str = TYPE_PREFIX + KUMA_RESOURCE) -> bytes:
    return any_bytes(url, bytes_field(1, meta) + (bytes_field(2, spec) if spec is not None else b""))


META = string_field(1, "x") + string_field(2, "default")
DATAPLANE = any_bytes("type.googleapis.com/kuma.mesh.v1alpha1.Dataplane", b"")


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("Dataplane", envelope(META, DATAPLANE, "type.googleapis.com/other.Thing"), "not a kuma.mesh"),
        ("Dataplane", envelope(META, None), "its spec is a ''"),
        (
            "Dataplane",
            envelope(META, any_bytes("a/kuma.mesh.v1alpha1.Mesh", b"")),
            "not a kuma.mesh.v1alpha1.Dataplane",
        ),
        ("MeshTrafficPermission", envelope(META, None), "no spec"),
        ("MeshTrafficPermission", envelope(META, any_bytes("", b"")), "no spec"),
        ("Mesh", envelope(META, any_bytes("a/kuma.mesh.v1alpha1.Mesh", b"")), "belongs to none"),
        ("Dataplane", envelope(string_field(1, "x"), DATAPLANE), "is no name of a mesh"),
        ("Dataplane", envelope(string_field(2, "default"), DATAPLANE), "its name ''"),
        ("Dataplane", envelope(string_field(1, "a/b") + string_field(2, "default"), DATAPLANE), "its name 'a/b'"),
        ("Dataplane", b"\xff\xff", "protobuf"),
    ],
)
def test_a_broken_envelope_costs_one_resource_and_says_why(kind: str, body: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason) as caught:
        decode(REGISTRY[kind], Entry("x.default", "", body))
    assert caught.value.key is not None


def test_the_outer_name_tells_the_key_of_garbage() -> None:
    with pytest.raises(UnreadableError) as caught:
        decode(REGISTRY["Dataplane"], Entry("x.default", "", b"\xff"))
    assert caught.value.key == ResourceKey("Dataplane", "default", "x")


@given(st.binary(max_size=100))
def test_random_bytes_are_unreadable_and_nothing_else(data: bytes) -> None:
    with pytest.raises(UnreadableError):
        decode(REGISTRY["Dataplane"], Entry("", "", data))
