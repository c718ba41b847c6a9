"""What is said of an Envoy that ended."""

import pytest

from meshd.envoy.exits import Exit, judge


@pytest.mark.parametrize(
    ("status", "ready_s", "words", "expected"),
    [
        (0, 3.21, (), "ended by itself after it was ready for 3.2 s"),
        (1, None, ("bad config",), "failed with exit code 1 before it was ready: bad config"),
        (-9, 600, (), "was ended by SIGKILL (by a person, or for want of memory) after it was ready for 10 min"),
        (-11, 59.9, ("Caught", "at"), "was ended by SIGSEGV after it was ready for 59.9 s: Caught; at"),
        (-64, 61, (), "was ended by SIGRTMAX after it was ready for 1 min"),
        (-99, None, (), "was ended by signal 99 before it was ready"),
        (None, 5, (), "ended after it was ready for 5.0 s"),
    ],
)
def test_an_end_is_told_with_its_cause(status, ready_s, words, expected):
    assert judge(Exit(status), ready_s, words) == expected
