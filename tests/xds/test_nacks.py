"""Whom an Envoy's words blame."""

import pytest

from meshd.discovery import Refused, Rejection
from meshd.xds.nacks import blame, violations
from meshd.xds.resources import CLUSTER, LISTENER

CDS, LDS = "Error adding/updating cluster(s) ", "Error adding/updating listener(s) "


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (CDS + "web: no EDS config", ["web"]),
        (CDS + "web: no EDS config, db: malformed", ["db", "web"]),
        (CDS + "mesh-web: it refers to web: not found", ["mesh-web"]),
        (LDS + "in:10.0.0.1:80: malformed IP address: x\nweb: bad\n", ["in:10.0.0.1:80", "web"]),
        (LDS + "other: bad", []),
        ("Proto constraint validation failed (Cluster.web: bad)", []),
        ("web: bad", []),
        ("", []),
    ],
)
def test_only_who_is_named_as_such_is_blamed(message, expected):
    names = ["web", "db", "mesh-web", "in:10.0.0.1:80", "10.0.0.1:80", "80"]
    assert sorted(blame(CLUSTER, Rejection(message, 13), names)) == expected


def test_what_is_refused_is_shown_in_one_line_each():
    refusals = {
        LISTENER: {"in": Refused("1", "a\n  b", held="0")},
        CLUSTER: {"z": Refused("1", "x" * 1000), "a": Refused("1", "")},
    }
    found = violations(refusals)
    assert [v.field for v in found] == ["Cluster a", "Cluster z", "Listener in"]
    assert found[0].message == "no reason given (the proxy has none)"
    assert found[2].message == "a b (the proxy keeps the last version it took)"
    assert len(found[1].message) < 400


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
