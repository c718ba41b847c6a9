from meshd.rules.header_match import HeaderMatch, violations


def match(**document):
    return HeaderMatch.model_validate(document)


def test_every_violation_is_named():
    found = violations([match(name="A"), match(name="a", type="Present", value="x"), match(name="b", value="")], "h")
    assert [str(v) for v in found] == [
        'h[0].name: "A" is no header name: use lower case letters, digits and "-", at most 256',
        'h[1].value: must not be set with type Present: "x"',
    ]
    assert violations(None, "h") == []


def test_the_type_counts_as_written():
    assert match(name="a", value="1").model_dump(mode="json", exclude_unset=True)["type"] == "Exact"
