"""The hand-joined bytes are those of Google's protobuf, both ways."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.discovery import wire
from meshd.discovery.messages import DeltaRequest, DeltaResponse, Entry, Node, Rejection
from tests.discovery import reference

NAMES = st.text(max_size=8)
# Go sorts map keys by bytes, as we do; upb puts "ab" before "a", so the keys compared with it are of one length.
KEYS = st.text("abcxyz", min_size=3, max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
NODES = st.builds(Node, id=NAMES, cluster=NAMES, metadata=st.dictionaries(KEYS, JSON, max_size=4))
REQUESTS = st.builds(
    DeltaRequest,
    type_url=NAMES,
    subscribe=st.lists(NAMES, max_size=3).map(tuple),
    unsubscribe=st.lists(NAMES, max_size=3).map(tuple),
    initial_versions=st.dictionaries(KEYS, NAMES, max_size=3),
    nonce=NAMES,
    error=st.none() | st.builds(Rejection, message=NAMES, code=st.integers(-(2**31), 2**31 - 1)),
    node=st.none() | NODES,
)
ENTRIES = st.builds(Entry, name=NAMES, version=NAMES, body=st.builds(wire.any_bytes, NAMES, st.binary(max_size=20)))
RESPONSES = st.builds(
    DeltaResponse,
    type_url=NAMES,
    resources=st.lists(ENTRIES, max_size=3).map(tuple),
    removed=st.lists(NAMES, max_size=3).map(tuple),
    nonce=NAMES,
    control_plane=NAMES,
    version=NAMES,
)


@settings(max_examples=100)
@given(REQUESTS)
def test_requests_are_byte_equal_to_protobuf(request: DeltaRequest) -> None:
    encoded = wire.encode_request(request)
    theirs = reference.Request.FromString(encoded)
    assert theirs.SerializeToString(deterministic=True) == encoded
    assert theirs.type_url == request.type_url
    assert list(theirs.resource_names_subscribe) == list(request.subscribe)
    assert dict(theirs.initial_resource_versions) == dict(request.initial_versions)
    assert theirs.HasField("error_detail") == (request.error is not None)
    assert wire.decode_request(encoded) == request


@settings(max_examples=100)
@given(RESPONSES)
def test_responses_are_byte_equal_to_protobuf(response: DeltaResponse) -> None:
    encoded = wire.encode_response(response)
    theirs = reference.Response.FromString(encoded)
    assert theirs.SerializeToString(deterministic=True) == encoded
    assert theirs.control_plane.identifier == response.control_plane
    assert theirs.system_version_info == response.version
    assert [r.name for r in theirs.resources] == [e.name for e in response.resources]
    assert wire.decode_response(encoded) == response


def test_node_metadata_means_the_same_to_protobuf() -> None:
    metadata = {
        "version": {"kumaCp": {"version": "2.14.3"}},
        "features": ["hash-suffix"],
        "n": 1.5,
        "b": False,
        "z": None,
    }
    encoded = wire.encode_request(DeltaRequest("Mesh", node=Node("zone-1", metadata=metadata)))
    theirs = reference.Request.FromString(encoded).node.metadata
    assert theirs["version"]["kumaCp"]["version"] == "2.14.3"
    assert list(theirs["features"]) == ["hash-suffix"]
    assert theirs["n"] == 1.5
    assert theirs["b"] is False
    assert wire.decode_request(encoded).node == Node("zone-1", metadata=metadata)


@given(st.binary(max_size=80))
def test_random_bytes_raise_only_value_error(data: bytes) -> None:
    for decode in (wire.decode_request, wire.decode_response, wire.any_parts):
        try:
            decode(data)
        except ValueError:
            continue


def test_a_struct_that_is_too_deep_is_refused() -> None:
    value: wire.Json = "x"
    for _ in range(200):
        value = [value]
    encoded = wire.encode_node(Node("n", metadata={"a": value}))
    with pytest.raises(ValueError, match="nested deeper"):
        wire.decode_node(encoded)
