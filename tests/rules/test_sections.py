import pytest

from meshd.rules.sections import sections_violations

BESIDE = "spec: fields 'to' and 'from' must be empty when 'rules' is defined"
NONE = "spec: at least one of 'from', 'to' or 'rules' has to be defined"


@pytest.mark.parametrize(
    ("to", "from_", "rules", "expected"),
    [
        ([1], None, None, []),
        ([1], [1], [], []),
        (None, None, [1], []),
        ([1], None, [1], [BESIDE]),
        (None, [1], [1], [BESIDE]),
        (None, [], None, [NONE]),
    ],
)
def test_which_sections_go_together(to, from_, rules, expected):
    assert [str(v) for v in sections_violations(to, from_, rules)] == expected
