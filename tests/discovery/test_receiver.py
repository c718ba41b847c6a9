"""What the keeping end asks, takes and answers."""

import pytest

from meshd.discovery import DeltaResponse, Node, Receiver, Rejection

NODE = Node("zone-1", metadata={"features": ["hash-suffix"]})


def test_first_requests_are_wildcards_with_the_whole_node() -> None:
    requests = Receiver(NODE, ("Mesh", "Secret")).first_requests()
    assert [(r.type_url, r.subscribe, r.nonce, r.node) for r in requests] == [
        ("Mesh", ("*",), "", NODE),
        ("Secret", ("*",), "", NODE),
    ]


def test_the_first_response_of_a_type_is_complete_and_later_ones_are_not() -> None:
    receiver = Receiver(NODE, ("Mesh", "Secret"))
    first = receiver.receive(DeltaResponse("Mesh", nonce="1"), 0)
    assert first.complete
    request = receiver.acknowledge(first)
    assert (request.nonce, request.subscribe, request.error, request.node) == ("1", (), None, Node("zone-1"))
    assert not receiver.receive(DeltaResponse("Mesh", nonce="2"), 0).complete
    assert receiver.receive(DeltaResponse("Secret", nonce="3"), 0).complete


def test_a_nack_names_the_reason_and_ends_the_initial_state_too() -> None:
    receiver = Receiver(NODE, ("Mesh",))
    request = receiver.reject(receiver.receive(DeltaResponse("Mesh", nonce="1"), 0), "two backends")
    assert request.error == Rejection("two backends")
    assert (request.subscribe, request.nonce, request.node) == (("*",), "1", Node("zone-1"))
    assert receiver.complete_types == {"Mesh"}
    assert not receiver.receive(DeltaResponse("Mesh", nonce="2"), 0).complete


def test_it_says_what_it_has_not_answered() -> None:
    receiver = Receiver(NODE, ("Mesh",))
    received = receiver.receive(DeltaResponse("Mesh", nonce="9"), 4.0)
    assert receiver.unacknowledged()["Mesh"].since == 4.0
    receiver.acknowledge(received)
    assert receiver.unacknowledged() == {}


def test_a_type_that_was_not_asked_for_breaks_the_protocol() -> None:
    with pytest.raises(ValueError, match="'Zone', which was not asked for"):
        Receiver(NODE, ("Mesh",)).receive(DeltaResponse("Zone"), 0)


def test_a_second_response_before_an_answer_breaks_the_protocol() -> None:
    receiver = Receiver(NODE, ("Mesh",))
    receiver.receive(DeltaResponse("Mesh", nonce="1"), 0)
    with pytest.raises(ValueError, match="before the first was answered"):
        receiver.receive(DeltaResponse("Mesh", nonce="2"), 0)
