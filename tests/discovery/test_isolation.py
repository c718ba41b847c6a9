"""Good resources arrive although bad ones are beside them, in both forms of the protocol."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from meshd.discovery.isolation import Isolation
from meshd.model.errors import MAX_REASON
from tests.discovery.proxies import (
    CLUSTERS,
    ENDPOINTS,
    LISTENERS,
    WHOLE,
    DeltaProxy,
    Shelf,
    StateProxy,
    delta,
    is_bad,
    state,
)

BOTH = pytest.mark.parametrize(("machine", "proxy"), [(delta, DeltaProxy), (state, StateProxy)], ids=["delta", "sotw"])
NAMES = pytest.mark.parametrize("names", [True, False], ids=["named", "whole"])


def shelf(**clusters: str) -> Shelf:
    return Shelf(**{CLUSTERS: clusters, ENDPOINTS: dict.fromkeys(clusters, "1"), LISTENERS: {"in": "1"}})


@BOTH
@NAMES
def test_all_good_ones_arrive_beside_a_bad_one(machine, proxy, names) -> None:
    resources = shelf(**{f"c{i:02}": "bad" if i == 13 else "1" for i in range(40)})
    sender, envoy = machine(resources), proxy(names)
    envoy.connect(sender)
    envoy.settle(sender)
    assert envoy.held[CLUSTERS] == {n: v for n, v in resources.types[CLUSTERS].items() if v == "1"}
    [(type_url, refused)] = sender.refusals().items()
    assert (type_url, list(refused)) == (CLUSTERS, ["c13"])
    assert refused["c13"].reason == ("<c13>" if names else "something is wrong")
    assert refused["c13"].held is None
    rounds = [n for t, n, _ in envoy.log if t == CLUSTERS and "c13" in n]
    assert len(rounds) <= 8


@BOTH
@NAMES
def test_a_refused_version_is_not_sent_again_and_the_last_good_one_stays(machine, proxy, names) -> None:
    resources = shelf(a="1", b="1")
    sender, envoy = machine(resources), proxy(names)
    envoy.connect(sender)
    envoy.settle(sender)
    resources.types[CLUSTERS] |= {"a": "bad", "b": "2"}
    sender.changed(CLUSTERS, ["a", "b"])
    envoy.settle(sender)
    assert envoy.held[CLUSTERS] == {"a": "1", "b": "2"}
    assert sender.refusals()[CLUSTERS]["a"].held == "1"
    assert sender.accepted(CLUSTERS) == {"a": "1", "b": "2"}
    before = len(envoy.log)
    resources.types[CLUSTERS]["b"] = "3"
    sender.changed(CLUSTERS, ["a", "b"])
    envoy.settle(sender)
    assert envoy.held[CLUSTERS] == {"a": "1", "b": "3"}
    assert sum(t == CLUSTERS for t, _, _ in envoy.log[before:]) == 1
    resources.types[CLUSTERS]["a"] = "2"
    sender.changed(CLUSTERS, ["a"])
    envoy.settle(sender)
    assert envoy.held[CLUSTERS] == {"a": "2", "b": "3"}
    assert sender.refusals() == {}


@BOTH
def test_back_to_the_version_it_has_is_no_refusal_any_more(machine, proxy) -> None:
    resources = shelf(a="1")
    sender, envoy = machine(resources), proxy()
    envoy.connect(sender)
    envoy.settle(sender)
    for version in ("bad", "1"):
        resources.types[CLUSTERS]["a"] = version
        sender.changed(CLUSTERS, ["a"])
        envoy.settle(sender)
    assert sender.refusals() == {}
    assert envoy.held[CLUSTERS] == {"a": "1"}


@BOTH
def test_a_removal_beside_a_bad_one_is_made(machine, proxy) -> None:
    resources = shelf(a="1", b="1", c="1")
    sender, envoy = machine(resources), proxy(False)
    envoy.connect(sender)
    envoy.settle(sender)
    del resources.types[LISTENERS]["in"]
    resources.types[LISTENERS] |= {"x": "bad", "y": "1"}
    sender.changed(LISTENERS, ["in", "x", "y"])
    envoy.settle(sender)
    assert envoy.held[LISTENERS] == {"y": "1"}
    assert list(sender.refusals()[LISTENERS]) == ["x"]


def test_after_a_reconnect_a_whole_rejection_takes_nothing_away() -> None:
    resources = shelf(a="1", b="1")
    envoy = StateProxy(False)
    first = state(resources)
    envoy.connect(first)
    envoy.settle(first)
    resources.types[CLUSTERS] |= {"a": "bad", "c": "1"}
    second = state(resources)
    envoy.connect(second)
    envoy.settle(second)
    assert envoy.held[CLUSTERS] == {"a": "1", "b": "1"}
    assert second.refusals()[CLUSTERS]["*"].reason == "something is wrong"
    resources.types[CLUSTERS]["a"] = "2"
    second.changed(CLUSTERS, ["a"])
    envoy.settle(second)
    assert envoy.held[CLUSTERS] == {"a": "2", "b": "1", "c": "1"}
    assert second.refusals() == {}


def test_after_a_reconnect_a_bad_one_keeps_its_last_good_version() -> None:
    resources = shelf(a="1", b="1")
    envoy = StateProxy()
    first = state(resources)
    envoy.connect(first)
    envoy.settle(first)
    resources.types[CLUSTERS] |= {"a": "bad", "c": "1"}
    second = state(resources)
    envoy.connect(second)
    for version in ("1", "2"):
        resources.types[CLUSTERS]["b"] = version
        second.changed(CLUSTERS, ["b"])
        envoy.settle(second)
        assert envoy.held[CLUSTERS] == {"a": "1", "b": version, "c": "1"}
    del resources.types[CLUSTERS]["a"]
    second.changed(CLUSTERS, ["a"])
    envoy.settle(second)
    assert envoy.held[CLUSTERS] == {"b": "2", "c": "1"}


def test_reasons_are_bounded() -> None:
    isolation = Isolation()
    assert isolation.rejected({"a": (None, "1")}, {"a": "x" * 10_000}, "") == ["a"]
    assert len(isolation.refused["a"].reason) == MAX_REASON


VERSIONS = st.sampled_from(("1", "2", "3", "bad-1", "bad-2"))
WORDS = st.sampled_from("abcdefg")
TYPES = st.sampled_from((CLUSTERS, ENDPOINTS, LISTENERS))


def test_what_was_applied_of_a_rejected_response_gets_a_version() -> None:
    resources = shelf(a="1", b="1")
    machine, envoy = state(resources), StateProxy()
    envoy.connect(machine)
    envoy.settle(machine)
    for type_url in (CLUSTERS, ENDPOINTS):
        resources.types[type_url] |= {"a": "2", "b": "bad"}
        machine.changed(type_url, ["a", "b"])
    envoy.settle(machine)
    # Back to what it had when it last acknowledged everything, while it is away.
    for type_url in (CLUSTERS, ENDPOINTS):
        resources.types[type_url] |= {"a": "1", "b": "1"}
    machine = state(resources)
    envoy.connect(machine)
    envoy.settle(machine)
    assert envoy.held[CLUSTERS] == envoy.held[ENDPOINTS] == {"a": "1", "b": "1"}


class Streams(RuleBasedStateMachine):
    """Random publishes, half deliveries and reconnects of two proxies: in the end each has all that is good."""

    names = True

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf(**{CLUSTERS: {}, ENDPOINTS: {}, LISTENERS: {}})
        self.proxies = [(delta, DeltaProxy(self.names)), (state, StateProxy(self.names))]
        self.machines = [make(self.shelf) for make, _ in self.proxies]
        for machine, (_, proxy) in zip(self.machines, self.proxies, strict=True):
            proxy.connect(machine)

    @rule(type_url=TYPES, names=st.dictionaries(WORDS, VERSIONS, min_size=1))
    def publish(self, type_url: str, names: dict[str, str]) -> None:
        self.shelf.types[type_url] |= names
        for machine in self.machines:
            machine.changed(type_url, names)

    @rule(type_url=TYPES, name=WORDS)
    def remove(self, type_url: str, name: str) -> None:
        self.shelf.types[type_url].pop(name, None)
        for machine in self.machines:
            machine.changed(type_url, [name])

    @rule(steps=st.integers(1, 4))
    def exchange(self, steps: int) -> None:
        for machine, (_, proxy) in zip(self.machines, self.proxies, strict=True):
            for _ in range(steps):
                response = machine.poll(0, (CLUSTERS, ENDPOINTS, LISTENERS), (CLUSTERS, ENDPOINTS))
                if response is not None:
                    machine.receive(proxy.take(response))
                    proxy.follow(machine)

    @rule()
    def reconnect(self) -> None:
        # A state-of-the-world proxy that has applied a part of what it rejected has no version of what it has, until
        # it takes the next response (docs/adr/008-streams-of-proxies.md).
        machine, (_, proxy) = self.machines[1], self.proxies[1]
        if any(machine.refusals().values()):
            proxy.settle(machine)
        self.machines = [make(self.shelf) for make, _ in self.proxies]
        for machine, (_, proxy) in zip(self.machines, self.proxies, strict=True):
            proxy.connect(machine)

    def teardown(self) -> None:
        # What is bad in the end is made good: then everything must be there, whatever was rejected on the way.
        for type_url, entries in self.shelf.types.items():
            self.publish(type_url, {name: "9" if is_bad(version) else version for name, version in entries.items()})
        for machine, (_, proxy) in zip(self.machines, self.proxies, strict=True):
            proxy.settle(machine)
            for type_url in WHOLE:
                assert proxy.held[type_url] == self.shelf.types[type_url], type(proxy)
                assert machine.accepted(type_url) == self.shelf.types[type_url]
            wanted = {n: v for n, v in self.shelf.types[ENDPOINTS].items() if n in self.shelf.types[CLUSTERS]}
            there = {n: v for n, v in proxy.held[ENDPOINTS].items() if n in self.shelf.types[ENDPOINTS]}
            assert there == wanted, type(proxy)
            assert machine.refusals() == {}
            quiet = len(proxy.log)
            proxy.settle(machine)
            assert len(proxy.log) == quiet


class WholeStreams(Streams):
    names = False


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestWholeStreams = WholeStreams.TestCase
TestWholeStreams.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
