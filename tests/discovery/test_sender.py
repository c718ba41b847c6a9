"""Subscriptions, coalescing, nonces and NACKs of the sending end; and both ends against each other."""

from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshd.discovery import (
    Answer,
    DeltaRequest,
    DeltaResponse,
    Entry,
    Node,
    Received,
    Receiver,
    Rejection,
    Sender,
    Waiting,
)


class Shelf:
    """Resources of one or more types in plain dictionaries."""

    def __init__(self, **types: dict[str, str]) -> None:
        self.types = types

    def get(self, type_url: str, name: str) -> Entry | None:
        version = self.types.get(type_url, {}).get(name)
        return None if version is None else Entry(name, version, version.encode())

    def names(self, type_url: str) -> Iterable[str]:
        return self.types.get(type_url, {})


def told(response: DeltaResponse | None) -> tuple[dict[str, str], tuple[str, ...]] | None:
    return None if response is None else ({e.name: e.version for e in response.resources}, response.removed)


def ack(response: DeltaResponse, **more: object) -> DeltaRequest:
    return DeltaRequest(response.type_url, nonce=response.nonce, **more)


@pytest.mark.parametrize("subscribe", [(), ("*",)], ids=["legacy", "explicit"])
def test_first_response_of_a_wildcard_is_everything(subscribe: tuple[str, ...]) -> None:
    sender = Sender(Shelf(T={"a": "1", "b": "2"}), "global")
    sender.receive(DeltaRequest("T", subscribe=subscribe))
    response = sender.poll(5.0)
    assert told(response) == ({"a": "1", "b": "2"}, ())
    assert (response.nonce, response.control_plane) == ("1", "global")
    assert sender.unacknowledged() == {"T": Waiting("1", 5.0)}


def test_an_unknown_type_gets_one_empty_response() -> None:
    sender = Sender(Shelf())
    sender.receive(DeltaRequest("Nope", subscribe=("*",)))
    response = sender.poll(0)
    assert told(response) == ({}, ())
    assert sender.receive(ack(response)) is Answer.ACK
    assert sender.poll(0) is None


def test_nonces_count_up_over_all_types() -> None:
    sender = Sender(Shelf())
    for type_url in "AB":
        sender.receive(DeltaRequest(type_url))
    assert [sender.poll(0).nonce, sender.poll(0).nonce] == ["1", "2"]


def test_changes_wait_for_the_answer_and_are_coalesced() -> None:
    shelf = Shelf(T={"a": "1"})
    sender = Sender(shelf)
    sender.receive(DeltaRequest("T", subscribe=("*",)))
    first = sender.poll(0)
    shelf.types["T"] = {"b": "1"}
    sender.changed("T", ["a", "b"])
    assert sender.poll(0) is None
    shelf.types["T"] = {"b": "2"}
    sender.changed("T", ["b"])
    sender.receive(ack(first))
    assert told(sender.poll(0)) == ({"b": "2"}, ("a",))


def test_a_change_back_is_no_change() -> None:
    shelf = Shelf(T={"a": "1"})
    sender = Sender(shelf)
    sender.receive(DeltaRequest("T", subscribe=("*",)))
    sender.receive(ack(sender.poll(0)))
    sender.changed("T", ["a", "never existed"])
    assert sender.poll(0) is None


def test_only_named_changes_are_looked_at() -> None:
    shelf = Shelf(T={"a": "1", "b": "1"})
    sender = Sender(shelf)
    sender.receive(DeltaRequest("T", subscribe=("*",)))
    sender.receive(ack(sender.poll(0)))
    shelf.types["T"] = {"a": "2", "b": "2"}
    sender.changed("T", ["a"])
    assert told(sender.poll(0)) == ({"a": "2"}, ())


def test_a_nack_is_remembered_and_nothing_is_sent_again() -> None:
    shelf = Shelf(T={"a": "1"})
    sender = Sender(shelf)
    sender.receive(DeltaRequest("T", subscribe=("*",)))
    first = sender.poll(0)
    assert sender.receive(ack(first, subscribe=("*",), error=Rejection("bad a"))) is Answer.NACK
    assert sender.rejections() == {"T": Rejection("bad a")}
    assert sender.poll(0) is None
    shelf.types["T"]["a"] = "2"
    sender.changed("T", ["a"])
    second = sender.poll(0)
    assert told(second) == ({"a": "2"}, ())
    sender.receive(ack(second))
    assert sender.rejections() == {}


def test_a_stale_nonce_answers_nothing() -> None:
    sender = Sender(Shelf(T={"a": "1"}))
    sender.receive(DeltaRequest("T", subscribe=("*",)))
    sender.poll(0)
    assert sender.receive(DeltaRequest("T", nonce="77")) is Answer.NONE
    assert "T" in sender.unacknowledged()


def test_held_versions_are_not_sent_again_and_vanished_ones_are_removed() -> None:
    sender = Sender(Shelf(T={"a": "1", "b": "2"}))
    sender.receive(DeltaRequest("T", initial_versions={"a": "1", "b": "1", "gone": "1"}))
    assert told(sender.poll(0)) == ({"b": "2"}, ("gone",))


def test_names_get_what_they_ask_for_and_are_told_what_is_absent() -> None:
    shelf = Shelf(T={"a": "1", "b": "1"})
    sender = Sender(shelf)
    sender.receive(DeltaRequest("T", subscribe=("a", "x")))
    first = sender.poll(0)
    assert told(first) == ({"a": "1"}, ("x",))
    sender.receive(ack(first))
    shelf.types["T"] = {"a": "1", "b": "2", "x": "1"}
    sender.changed("T", ["b", "x"])
    assert told(sender.poll(0)) == ({"x": "1"}, ())


def test_asking_again_by_name_is_answered_again() -> None:
    sender = Sender(Shelf(T={"a": "1"}))
    sender.receive(DeltaRequest("T", subscribe=("a",)))
    first = sender.poll(0)
    sender.receive(ack(first, subscribe=("a",)))
    assert told(sender.poll(0)) == ({"a": "1"}, ())


def test_unsubscribed_names_are_forgotten() -> None:
    shelf = Shelf(T={"a": "1"})
    sender = Sender(shelf)
    sender.receive(DeltaRequest("T", subscribe=("a",)))
    sender.receive(ack(sender.poll(0), unsubscribe=("a",)))
    shelf.types["T"]["a"] = "2"
    sender.changed("T", ["a"])
    assert sender.poll(0) is None


def test_unsubscribing_a_name_under_the_wildcard_announces_it_again() -> None:
    sender = Sender(Shelf(T={"a": "1"}))
    sender.receive(DeltaRequest("T", subscribe=("*", "a")))
    sender.receive(ack(sender.poll(0), unsubscribe=("a",)))
    assert told(sender.poll(0)) == ({"a": "1"}, ())


def test_dropping_the_wildcard_keeps_the_names() -> None:
    shelf = Shelf(T={"a": "1", "b": "1"})
    sender = Sender(shelf)
    sender.receive(DeltaRequest("T", subscribe=("*", "a")))
    sender.receive(ack(sender.poll(0), unsubscribe=("*",)))
    shelf.types["T"] = {"a": "2", "b": "2"}
    sender.changed("T", ["a", "b"])
    assert told(sender.poll(0)) == ({"a": "2"}, ())


def test_types_may_be_polled_in_an_order() -> None:
    sender = Sender(Shelf())
    for type_url in ("endpoints", "clusters"):
        sender.receive(DeltaRequest(type_url))
    assert sender.poll(0, ("clusters", "endpoints")).type_url == "clusters"
    assert sender.poll(0, ("clusters",)) is None


NAMES = st.sampled_from("abcde")
TYPES = st.sampled_from(("T", "U"))


class Stream(RuleBasedStateMachine):
    """Random publishes, deliveries, ACKs, NACKs and reconnects: in the end the copy is the original."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf(T={}, U={})
        self.count = 0
        self.copy: dict[str, dict[str, str]] = {"T": {}, "U": {}}
        self.connect()

    def connect(self) -> None:
        self.sender = Sender(self.shelf)
        self.receiver = Receiver(Node("n"), ("T", "U"))
        self.flight: list[DeltaResponse] = []
        self.applied: list[tuple[Received, bool]] = []
        for request in self.receiver.first_requests():
            self.sender.receive(request)

    @rule(type_url=TYPES, names=st.sets(NAMES, min_size=1))
    def publish(self, type_url: str, names: set[str]) -> None:
        for name in names:
            self.count += 1
            self.shelf.types[type_url][name] = str(self.count)
        self.sender.changed(type_url, names)

    @rule(type_url=TYPES, name=NAMES)
    def remove(self, type_url: str, name: str) -> None:
        self.shelf.types[type_url].pop(name, None)
        self.sender.changed(type_url, [name])

    @rule()
    def send(self) -> None:
        response = self.sender.poll(0)
        if response is not None:
            assert response.type_url not in {r.type_url for r in self.flight}
            self.flight.append(response)

    @precondition(lambda self: self.flight)
    @rule()
    def deliver(self) -> None:
        received = self.receiver.receive(self.flight.pop(0), 0)
        copy = self.copy[received.type_url]
        if received.complete:
            copy.clear()
        for name in received.removed:
            copy.pop(name, None)
        copy.update({e.name: e.version for e in received.resources})
        self.applied.append((received, received.complete))

    @precondition(lambda self: self.applied)
    @rule(nack=st.booleans())
    def answer(self, nack: bool) -> None:
        received, _ = self.applied.pop(0)
        # A NACK here says "applied, with a complaint", as KDS peers do for batches that hold one bad resource.
        request = self.receiver.reject(received, "no") if nack else self.receiver.acknowledge(received)
        assert self.sender.receive(request) is (Answer.NACK if nack else Answer.ACK)

    @rule()
    def reconnect(self) -> None:
        self.connect()

    @invariant()
    def one_unacknowledged_response_per_type(self) -> None:
        open_types = [r.type_url for r in self.flight] + [r.type_url for r, _ in self.applied]
        assert sorted(open_types) == sorted(self.sender.unacknowledged())
        assert not any(self.sender.is_settled(type_url) for type_url in open_types)
        for response in self.flight:
            changed = {entry.name: entry.version for entry in response.resources}
            flight = self.sender.flight(response.type_url)
            assert {name: after for name, (_, after) in flight.items() if after is not None} == changed
            assert {name for name, (_, after) in flight.items() if after is None} == set(response.removed)

    def teardown(self) -> None:
        while True:
            while self.applied:
                self.answer(nack=False)
            self.send()
            if not self.flight:
                break
            while self.flight:
                self.deliver()
        assert self.copy == self.shelf.types
        assert all(self.sender.is_settled(type_url) for type_url in self.sender.types)


TestStream = Stream.TestCase
TestStream.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
