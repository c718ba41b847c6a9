from meshd.topology.state import Section


def test_a_section_is_published_sorted_and_anew_only_when_it_changed():
    section: Section[str] = Section()
    assert section.set("b", "B") is None
    section.set("a", "A")
    first = section.published(str.upper)
    assert list(first.items()) == [("A", "A"), ("B", "B")]
    assert section.published(str.upper) is first
    assert section.set("b", "b2") == "B"
    assert list(section.published(str.upper)) == ["A", "B2"]
    assert section.set("a", None) == "A"
    assert section.set("gone", None) is None
    assert list(section.published(str.upper)) == ["B2"]
    assert list(first) == ["A", "B"], "what was published stays as it was"
