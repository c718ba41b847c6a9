from meshd.topology.state import Policies, Section
from tests.topology.builders import dataplane


def test_a_section_is_published_sorted_and_anew_only_when_it_changed():
    section: Section[str] = Section(str.upper)
    assert section.set("b", "B") is None
    section.set("a", "A")
    first = section.published()
    assert list(first.items()) == [("A", "A"), ("B", "B")]
    assert section.published() is first
    assert section.set("b", "b2") == "B"
    assert list(section.published()) == ["A", "B2"]
    section.set("a", "A")
    assert list(section.published().items()) == [("A", "A"), ("B2", "b2")], "replaced in its place"
    assert section.set("a", None) == "A"
    assert section.set("gone", None) is None
    assert list(section.published()) == ["B2"]
    assert list(first) == ["A", "B"], "what was published stays as it was"


def test_policies_are_published_sorted_and_anew_only_when_they_changed():
    policies = Policies()
    one, two = dataplane("one"), dataplane("two")
    policies.set("Z", "two", two)
    policies.set("Z", "one", one)
    policies.set("A", "gone", one)
    first = policies.published()
    assert policies.published() is first
    policies.set("A", "gone", None)
    assert dict(policies.published()) == {"Z": (one, two)}
    assert list(first) == ["A", "Z"]
