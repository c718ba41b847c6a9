"""What Envoys say of what they do not take."""

from meshd.discovery import Refused, Rejection
from meshd.xds.nacks import blame, violations
from meshd.xds.resources import LISTENER

NAMES = ["a", "a:b", "c"]


def test_each_has_its_own_reason() -> None:
    said = Rejection("Error adding/updating listener(s) a:b: no: c: d\n, a: too slow")
    assert blame(LISTENER, said, NAMES) == {"a:b": "no: c: d", "a": "too slow"}


def test_of_words_that_are_cut_short_nobody_knows_whom_they_mean() -> None:
    assert blame(LISTENER, Rejection("Error adding/updating listener(s) a: too...(truncated)"), NAMES) == {}


def test_a_response_that_is_refused_as_a_whole_names_nobody() -> None:
    assert blame(LISTENER, Rejection("Proto constraint validation failed (a: b)"), NAMES) == {}


def test_reasons_are_fit_to_be_shown() -> None:
    [shown] = violations({LISTENER: {"a": Refused("1", "too\n slow\x1b[31m")}})
    assert (shown.field, shown.message) == ("Listener a", "too slow?[31m (the proxy has none)")
