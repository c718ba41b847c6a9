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
