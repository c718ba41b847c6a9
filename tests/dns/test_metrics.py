import json

from prometheus_client import CollectorRegistry

from meshd.dns.metrics import Tally


def test_what_another_tally_counts_between_snapshots_is_added() -> None:
    ours, theirs = Tally(None), Tally(None)
    theirs.query("A", "SERVFAIL", "slow")
    theirs.fast["AAAA", "NXDOMAIN"] += 2
    theirs.drop("short")
    theirs.took(0.003, 2)
    before = json.loads(json.dumps(theirs.snapshot()))
    ours.absorb({}, before)
    theirs.drop("short", 2)
    theirs.connection("idle")
    ours.absorb(before, json.loads(json.dumps(theirs.snapshot())))
    assert ours.snapshot() == theirs.snapshot()
    assert ours.answered() == {("A", "SERVFAIL", "slow"): 1, ("AAAA", "NXDOMAIN", "fast"): 2}


def test_counts_and_gauges_are_collected() -> None:
    registry = CollectorRegistry()
    tally = Tally(registry)
    tally.query("A", "NOERROR", "fast", 3)
    tally.query("A", "NOERROR", "fast")
    tally.drop("short")
    tally.asked("10.0.0.2:53", "timeout")
    tally.connection("idle")
    tally.gauges["meshd_dns_names"] = ("Names that are answered.", lambda: 7)
    value = registry.get_sample_value
    assert value("meshd_dns_queries_total", {"type": "A", "rcode": "NOERROR", "path": "fast"}) == 4
    assert value("meshd_dns_dropped_total", {"reason": "short"}) == 1
    assert value("meshd_dns_upstream_events_total", {"upstream": "10.0.0.2:53", "event": "timeout"}) == 1
    assert value("meshd_dns_tcp_connections_total", {"event": "idle"}) == 1
    assert value("meshd_dns_names") == 7
