from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.topology.digest import Digest, of_resource
from tests.topology.builders import dataplane, inbound


def digest(items):
    found = Digest()
    for (section, name), content in items:
        found.set(section, name, content)
    return found.value


ITEMS = st.lists(
    st.tuples(st.tuples(st.sampled_from("st"), st.sampled_from("abc")), st.none() | st.sampled_from("xyz"))
)


@settings(max_examples=100)
@given(ITEMS, ITEMS)
def test_equal_content_gives_equal_hashes_whatever_the_history_and_unequal_does_not(first, second):
    def content(items):
        return {key: value for key, value in dict(items).items() if value is not None}

    same = content(first) == content(second)
    assert (digest(first) == digest(second)) is same


def test_where_something_stands_counts():
    assert digest([(("a", "b"), "c")]) != digest([(("ab", ""), "c")]) != digest([(("", "ab"), "c")])


def test_the_order_of_tags_and_defaults_written_out_do_not_count():
    one = dataplane("d", {"port": 80, "tags": {"kuma.io/service": "web", "a": "b"}})
    other = dataplane("d", {"port": 80, "tags": {"a": "b", "kuma.io/service": "web"}, "state": "Ready"})
    assert of_resource(one) == of_resource(other)
    assert of_resource(one) != of_resource(dataplane("d", inbound("web", 80)))
    assert of_resource(one) != of_resource(dataplane("d", {"port": 80, "tags": {}}, labels={"x": "y"}))
