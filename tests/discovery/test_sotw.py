"""State of the world: what is answered, when, and that what is current is not sent again."""

import pytest

from meshd.discovery import Answer, StateOfTheWorld, StateRequest, StateResponse
from tests.discovery.proxies import (
    CLUSTERS,
    ENDPOINTS,
    LATE,
    LISTENERS,
    ORDER,
    DeltaProxy,
    Shelf,
    StateProxy,
    delta,
    state,
)


def shelf() -> Shelf:
    return Shelf(clusters={"a": "1", "b": "1"}, endpoints={"a": "1", "b": "1"}, listeners={"in": "1"})


def told(response: StateResponse | None) -> tuple[str, list[str]] | None:
    return None if response is None else (response.type_url, [f"{e.name}={e.version}" for e in response.resources])


def poll(machine: StateOfTheWorld) -> StateResponse | None:
    return machine.poll(0, ORDER, LATE)


def ack(machine: StateOfTheWorld, response: StateResponse, names: tuple[str, ...] = ()) -> Answer:
    return machine.receive(StateRequest(response.type_url, names, response.version, response.nonce))


def test_whole_types_get_everything_every_time() -> None:
    resources = shelf()
    machine = state(resources)
    machine.receive(StateRequest(CLUSTERS))
    first = poll(machine)
    assert told(first) == (CLUSTERS, ["a=1", "b=1"])
    assert (first.nonce, first.control_plane) == ("1", "cp")
    assert poll(machine) is None
    assert ack(machine, first) is Answer.ACK
    assert poll(machine) is None
    resources.types[CLUSTERS]["a"] = "2"
    machine.changed(CLUSTERS, ["a"])
    second = poll(machine)
    assert told(second) == (CLUSTERS, ["a=2", "b=1"])
    assert second.version != first.version


def test_an_empty_whole_type_is_answered_and_an_unknown_type_is_not() -> None:
    machine = state(Shelf())
    machine.receive(StateRequest("unknown", ("x",)))
    machine.receive(StateRequest(LISTENERS))
    assert told(machine.poll(0, (*ORDER, "unknown"))) == (LISTENERS, [])
    assert machine.poll(0, (*ORDER, "unknown")) is None


def test_named_types_get_what_is_new_of_the_names() -> None:
    resources = shelf()
    machine = state(resources)
    machine.receive(StateRequest(ENDPOINTS, ("a", "later")))
    first = poll(machine)
    assert told(first) == (ENDPOINTS, ["a=1"])
    ack(machine, first, ("a", "later"))
    assert poll(machine) is None
    resources.types[ENDPOINTS] |= {"b": "2", "later": "1"}
    machine.changed(ENDPOINTS, ["b", "later"])
    second = poll(machine)
    assert told(second) == (ENDPOINTS, ["later=1"])
    ack(machine, second, ("a", "later"))
    # a change of the names is answered at once
    machine.receive(StateRequest(ENDPOINTS, ("a", "b", "later"), second.version, second.nonce))
    assert told(poll(machine)) == (ENDPOINTS, ["b=2"])


def test_only_the_newest_nonce_counts() -> None:
    resources = shelf()
    machine = state(resources)
    machine.receive(StateRequest(ENDPOINTS, ("a",)))
    first = poll(machine)
    ack(machine, first, ("a",))
    resources.types[ENDPOINTS]["a"] = "2"
    machine.changed(ENDPOINTS, ["a"])
    second = poll(machine)
    assert machine.receive(StateRequest(ENDPOINTS, ("a", "b"), first.version, first.nonce)) is Answer.NONE
    assert ENDPOINTS in machine.unacknowledged()
    assert ack(machine, second, ("a", "b")) is Answer.ACK
    assert told(poll(machine)) == (ENDPOINTS, ["b=1"])


def test_a_name_given_up_and_asked_for_again_is_sent_again() -> None:
    machine = state(shelf())
    machine.receive(StateRequest(ENDPOINTS, ("a", "b")))
    first = poll(machine)
    ack(machine, first, ("b",))
    assert poll(machine) is None
    ack(machine, first, ("a", "b"))
    assert told(poll(machine)) == (ENDPOINTS, ["a=1"])


@pytest.mark.parametrize(("machine", "proxy"), [(delta, DeltaProxy), (state, StateProxy)], ids=["delta", "sotw"])
class TestBothForms:
    def test_clusters_come_first_and_go_last(self, machine, proxy) -> None:
        resources = shelf()
        sender, envoy = machine(resources), proxy()
        envoy.connect(sender)
        envoy.settle(sender)
        assert [t for t, _, _ in envoy.log] == [CLUSTERS, ENDPOINTS, LISTENERS]
        before = len(envoy.log)
        # a listener leaves b for c: b must be there until the listener has gone over
        resources.types |= {CLUSTERS: {"a": "1", "c": "1"}, ENDPOINTS: {"a": "1", "c": "1"}, LISTENERS: {"in": "2"}}
        for type_url, names in ((CLUSTERS, "bc"), (ENDPOINTS, "bc"), (LISTENERS, ["in"])):
            sender.changed(type_url, names)
        has_b = []
        while (response := sender.poll(0, ORDER, LATE)) is not None:
            sender.receive(envoy.take(response))
            envoy.follow(sender)
            has_b.append((response.type_url, "b" in envoy.held[CLUSTERS]))
        assert [t for t, _, _ in envoy.log[before:]] == [CLUSTERS, ENDPOINTS, LISTENERS, CLUSTERS]
        assert has_b[-2:] == [(LISTENERS, True), (CLUSTERS, False)]
        assert envoy.held[CLUSTERS] == resources.types[CLUSTERS]

    def test_nothing_is_removed_while_a_listener_is_not_answered(self, machine, proxy) -> None:
        resources = shelf()
        sender, envoy = machine(resources), proxy()
        envoy.connect(sender)
        envoy.settle(sender)
        resources.types[LISTENERS] = {"in": "2"}
        sender.changed(LISTENERS, ["in"])
        waiting = sender.poll(0, ORDER, LATE)
        del resources.types[CLUSTERS]["b"]
        sender.changed(CLUSTERS, ["b"])
        assert sender.poll(0, ORDER, LATE) is None
        sender.receive(envoy.take(waiting))
        envoy.settle(sender)
        assert envoy.held[CLUSTERS] == {"a": "1"}

    def test_endpoints_are_sent_again_when_told(self, machine, proxy) -> None:
        sender, envoy = machine(shelf()), proxy()
        envoy.connect(sender)
        envoy.settle(sender)
        before = len(envoy.log)
        sender.again(ENDPOINTS, ["b", "nobody asked"])
        envoy.settle(sender)
        assert envoy.log[before:] == [(ENDPOINTS, ("b",), ())]

    def test_after_a_reconnect_nothing_current_is_sent(self, machine, proxy) -> None:
        resources = shelf()
        envoy = proxy()
        first = machine(resources)
        envoy.connect(first)
        envoy.settle(first)
        before = len(envoy.log)
        second = machine(resources)
        envoy.connect(second)
        envoy.settle(second)
        # delta owes an answer to every first request; it may be empty
        assert all(not names and not removed for _, names, removed in envoy.log[before:])
        assert second.accepted(CLUSTERS) == {"a": "1", "b": "1"}
        resources.types[ENDPOINTS]["a"] = "2"
        second.changed(ENDPOINTS, ["a"])
        before = len(envoy.log)
        envoy.settle(second)
        assert envoy.log[before:] == [(ENDPOINTS, ("a",), ())]

    def test_after_a_reconnect_what_changed_is_sent(self, machine, proxy) -> None:
        resources = shelf()
        envoy = proxy()
        first = machine(resources)
        envoy.connect(first)
        envoy.settle(first)
        resources.types |= {CLUSTERS: {"a": "1"}, ENDPOINTS: {"a": "2"}, LISTENERS: {"in": "1", "out": "1"}}
        second = machine(resources)
        envoy.connect(second)
        envoy.settle(second)
        assert envoy.held == resources.types


def test_a_large_delta_is_cut_and_what_refers_to_it_waits() -> None:
    names = {f"c{i}": "1" for i in range(10)}
    resources = Shelf(clusters=names, endpoints=names, listeners={"in": "1"})
    sender, envoy = delta(resources, limit_bytes=20), DeltaProxy()
    envoy.connect(sender)
    envoy.settle(sender)
    assert envoy.held == resources.types
    assert [len(got) for t, got, _ in envoy.log if t == CLUSTERS] == [4, 4, 2]
    order = [t for t, _, _ in envoy.log]
    assert order.index(LISTENERS) > max(i for i, t in enumerate(order) if t in (CLUSTERS, ENDPOINTS))
