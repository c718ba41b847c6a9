"""What a proxy is to have: a reader that follows the feed always has what the feed has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.discovery.messages import Entry
from meshd.xds.encode import SchemaError
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, Layer, ProxyFeed, XdsResource, resource

TYPES = (CLUSTER, LISTENER)


def made(name, version="1", type_url=CLUSTER):
    return XdsResource(type_url, Entry(name, version, b""))


class Reader:
    """Applies what ``take`` says, as a stream does."""

    def __init__(self, feed):
        self.feed = feed
        self.held = {}
        self.woken = 0
        feed.wake = self.wake

    def wake(self):
        self.woken += 1

    def read(self):
        self.woken = 0
        for type_url, names in self.feed.take().items():
            for name in names:
                entry = self.feed.get(type_url, name)
                if entry is None:
                    self.held.pop((type_url, name), None)
                else:
                    self.held[type_url, name] = entry.version


def everything(feed):
    return {(t, name): feed.get(t, name).version for t in TYPES for name in feed.names(t)}


resources = st.builds(made, st.sampled_from("abc"), st.sampled_from("12"), st.sampled_from(TYPES))
batches = st.lists(resources, max_size=4)
which = st.integers(0, 2)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), which, batches),
        st.tuples(st.just("remove"), which, st.tuples(st.sampled_from(TYPES), st.sets(st.sampled_from("abc")))),
        st.tuples(st.just("replace"), which, batches),
        st.tuples(st.just("show"), st.just(0), st.lists(which, unique=True)),
        st.tuples(st.just("read"), st.just(0), st.none()),
    ),
    max_size=12,
)


@given(steps)
def test_a_reader_has_what_the_feed_has(history):
    layers = [Layer(), Layer(), Layer()]
    feed = ProxyFeed()
    reader = Reader(feed)

    for what, layer, argument in [*history, ("read", 0, None)]:
        match what:
            case "put":
                layers[layer].put(argument)
            case "remove":
                layers[layer].remove(*argument)
            case "replace":
                layers[layer].replace(argument)
            case "show":
                feed.show(tuple(layers[i] for i in argument))
            case "read":
                reader.read()
                assert reader.held == everything(feed)
        assert reader.woken or reader.held == everything(feed)


def showing(*layers):
    feed = ProxyFeed()
    feed.show(layers)
    feed.take()
    return feed, Reader(feed)


def test_what_is_as_it_was_wakes_nobody():
    layer = Layer()
    layer.put([made("a"), made("b")])
    feed, reader = showing(layer)

    layer.put([made("a")])
    layer.replace([made("a"), made("b")])
    layer.remove(CLUSTER, ["c"])
    layer.remove(ENDPOINTS, ["a"])

    assert (reader.woken, feed.take()) == (0, {})


def test_only_what_changed_is_told():
    layer = Layer()
    layer.put([made("a"), made("b")])
    feed, _ = showing(layer)

    layer.replace([made("a"), made("b", "2"), made("c")])

    assert feed.take() == {CLUSTER: {"b", "c"}}


def test_an_earlier_layer_is_before_a_later_one():
    first, second = Layer(), Layer()
    first.put([made("a", "1")])
    second.put([made("a", "2")])

    assert showing(first, second)[0].get(CLUSTER, "a").version == "1"
    assert showing(second, first)[0].get(CLUSTER, "a").version == "2"


def test_layers_that_stay_are_not_told_again():
    stays, goes, comes = Layer(), Layer(), Layer()
    stays.put([made("a")])
    goes.put([made("b")])
    comes.put([made("c")])
    feed, _ = showing(stays, goes)

    feed.show((stays, comes))

    assert feed.take() == {CLUSTER: {"b", "c"}}


def test_a_layer_is_in_use_while_a_feed_includes_it():
    layer = Layer()
    one, other = ProxyFeed(), ProxyFeed()

    one.show((layer,))
    other.show((layer,))
    one.close()
    assert layer.in_use

    other.show(())
    assert not layer.in_use


def test_a_closed_feed_is_told_nothing():
    layer = Layer()
    feed, reader = showing(layer)

    feed.close()
    layer.put([made("a")])

    assert (reader.woken, feed.take()) == (0, {})


def test_a_feed_is_ready_when_it_was_rendered_even_if_there_is_nothing():
    feed = ProxyFeed()
    reader = Reader(feed)
    assert not feed.ready

    feed.show((Layer(),))

    assert feed.ready
    assert reader.woken


@pytest.mark.parametrize(
    ("type_url", "document", "name"),
    [
        (CLUSTER, {"name": "a"}, "a"),
        (LISTENER, {"name": "b"}, "b"),
        (ROUTES, {"name": "c"}, "c"),
        (ENDPOINTS, {"clusterName": "d"}, "d"),
    ],
)
def test_a_resource_is_called_as_its_document_says(type_url, document, name):
    assert resource(type_url, document).name == name


def test_equal_documents_are_equal_resources():
    one = resource(CLUSTER, {"name": "a", "type": "EDS"})

    assert one == resource(CLUSTER, {"type": "EDS", "name": "a"})
    assert one.entry.version != resource(CLUSTER, {"name": "a", "type": "STATIC"}).entry.version


def test_equal_bytes_of_two_types_are_two_versions():
    assert resource(CLUSTER, {"name": "a"}).entry.version != resource(LISTENER, {"name": "a"}).entry.version


def test_what_envoy_does_not_have_is_refused():
    with pytest.raises(SchemaError, match="no field 'nam'"):
        resource(CLUSTER, {"name": "a", "nam": "b"})


def test_all_readers_hear_of_what_is_spread_a_few_at_a_time():
    layer, readers = Layer(), [Reader(ProxyFeed()) for _ in range(20)]
    for reader in readers:
        reader.feed.show((layer,))
        reader.read()
    woken = [sum(reader.woken for reader in readers) for _ in layer.spread([made("a"), made("b")])]
    assert woken == [8, 16]
    for reader in readers:
        assert reader.woken == 1
        reader.read()
        assert reader.held == everything(reader.feed) == {(CLUSTER, "a"): "1", (CLUSTER, "b"): "1"}
    assert list(layer.spread([made("a")])) == []
    assert not any(reader.woken for reader in readers)
