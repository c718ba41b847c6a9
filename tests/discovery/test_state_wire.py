"""The hand-joined state-of-the-world bytes are those of Google's protobuf, both ways."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.discovery import Entry, Rejection, StateRequest, StateResponse, state_wire
from tests.discovery import reference
from tests.discovery.test_wire import ENTRIES, NAMES, NODES

REQUESTS = st.builds(
    StateRequest,
    type_url=NAMES,
    names=st.lists(NAMES | st.text(min_size=130, max_size=140), max_size=4).map(tuple),
    version=NAMES,
    nonce=NAMES,
    error=st.none() | st.builds(Rejection, message=NAMES, code=st.integers(-(2**31), 2**31 - 1)),
    node=st.none() | NODES,
)
RESPONSES = st.builds(
    StateResponse,
    type_url=NAMES,
    version=NAMES,
    resources=st.lists(ENTRIES, max_size=3).map(tuple),
    nonce=NAMES,
    control_plane=NAMES,
)


@settings(max_examples=100, deadline=None)
@given(REQUESTS)
def test_requests_are_byte_equal_to_protobuf(request: StateRequest) -> None:
    encoded = state_wire.encode_request(request)
    theirs = reference.StateRequest.FromString(encoded)
    assert theirs.SerializeToString(deterministic=True) == encoded
    assert list(theirs.resource_names) == list(request.names)
    assert state_wire.decode_request(encoded) == request


@settings(max_examples=100, deadline=None)
@given(RESPONSES)
def test_responses_are_byte_equal_to_protobuf(response: StateResponse) -> None:
    encoded = state_wire.encode_response(response)
    theirs = reference.StateResponse.FromString(encoded)
    assert theirs.SerializeToString(deterministic=True) == encoded
    assert theirs.control_plane.identifier == response.control_plane
    nameless = tuple(Entry("", "", e.body) for e in response.resources)
    assert state_wire.decode_response(encoded) == replace(response, resources=nameless)


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_random_bytes_raise_only_value_error(data: bytes) -> None:
    for decode in (state_wire.decode_request, state_wire.decode_response):
        try:
            decode(data)
        except ValueError:
            continue
